"""From sounds to samples: the options that all sound sets share, features, and ways to cut.

A sample is a float32 array ``(1, rows, frames)``: the feature of a waveform at ``sample_rate``, computed
by librosa with a Hann window of ``n_fft`` samples every ``hop`` samples, centred, so that n samples give
``1 + n // hop`` frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from bench.contracts.options import Options
from bench.contracts.source import SourceError, Split

from .copies import (
    CHANGES,
    Copy,
    CopyNames,
    GainDb,
    NoiseSnrDb,
    PitchSemitones,
    Profile,
    StretchRate,
    ordered_names,
    unused_options,
)
from .decoded import Decoding, Item
from .sounds import LIBRARIES, PRELOAD, Sound, Waveform
from .trees import shuffled

# Part of every fingerprint: raise it with every change here or in sounds.py that alters a sample.
_VERSION = 1

# 64 MB; the power spectrum that a worker needs for it has a multiple of that.
_MOST_VALUES = 1 << 24

FeatureName = Annotated[
    Literal["stft", "mel", "logmel", "mfcc"],
    Field(
        description="stft: dB of the magnitude; mel: dB of the mel power; logmel: its natural logarithm, at least "
        "ln 1e-5; mfcc: cepstral coefficients of it."
    ),
]
SampleRate = Annotated[int, Field(ge=1_000, le=192_000, description="Samples per second after resampling.")]
NFft = Annotated[int, Field(ge=16, le=65_536, description="Length of the window, in samples.")]
Hop = Annotated[int, Field(ge=16, le=65_536, description="Step between windows, in samples.")]
NMels = Annotated[int, Field(ge=1, le=1_024, description="Number of mel filters, from 0 Hz to half the sample rate.")]
NMfcc = Annotated[int, Field(ge=1, le=1_024, description="Number of cepstral coefficients (feature mfcc).")]
Seconds = Annotated[float, Field(ge=0.01, le=600, description="Length of one sample's sound, in seconds.")]
TrimDb = Annotated[
    float | None,
    Field(gt=0, le=200, description="Remove what is this much quieter than the loudest part, in dB; 200 keeps all."),
]


_USED_BY = {"n_mels": {"mel", "logmel", "mfcc"}, "n_mfcc": {"mfcc"}}


class AudioOptions(Options):
    """What the user may choose about sounds; each set has its own defaults."""

    feature: FeatureName = "logmel"
    sample_rate: SampleRate = 44_100
    n_fft: NFft = 1024
    hop: Hop = 256
    n_mels: NMels = 64
    n_mfcc: NMfcc = 13
    seconds: Seconds = 5.0
    trim_db: TrimDb = None
    skip_bad: bool = Field(False, description="Leave out files that cannot be decoded; the record lists them.")
    augment_copies: CopyNames = None
    stretch_rate: StretchRate = 1.23
    pitch_semitones: PitchSemitones = 2.0
    compression: Profile = "film-standard"
    noise_snr_db: NoiseSnrDb = 10.0
    gain_db: GainDb = -6.0

    @field_validator("augment_copies")
    @classmethod
    def _known_copies(cls, value: str | None) -> str | None:
        return ordered_names(value)

    @model_validator(mode="after")
    def _copies_have_a_use(self) -> AudioOptions:
        for name, copy in unused_options(self.augment_copies).items():
            if getattr(self, name) != type(self).model_fields[name].default:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} has no effect without {copy} in --augment-copies. Leave it out")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, serialised: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So that sets without copies keep the identity that they had before there were any.
        left_out = {*unused_options(self.augment_copies), *(() if self.augment_copies else ("augment_copies",))}
        return {name: value for name, value in serialised(self).items() if name not in left_out}

    @model_validator(mode="after")
    def _fit_together(self) -> AudioOptions:
        if self.hop > self.n_fft:
            raise ValueError(
                f"--hop {self.hop} is more than --n-fft {self.n_fft}: the sound between two windows would be lost"
            )
        for name, features in _USED_BY.items():
            default = type(self).model_fields[name].default
            if getattr(self, name) != default and self.feature not in features:
                raise ValueError(f"--{name.replace('_', '-')} has no effect on --feature {self.feature}. Leave it out")
        if self.length < self.hop:
            raise ValueError(f"--seconds {self.seconds:g} is shorter than one --hop of {self.hop} samples")
        if self.feature != "stft":
            usable = most_mels(self.sample_rate, self.n_fft, self.n_mels)
            if self.n_mels > usable:
                raise ValueError(
                    f"--n-mels {self.n_mels} is too many for --n-fft {self.n_fft} at {self.sample_rate} Hz: some "
                    f"filters would be empty. Use at most {usable}, or a longer window"
                )
        if self.feature == "mfcc" and self.n_mfcc > self.n_mels:
            raise ValueError(f"--n-mfcc {self.n_mfcc} is more than --n-mels {self.n_mels}")
        values = self.spectrum.rows * self.spectrum.frames(self.length)
        if values > _MOST_VALUES:
            raise ValueError(f"one sample would have {values:,} values, more than {_MOST_VALUES:,}: raise --hop")
        return self

    @property
    def length(self) -> int:
        """Length of one sample's sound, in samples."""
        return round(self.seconds * self.sample_rate)

    def items(self, split: Split, sounds: Sequence[Sound]) -> list[Item]:
        """Return the items of a split in their order: its sounds, and for training also their copies, shuffled."""
        names = self.augment_copies.split("+") if self.augment_copies and split == "train" else []
        items: list[Item] = list(sounds)
        for name in names:
            option, change = CHANGES[name]
            items += [Copy(sound, name, change(getattr(self, option))) for sound in sounds]
        return shuffled(items)

    @property
    def spectrum(self) -> Spectrum:
        """The feature with its parameters."""
        return Spectrum(self.feature, self.sample_rate, self.n_fft, self.hop, self.n_mels, self.n_mfcc)


def most_mels(sample_rate: int, n_fft: int, wanted: int) -> int:
    """Return the largest number up to ``wanted`` of mel filters none of which falls between two frequencies.

    The filters are those of ``librosa.filters.mel``: triangles between neighbours on Slaney's mel scale. They
    are computed here, because importing librosa takes seconds and options are checked for every command.
    """
    return next((count for count in range(wanted, 1, -1) if not _has_empty_mels(sample_rate, n_fft, count)), 1)


def _has_empty_mels(sample_rate: int, n_fft: int, count: int) -> bool:
    # Linear to 1,000 Hz (15 mel), from there on logarithmic with 27 steps to a factor of 6.4.
    step = np.log(6.4) / 27
    top = sample_rate / 2
    mels = np.linspace(0, top * 3 / 200 if top < 1_000 else 15 + np.log(top / 1_000) / step, count + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1_000 * np.exp(step * (mels - 15)))
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    # A triangle is above zero strictly between its edges.
    inside = np.searchsorted(bins, edges[2:], "left") - np.searchsorted(bins, edges[:-2], "right")
    return bool((inside < 1).any())


@dataclass(frozen=True)
class Spectrum:
    """A feature with its parameters."""

    feature: Literal["stft", "mel", "logmel", "mfcc"]
    sample_rate: int
    n_fft: int
    hop: int
    n_mels: int
    n_mfcc: int
    version: int = _VERSION

    @property
    def rows(self) -> int:
        """Height of the feature."""
        return {"stft": self.n_fft // 2 + 1, "mfcc": self.n_mfcc}.get(self.feature, self.n_mels)

    def frames(self, length: int) -> int:
        """Return the width of the feature of ``length`` samples."""
        return 1 + length // self.hop

    def of(self, y: Waveform) -> NDArray[np.float32]:
        """Return the feature of a waveform: float32 ``(rows, frames)``, C-contiguous.

        - stft: ``librosa.amplitude_to_db(abs(librosa.stft(y, n_fft=, hop_length=)), ref=1.0, top_db=80)``
        - mel: ``librosa.power_to_db(m, ref=1.0, top_db=80)`` of the mel power
          ``m = librosa.feature.melspectrogram(y=, sr=, n_fft=, hop_length=, n_mels=)``
        - logmel: ``log(max(m, 1e-5))``, the natural logarithm
        - mfcc: ``librosa.feature.mfcc(y=, sr=, n_mfcc=, n_fft=, hop_length=, n_mels=)``
        """
        import librosa

        rate, n_fft, hop, n_mels = self.sample_rate, self.n_fft, self.hop, self.n_mels
        x: NDArray[Any]
        with warnings.catch_warnings():
            # A window longer than the sound is zeros outside it, which is as it should be.
            warnings.filterwarnings("ignore", message="n_fft=.* is too large")
            if self.feature == "stft":
                spectrum = np.abs(librosa.stft(y, n_fft=n_fft, hop_length=hop))
                x = librosa.amplitude_to_db(spectrum, ref=1.0, top_db=80)
            elif self.feature == "mfcc":
                x = librosa.feature.mfcc(y=y, sr=rate, n_mfcc=self.n_mfcc, n_fft=n_fft, hop_length=hop, n_mels=n_mels)
            else:
                power = librosa.feature.melspectrogram(y=y, sr=rate, n_fft=n_fft, hop_length=hop, n_mels=n_mels)
                logarithmic = self.feature == "logmel"
                x = np.log(np.maximum(power, 1e-5)) if logarithmic else librosa.power_to_db(power, ref=1.0, top_db=80)
        return np.ascontiguousarray(x, np.float32)


def trimmed(y: Waveform, trim_db: float) -> Waveform:
    """Return what ``librosa.effects.split(y, top_db=trim_db)`` finds to be no silence, joined."""
    import librosa

    return np.concatenate([y[start:end] for start, end in librosa.effects.split(y, top_db=trim_db)])


@dataclass(frozen=True)
class Clip:
    """One sample per sound: the first ``frames`` of the feature of its first ``length`` samples."""

    spectrum: Spectrum
    length: int
    frames: int
    trim_db: float | None

    def __call__(self, item: Sound | Copy) -> NDArray[np.float32]:
        """Return the sample of a sound, ``(1, 1, rows, frames)``; a short sound is followed by zeros."""
        y = _sound(item, self.spectrum.sample_rate, self.length, self.trim_db)
        x = self.spectrum.of(_padded(y, self.length))
        return np.ascontiguousarray(x[None, None, :, : self.frames])

    def decoding(self) -> Decoding:
        """Return how items become samples."""
        return _decoding(self, self.spectrum, self.frames)


@dataclass(frozen=True)
class Segments:
    """``count`` samples per sound: the features of consecutive parts of ``length`` samples, apart from each other."""

    spectrum: Spectrum
    length: int
    count: int
    trim_db: float | None

    def __call__(self, item: Sound | Copy) -> NDArray[np.float32]:
        """Return the samples of a sound, ``(count, 1, rows, frames)``; zeros fill the last segment.

        Raises:
            SourceError: the sound ends before its last segment begins.
        """
        rate, last = self.spectrum.sample_rate, (self.count - 1) * self.length
        copy = item if isinstance(item, Copy) else None
        needed = copy.change.needed(self.length, rate) if copy else self.length
        y = _sound(copy.original if copy else item, rate, last + needed, self.trim_db)
        if len(y) <= last:
            raise SourceError(
                f"it is {len(y) / rate:.1f} s long, too short for {self.count} segments of {self.length / rate:g} s"
            )
        parts = [y[start : start + needed] for start in range(0, last + 1, self.length)]
        if copy:
            # Each by itself: a stretched track would have fewer of them.
            parts = [copy.changed(part, rate, number)[: self.length] for number, part in enumerate(parts)]
        return np.stack([self.spectrum.of(_padded(part, self.length))[None] for part in parts])

    def decoding(self) -> Decoding:
        """Return how items become samples."""
        return _decoding(self, self.spectrum, self.spectrum.frames(self.length), self.count)


@dataclass(frozen=True)
class Fragments:
    """Samples of ``frames`` frames every ``step`` frames of the feature of the whole sound, as many as fit."""

    spectrum: Spectrum
    frames: int
    step: int
    trim_db: float | None

    def __call__(self, item: Sound | Copy) -> NDArray[np.float32]:
        """Return the samples of a sound, ``(n, 1, rows, frames)``; the frames of a short sound are repeated."""
        x = self.spectrum.of(_sound(item, self.spectrum.sample_rate, None, self.trim_db))
        if x.shape[1] < self.frames:
            x = np.tile(x, -(-self.frames // x.shape[1]))[:, : self.frames]
        windows = np.lib.stride_tricks.sliding_window_view(x, self.frames, axis=1)[:, :: self.step]
        return np.ascontiguousarray(windows.transpose(1, 0, 2)[:, None])

    def count(self, seconds: float) -> int:
        """Return how many samples a sound of this length gives, were none of it silence."""
        frames = self.spectrum.frames(int(seconds * self.spectrum.sample_rate))
        return 1 + max(0, frames - self.frames) // self.step

    def decoding(self, estimate: Callable[[Sequence[Any]], int]) -> Decoding:
        """Return how items become samples; ``estimate`` guesses how many."""
        return _decoding(self, self.spectrum, self.frames, None, estimate)


def _sound(item: Sound | Copy, sample_rate: int, length: int | None, trim_db: float | None) -> Waveform:
    if isinstance(item, Copy):
        # Without its silence, which noise would hide.
        needed = None if length is None else item.change.needed(length, sample_rate)
        return item.changed(_sound(item.original, sample_rate, needed, trim_db), sample_rate)[:length]
    if trim_db is None:
        return item.waveform(sample_rate, length)
    # How loud the loudest part is, only the whole sound tells.
    return trimmed(item.waveform(sample_rate, None), trim_db)[:length]


def _padded(y: Waveform, length: int) -> Waveform:
    return np.pad(y, (0, length - len(y)))


def _decoding(
    decode: Callable[[Any], NDArray[np.float32]],
    spectrum: Spectrum,
    frames: int,
    samples_per_item: int | None = 1,
    estimate: Callable[[Sequence[Any]], int] | None = None,
) -> Decoding:
    shape = (1, spectrum.rows, frames)
    return Decoding(decode, shape, "float32", LIBRARIES, (__name__, *PRELOAD), samples_per_item, estimate)
