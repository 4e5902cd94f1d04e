"""torchvision's ResNets, fitted to any channel count and to small images.

Up to 64 pixels the 7x7 stride-2 stem and the max pooling would leave almost nothing, so
they give way to the 3x3 stride-1 stem that He et al. (2016, "Deep Residual Learning for
Image Recognition", section 4.2) use on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Callable

import torchvision
from torch import nn

SMALL_IMAGE_PIXELS = 64


def build_resnet18(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return an untrained ResNet-18."""
    return _fit(torchvision.models.resnet18, shape, classes)


def build_resnet50(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return an untrained ResNet-50."""
    return _fit(torchvision.models.resnet50, shape, classes)


def _fit(build: Callable[..., torchvision.models.ResNet], shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, *pixels = shape
    network: torchvision.models.ResNet = build(weights=None, num_classes=classes)
    if max(pixels) <= SMALL_IMAGE_PIXELS:
        network.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    module: nn.Module = network
    return module
