"""Changed copies of sounds, made of waveforms before their spectrograms, for training alone.

The changes and their sizes are those of Salamon & Bello (2017, "Deep Convolutional Neural Networks and Data
Augmentation for Environmental Sound Classification"), with two differences: librosa's phase vocoder stretches and
shifts, where they used Rubber Band; and the noise is pink, at a ratio to the sound, since their recordings of streets
are no part of any set.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from .sounds import Sound, Waveform

# Part of every copy's state: raise it with every change here that alters a waveform.
_VERSION = 1
_SEED = 0

CopyNames = Annotated[
    str | None,
    Field(
        description="For each sound to train on also a copy changed by each of these: stretch, pitch, compress, noise, "
        "gain; several with + between. There are none for val and test."
    ),
]
StretchRate = Annotated[
    float, Field(ge=0.25, le=4, description="Copy stretch: how many times faster, at the same pitch.")
]
PitchSemitones = Annotated[float, Field(ge=-24, le=24, description="Copy pitch: semitones up, at the same speed.")]
ProfileName = Literal["film-standard", "music-standard", "speech", "radio"]
Profile = Annotated[ProfileName, Field(description="Copy compress: how loudness is evened out.")]
NoiseSnrDb = Annotated[
    float, Field(ge=-40, le=120, description="Copy noise: power of the sound over that of the pink noise added, in dB.")
]
GainDb = Annotated[float, Field(ge=-120, le=40, description="Copy gain: how much louder, in dB.")]


class Change(Protocol):
    """A way to change a waveform. Its ``repr`` tells it from all others."""

    def needed(self, length: int, sample_rate: int) -> int:
        """Return how many samples the first ``length`` of the result depend on."""

    def of(self, y: Waveform, sample_rate: int, random: np.random.Generator) -> Waveform:
        """Return the changed waveform of ``(n,)``, n ≥ 1, whose own length may be another, but not 0."""


@dataclass(frozen=True)
class Stretch:
    """``librosa.effects.time_stretch(y, rate=)``: ``rate`` times as fast, at the same pitch."""

    rate: float

    def needed(self, length: int, sample_rate: int) -> int:  # noqa: ARG002  # the protocol's
        """See Change.needed."""
        return math.ceil(length * self.rate)

    def of(self, y: Waveform, sample_rate: int, random: np.random.Generator) -> Waveform:  # noqa: ARG002
        """See Change.of."""
        import librosa

        with _short_sounds():
            stretched: Waveform = librosa.effects.time_stretch(y, rate=self.rate)
        return stretched if len(stretched) else y[:1]


class _SameLength:
    def needed(self, length: int, sample_rate: int) -> int:  # noqa: ARG002  # the protocol's
        """See Change.needed."""
        return length


@dataclass(frozen=True)
class Pitch(_SameLength):
    """``librosa.effects.pitch_shift(y, sr=, n_steps=)``: higher by semitones, at the same speed."""

    semitones: float

    def of(self, y: Waveform, sample_rate: int, random: np.random.Generator) -> Waveform:  # noqa: ARG002
        """See Change.of."""
        import librosa

        with _short_sounds():
            shifted: Waveform = librosa.effects.pitch_shift(y, sr=sample_rate, n_steps=self.semitones)
        return shifted


@contextmanager
def _short_sounds() -> Iterator[None]:
    with warnings.catch_warnings():
        # A window longer than the sound is zeros outside it, which is as it should be.
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        yield


@dataclass(frozen=True)
class _Curve:
    """What a compressor does: levels in and out in dB of full scale, and how fast it follows them."""

    levels_db: tuple[tuple[float, float], ...]
    attack_s: float
    release_s: float
    gain_db: float
    ahead_s: float


_DOLBY_TOP = ((-31.0, -31.0), (-21.0, -21.0), (0.0, -20.0))

_CURVES: dict[ProfileName, _Curve] = {
    "film-standard": _Curve(((-90, -90), (-70, -64), (-43, -37), *_DOLBY_TOP), 0.1, 0.3, 0.0, 0.1),
    "music-standard": _Curve(((-90, -90), (-70, -58), (-55, -43), *_DOLBY_TOP), 0.1, 0.3, 0.0, 0.1),
    "speech": _Curve(((-90, -90), (-70, -55), (-50, -35), *_DOLBY_TOP), 0.1, 0.3, 0.0, 0.1),
    "radio": _Curve(((-90, -90), (-70, -70), (-60, -20), (0, 0)), 0.01, 1.0, -5.0, 0.0),
}
"""The four profiles of the study: three of Dolby E and one of an Icecast server, as the program that it used, MUDA
(McFee, Humphrey & Bello, 2015), hands them to SoX."""


@dataclass(frozen=True)
class Compress(_SameLength):
    """Dynamic range compression as by SoX's ``compand``.

    The level follows the magnitude of samples, from full scale on, by exponentials of the attack and release times;
    the gain at a sample is that of the level a delay later, linear in dB between the points of the curve and constant
    beyond them. With ``film-standard``: 6 dB more from -70 to -43 dB, from there less up to -31, nothing up to -21,
    and above that 21 dB become 1; attack 0.1 s, release 0.3 s, delay 0.1 s.
    """

    profile: ProfileName

    def needed(self, length: int, sample_rate: int) -> int:
        """See Change.needed."""
        return length + round(_CURVES[self.profile].ahead_s * sample_rate)

    def of(self, y: Waveform, sample_rate: int, random: np.random.Generator) -> Waveform:  # noqa: ARG002
        """See Change.of."""
        curve = _CURVES[self.profile]
        levels = _followed(y, 1 / (sample_rate * curve.attack_s), 1 / (sample_rate * curve.release_s))
        places = np.minimum(np.arange(len(y)) + round(curve.ahead_s * sample_rate), len(y) - 1)
        levels_db = 20 * np.log10(np.maximum(levels[places], 1e-10))
        into_db, out_db = np.array(curve.levels_db).T
        gains_db = np.interp(levels_db, into_db, out_db - into_db) + curve.gain_db
        return np.asarray(y * 10 ** (gains_db / 20), np.float32)


def _followed(y: Waveform, attack: float, release: float) -> NDArray[np.float64]:
    rise, fall = -math.expm1(-attack), -math.expm1(-release)
    level, levels = 1.0, []
    # Each step depends on the one before: 25 ms for a clip of 5 s.
    for magnitude in np.abs(y).tolist():
        step = magnitude - level
        level += step * (rise if step > 0 else fall)
        levels.append(level)
    return np.array(levels)


@dataclass(frozen=True)
class Noise(_SameLength):
    """Pink noise added: power falls by 3 dB an octave. Silence stays silent."""

    snr_db: float

    def of(self, y: Waveform, sample_rate: int, random: np.random.Generator) -> Waveform:  # noqa: ARG002
        """See Change.of."""
        size = max(16, 1 << (len(y) - 1).bit_length())
        spectrum = np.fft.rfft(random.standard_normal(size))
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        noise = np.fft.irfft(spectrum, size)[: len(y)]
        power, wanted = np.mean(noise**2), np.mean(y.astype(np.float64) ** 2) / 10 ** (self.snr_db / 10)
        return np.asarray(y + noise * np.sqrt(wanted / power), np.float32)


@dataclass(frozen=True)
class Gain(_SameLength):
    """Louder or quieter; nothing is clipped."""

    gain_db: float

    def of(self, y: Waveform, sample_rate: int, random: np.random.Generator) -> Waveform:  # noqa: ARG002
        """See Change.of."""
        return y * np.float32(10 ** (self.gain_db / 20))


CHANGES: dict[str, tuple[str, type[Any]]] = {
    "stretch": ("stretch_rate", Stretch),
    "pitch": ("pitch_semitones", Pitch),
    "compress": ("compression", Compress),
    "noise": ("noise_snr_db", Noise),
    "gain": ("gain_db", Gain),
}
"""By name: the option that says how much, and what is made of it."""


def ordered_names(value: str | None) -> str | None:
    """Return names with + between in the order of the table. Raises ValueError for what is unknown or there twice."""
    if value is None:
        return None
    names = value.split("+")
    for name in names:
        if name not in CHANGES:
            raise ValueError(f"{name!r} is no copy; choose from {', '.join(CHANGES)}, several as stretch+pitch")
    if len(set(names)) < len(names):
        raise ValueError("each copy can be named once")
    return "+".join(name for name in CHANGES if name in names)


def unused_options(value: str | None) -> dict[str, str]:
    """Return the options that have no effect on these copies, each with the name of the copy that it belongs to."""
    names = value.split("+") if value else []
    return {option: name for name, (option, _) in CHANGES.items() if name not in names}


@dataclass(frozen=True, slots=True)
class Copy:
    """A changed copy of a sound. What is random about it follows from the name of its file and its class."""

    original: Sound
    name_of_change: str
    change: Change

    @property
    def label(self) -> int:
        """See Item.label."""
        return self.original.label

    @property
    def name(self) -> str:
        """See Item.name."""
        return f"{self.original.name} ({self.name_of_change} copy)"

    def state(self) -> str:
        """See Item.state."""
        return f"{self.original.state()} copy-v{_VERSION} {self.change!r}"

    def changed(self, y: Waveform, sample_rate: int, part: int = 0) -> Waveform:
        """Return part number ``part`` of the sound, changed; ``(n,)`` with n ≥ 1."""
        # Without folders, so that the same files give the same copies wherever they lie.
        name = zlib.crc32(PurePath(self.original.name).name.encode(errors="surrogateescape"))
        random = np.random.default_rng([_SEED, part + 1, name, self.label + 1])
        return self.change.of(y, sample_rate, random)
