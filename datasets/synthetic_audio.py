"""Synthetic sounds: stand-ins that features and storage formats treat like recordings.

A class is a recipe: pitch, overtones, glide, colour of the noise, how much of it, and how it swells
and fades. An item varies the recipe, adds background noise, and is all that its number says: no two
are the same, and each is the same every time. A network can learn the recipes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .sounds import Waveform

# Part of the fingerprint: raise it with every change that alters a waveform.
_VERSION = 1
_SEED = 0

# NumPy takes [7], [7, 0] for the same seed; so both count from one.
_RECIPES, _ITEMS = 1, 2

_LOWEST_HZ, _HIGHEST_HZ = 110.0, 3_500.0
_OVERTONES = 5
_NOISE_SIZE = 1 << 16
_TURN = np.float32(2 * np.pi)
_PITCH_SPREAD = 0.04
_LOUDNESS_DB = (-24.0, -3.0)
_BACKGROUND_DB = (-75.0, -45.0)


@dataclass(frozen=True, slots=True)
class SyntheticSound:
    """Sound number ``number`` of a set of ``classes`` classes, ``seconds`` long."""

    label: int
    classes: int
    number: int
    seconds: float

    @property
    def name(self) -> str:
        """See Item.name."""
        return f"synthetic sound {self.number}"

    def state(self) -> str:
        """See Item.state."""
        return f"synthetic-sound-v{_VERSION} {self.label}/{self.classes} {self.number} {self.seconds!r}"

    def waveform(self, sample_rate: int, length: int | None) -> Waveform:
        """See Sound.waveform. At most 1 in magnitude."""
        rng = np.random.default_rng([_SEED, _ITEMS, self.number + 1, self.label + 1])
        count = max(1, round(self.seconds * sample_rate))
        recipe = _Recipe.of_class(self.label, self.classes)
        seconds = np.arange(count) / sample_rate
        tone = recipe.tone(seconds, sample_rate, rng)
        noise = _noise(count, recipe.noise_colour, rng)
        y = (recipe.noisiness * noise + (1 - recipe.noisiness) * tone) * recipe.envelope(seconds, rng)
        y *= 10 ** (rng.uniform(*_LOUDNESS_DB) / 20) / max(float(np.abs(y).max()), 1e-9)
        y += 10 ** (rng.uniform(*_BACKGROUND_DB) / 20) * _noise(count, 0.5, rng)
        return np.clip(y, -1, 1).astype(np.float32)[:length]


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What the sounds of a class have in common."""

    pitch_hz: float
    overtones: NDArray[np.float64]
    glide: float
    noisiness: float
    noise_colour: float
    bursts_per_s: float
    fading: float

    @classmethod
    def of_class(cls, label: int, classes: int) -> _Recipe:
        rng = np.random.default_rng([_SEED, _RECIPES, label + 1])
        return cls(
            # Evenly over the range, so that no two classes differ in pitch by less than items vary.
            pitch_hz=_LOWEST_HZ * (_HIGHEST_HZ / _LOWEST_HZ) ** ((label + 0.5) / classes),
            overtones=rng.uniform(0.1, 1, _OVERTONES) / np.arange(1, _OVERTONES + 1),
            glide=rng.uniform(-0.15, 0.15),
            noisiness=rng.uniform(0.05, 0.7),
            noise_colour=rng.uniform(0, 1.2),
            bursts_per_s=rng.uniform(0.3, 6),
            fading=rng.uniform(0, 5),
        )

    def tone(self, seconds: NDArray[np.float64], sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a tone with overtones whose pitch glides up or down and back, once a second."""
        pitch_hz = self.pitch_hz * (1 + rng.uniform(-_PITCH_SPREAD, _PITCH_SPREAD))
        turn = np.mod(seconds + rng.uniform(), 1).astype(np.float32)
        swing = self.glide / (2 * np.pi) * np.sin(_TURN * turn)
        turn = np.mod(pitch_hz * (seconds + swing), 1).astype(np.float32)
        tone = np.zeros(len(seconds), np.float32)
        for number, strength in enumerate(self.overtones, start=1):
            # What is above half the sample rate would come back as another pitch.
            if number * pitch_hz * (1 + abs(self.glide)) < sample_rate / 2:
                tone += np.float32(strength) * np.sin(np.float32(number) * _TURN * turn)
        return tone

    def envelope(self, seconds: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the loudness over time: repeated bursts that start at once and fade, more or less."""
        phase = np.mod(seconds * self.bursts_per_s * rng.uniform(0.9, 1.1) + rng.uniform(), 1).astype(np.float32)
        attack = np.minimum(phase * np.float32(50), np.float32(1))
        loudness: NDArray[np.float32] = attack * np.exp(np.float32(-self.fading) * phase)
        return loudness


def _noise(count: int, colour: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return noise of deviation 1 whose amplitude falls with frequency to the power ``colour``.

    It repeats itself after 2**16 samples, without a seam.
    """
    size = min(_NOISE_SIZE, 1 << max(4, (count - 1).bit_length()))
    spectrum = np.fft.rfft(rng.standard_normal(size, np.float32))
    spectrum[1:] *= np.arange(1, len(spectrum), dtype=np.float32) ** np.float32(-colour)
    spectrum[0] = 0
    noise: NDArray[np.float32] = np.fft.irfft(spectrum, size).astype(np.float32)
    return np.resize(noise / noise.std(), count)
