"""Sound files as waveforms: any format that libsndfile reads, any rate, any number of channels."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.source import SourceError

from .decoded import File, Item

SUFFIXES = (".aif", ".aiff", ".au", ".flac", ".mp3", ".ogg", ".wav")
"""Names of sound files end so."""

PRELOAD = ("librosa.core.audio", "librosa.effects", "librosa.feature.spectral", "soundfile", "soxr")
"""Modules to import once for all workers. Importing librosa takes seconds (the first time on a machine, when
numba compiles what librosa decorates, a quarter of a minute); calling it does not."""

LIBRARIES = ("librosa", "numpy", "scipy", "soundfile", "soxr")
"""What the values of a waveform or a feature depend on."""

Waveform = NDArray[np.float32]

_LEAST_RATE, _LARGEST_RATE = 1_000, 768_000
# 12 minutes at 44.1 kHz, 134 MB: bounds what a worker holds when it needs the whole of a sound.
_MOST_SAMPLES = 1 << 25
_BLOCK_VALUES = 1 << 20
# Far above any scale in use, and its power spectrum is still a float32.
_LARGEST_VALUE = 1e9
# Some writers count the header as part of the data.
_HEADER_BYTES = 64
_UNKNOWN_LENGTHS = {0xFFFFFFFF, 0x7FFFF000}  # what ffmpeg and SoX put when they write to a pipe
_UNKNOWN_FRAMES = (1 << 63) - 1  # what libsndfile says of such a FLAC, and then cannot read to its end
_MP3_FRAME = 1152
_NO_FILE = 7  # libsndfile's number for no file, or no regular one
# Both from libsndfile's log of its parsing, the only place where it tells them.
_NO_OGG_END = "lacks an end-of-stream bit"
_CLAIM = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class Sound(Item, Protocol):
    """An item with a waveform."""

    def waveform(self, sample_rate: int, length: int | None) -> Waveform:
        """Return the sound at ``sample_rate`` (Hz), mono, ``(n,)`` with n ≥ 1: all of it, or its first ``length``."""


@dataclass(frozen=True, slots=True)
class SoundFile(File):
    """A sound file of one class."""

    def waveform(self, sample_rate: int, length: int | None) -> Waveform:
        """See Sound.waveform. Raises SourceError with the reason why the file cannot be used."""
        return read_sound(self.path, sample_rate, length)


def read_sound(path: str, sample_rate: int, length: int | None = None) -> Waveform:
    """Return a sound file as mono float32, ``(n,)``; channels are averaged, integers scaled to [-1, 1).

    Another rate than ``sample_rate`` (Hz) is converted by ``librosa.resample(res_type="soxr_hq")``. With
    ``length`` at most so many samples are returned, and little more is read.

    Raises:
        SourceError: unreadable, empty, truncated, longer than can be held, or with values that are no sound.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            source_rate = file.samplerate
            wanted = _frames_to_read(file, sample_rate, length)
            y = _mono(file, wanted)
            # Without a table of contents the length of an MP3 is an estimate.
            missing = wanted - len(y) - (_MP3_FRAME if file.format == "MP3" else 0)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        if error.code == _NO_FILE and Path(path).is_file():
            # What libsndfile says of a file that its MP3 decoder finds nothing in.
            reason = "it is none that libsndfile knows, whatever its name"
        raise SourceError(f"it cannot be read as sound: {reason}") from error
    if missing > 0 or not len(y):
        raise SourceError(f"it is truncated: after {len(y):,} of {wanted:,} samples there is no more")
    # So written that NaN fails as well.
    if not np.abs(y).max() <= _LARGEST_VALUE:
        raise SourceError("it has samples that are infinite, no number, or far too large")
    if source_rate != sample_rate:
        import librosa

        y = librosa.resample(y, orig_sr=source_rate, target_sr=sample_rate, res_type="soxr_hq")
    return np.ascontiguousarray(y[:length], np.float32)


def _frames_to_read(file: Any, sample_rate: int, length: int | None) -> int:
    """Check what the header says, and return how many samples per channel are needed."""
    frames, source_rate, log = file.frames, file.samplerate, file.extra_info
    if frames < 1:
        raise SourceError("it holds no sound: its length is 0")
    if not _LEAST_RATE <= source_rate <= _LARGEST_RATE:
        raise SourceError(f"its header gives a sample rate of {source_rate:,} Hz")
    if frames == _UNKNOWN_FRAMES:
        raise SourceError("its header does not tell how long it is: encode it again, into a file instead of a pipe")
    if _NO_OGG_END in log:
        raise SourceError("it is truncated: its last page is not the end of the sound")
    for claimed, found in ((int(a), int(b)) for a, b in _CLAIM.findall(log)):
        if claimed not in _UNKNOWN_LENGTHS and claimed > found + _HEADER_BYTES:
            raise SourceError(f"it is truncated: its header promises {claimed:,} bytes of sound, it has {found:,}")
    if length is not None:
        # A second more, so that the filter of the resampling sees no end where the sound has none.
        frames = min(frames, math.ceil(length * source_rate / sample_rate) + source_rate)
    if max(frames, frames * sample_rate / source_rate) > _MOST_SAMPLES:
        most = _MOST_SAMPLES // max(sample_rate, source_rate)
        raise SourceError(f"it is {frames / source_rate:,.0f} s long, more than {most} s, too long to be decoded whole")
    return int(frames)


def _mono(file: Any, frames: int) -> Waveform:
    y = np.empty(frames, np.float32)
    done = 0
    size = max(1, _BLOCK_VALUES // file.channels)
    while done < frames:
        block = file.read(min(size, frames - done), dtype="float32", always_2d=True)
        if not len(block):
            break
        y[done : done + len(block)] = block.mean(axis=1)
        done += len(block)
    return y[:done]
