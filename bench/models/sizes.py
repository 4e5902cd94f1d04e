"""How large a sample is after some layers, by arithmetic: nothing is computed, and no random number is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn


def values_after(layers: Iterable[nn.Module], shape: tuple[int, ...]) -> int:
    """Return how many values a sample of ``(channels, height, width)`` has after layers in a row.

    Convolutions without dilation and max pooling change the shape; all other layers are taken not to.
    """
    channels, *pixels = shape
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
        elif not isinstance(layer, nn.MaxPool2d):
            continue
        sides = zip(pixels, _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding), strict=True)
        pixels = [(size + 2 * padding - kernel) // stride + 1 for size, kernel, stride, padding in sides]
    return channels * math.prod(pixels)


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
