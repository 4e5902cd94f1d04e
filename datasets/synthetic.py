"""Synthetic photographs: stand-ins with the statistics that storage formats notice.

Every image is a crop of a large random texture whose amplitude spectrum falls off as in
photographs, plus a weaker crop of a second texture per channel for colour and sensor noise.
The class sets the direction of the texture and a tint, so that a network can learn it.
The constants are fitted to CIFAR: contrast, spectrum, and what zstd and PNG make of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bench.contracts.source import RawData, SampleBlock, Schema, SourceError, Split

# Part of the fingerprint: raise it with every change that alters a single byte.
_VERSION = 1

# NumPy takes [7], [7, 0] and [7, 0, 0] for the same seed; so splits and blocks count from
# one, and the zeros are left to the textures and to the order of the labels.
_SPLIT_NUMBERS: dict[Split, int] = {"train": 1, "val": 2, "test": 3}

_BLOCK_IMAGES = 1000
_BLOCK_BYTES = 16 << 20
_CHUNK_VALUES = 1 << 18  # keeps the intermediates of a chunk in a usual second-level cache

_TEXTURE_SIZE = 512
_DIRECTIONS = 16
_STRETCH = 1.3
_EXPONENT = 1.6

# Pixels are int16 fixed point with this many fractional bits. The largest sum is about
# 46 * 210 + 2000 + 64 * (128 + 28 + 26 + 12) = 24100: one more bit would overflow.
_FRACTION = 6
_ONE = 1 << _FRACTION
_CONTRAST = 2 * _ONE
_GAIN_LEAST, _GAIN_STEPS = 14, 17  # in 1 / _ONE, the steps drawn twice
_COLOUR = 12.5 * _ONE
_NOISE = 80
_BRIGHTNESS = 14  # in grey levels, drawn twice
_TINT_SPREAD = 26
_TINT = 12 * _ONE


class SyntheticPhotos(RawData):
    """Photograph-like uint8 images: the same bytes for the same arguments.

    ``class_counts`` says how many samples of each class a split has; without it they are balanced.
    """

    def __init__(
        self,
        *,
        name: str,
        counts: Mapping[Split, int],
        shape: tuple[int, ...],
        classes: tuple[str, ...],
        licence: str,
        seed: int = 0,
        class_counts: Mapping[Split, Sequence[int]] | None = None,
    ) -> None:
        if len(shape) != 3:
            raise ValueError(f"shape must be (channels, height, width), not {shape}")
        for split, of_classes in (class_counts or {}).items():
            if len(of_classes) != len(classes) or sum(of_classes) != counts[split]:
                raise ValueError(f"class_counts of {split} must be {len(classes)} numbers, {counts[split]} in all")
        self._name = name
        self._counts = dict(counts)
        self._shape = shape
        self._classes = classes
        self._licence = licence
        self._seed = seed
        self._class_counts = dict(class_counts or {})

    def fingerprint(self) -> str:
        """See RawData.fingerprint."""
        counts = ",".join(f"{split}={count}" for split, count in sorted(self._counts.items()))
        shape = "x".join(map(str, self._shape))
        classes = len(self._classes)
        text = f"synthetic-photos-v{_VERSION} {self._name} {counts} {shape} classes={classes} seed={self._seed}"
        uneven = "".join(f" {split}={','.join(map(str, n))}" for split, n in sorted(self._class_counts.items()))
        return text + uneven

    def schema(self, split: Split) -> Schema:
        """See RawData.schema."""
        return Schema(
            name=self._name,
            split=split,
            count=self._count(split),
            shape=self._shape,
            dtype="uint8",
            classes=self._classes,
            licence=self._licence,
            origin="synthetic",
        )

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        """See RawData.samples."""
        count = self._count(split)
        number = _SPLIT_NUMBERS[split]
        labels = np.arange(count, dtype=np.int64) % len(self._classes)
        if split in self._class_counts:
            labels = np.repeat(np.arange(len(self._classes), dtype=np.int64), self._class_counts[split])
        np.random.default_rng([self._seed, number]).shuffle(labels)
        painter = _Painter(self._shape, len(self._classes), self._seed)
        size = max(1, min(_BLOCK_IMAGES, _BLOCK_BYTES // int(np.prod(self._shape))))
        for block, start in enumerate(range(0, count, size), start=1):
            y = labels[start : start + size].copy()
            yield SampleBlock(painter.paint(y, np.random.default_rng([self._seed, number, block])), y)

    def _count(self, split: Split) -> int:
        if split not in self._counts:
            raise SourceError(f"{self._name} has no split {split!r}, only {', '.join(self._counts)}.")
        return self._counts[split]


class _Painter:
    """Turns labels into images. Floats end with the textures; from there on all is integer."""

    def __init__(self, shape: tuple[int, ...], classes: int, seed: int) -> None:
        self._shape = shape
        self._size = max(_TEXTURE_SIZE, max(shape) * 3 // 2)
        self._directions = np.arange(classes) * max(classes, _DIRECTIONS) // classes % _DIRECTIONS
        # One channel takes half the circle, where the cosine meets no value twice.
        circle = 2 * np.pi if shape[0] > 1 else np.pi
        hues = np.arange(classes)[:, None] * circle / classes + np.arange(shape[0]) * 2 * np.pi / 3
        self._tints = np.rint(_TINT * np.cos(hues)).astype(np.int64)

        rng = np.random.default_rng([seed])
        noise = rng.integers(-_NOISE, _NOISE + 1, (self._size, self._size), np.int16)
        colour = self._texture(self._spectrum(rng), 0.0, 1.0, _COLOUR) + noise
        spectrum = self._spectrum(rng)
        light = [self._texture(spectrum, np.pi * k / _DIRECTIONS, _STRETCH, _CONTRAST) for k in range(_DIRECTIONS)]
        margins = ((0, shape[1] - 1), (0, shape[2] - 1))
        self._colour = sliding_window_view(np.pad(colour, margins, mode="wrap"), shape[1:])
        self._light = sliding_window_view(
            np.stack([np.pad(texture, margins, mode="wrap") for texture in light]), shape[1:], axis=(1, 2)
        )

    def paint(self, y: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Draw one image per label."""
        n, channels = len(y), self._shape[0]
        down, right = rng.integers(0, self._size, (2, n))
        colour_down, colour_right = rng.integers(0, self._size, (2, n, channels))
        gains = _GAIN_LEAST + rng.integers(0, _GAIN_STEPS, (2, n)).sum(axis=0)
        gains = (gains * (1 - 2 * rng.integers(0, 2, n))).astype(np.int16)
        levels = 128 + rng.integers(-_BRIGHTNESS, _BRIGHTNESS + 1, (2, n, 1)).sum(axis=0)
        levels = levels + rng.integers(-_TINT_SPREAD, _TINT_SPREAD + 1, (n, channels))
        offsets = (levels * _ONE + self._tints[y] + _ONE // 2).astype(np.int16)

        images = np.empty((n, *self._shape), np.uint8)
        step = max(1, _CHUNK_VALUES // images[0].size)
        for start in range(0, n, step):
            part = slice(start, start + step)
            light = self._light[self._directions[y[part]], down[part], right[part]]
            light *= gains[part, None, None]
            pixels = self._colour[colour_down[part], colour_right[part]]
            pixels += light[:, None]
            pixels += offsets[part, :, None, None]
            pixels >>= _FRACTION
            images[part] = pixels.clip(0, 255, out=pixels)
        return images

    def _spectrum(self, rng: np.random.Generator) -> NDArray[np.complex128]:
        return np.fft.rfft2(rng.integers(-(1 << 15), 1 << 15, (self._size, self._size), np.int32))

    def _texture(self, spectrum: NDArray[np.complex128], angle: float, stretch: float, std: float) -> NDArray[np.int16]:
        """Filter white noise to amplitudes ``1 / f ** exponent``, stretched along ``angle``."""
        size = self._size
        v, u = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)
        along = (u * np.cos(angle) + v * np.sin(angle)) / stretch
        across = (v * np.cos(angle) - u * np.sin(angle)) * stretch
        # Waves longer than two images would only shift the brightness of whole crops.
        frequency = np.maximum(np.hypot(along, across), size / max(self._shape) / 2)
        texture = np.fft.irfft2(spectrum * frequency**-_EXPONENT, (size, size))
        # Bounds the values, and makes edges: photographs have fewer extremes than Gaussian noise.
        texture = np.tanh(texture / texture.std())
        levels: NDArray[np.int16] = np.rint(texture * (std / texture.std())).astype(np.int16)
        return levels
