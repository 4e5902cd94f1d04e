"""Options, loading, features and cutting of sounds; truth is librosa, soundfile, and files made by hand."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from bench.contracts.source import SourceError
from bench.datasets import sounds
from bench.datasets.audio import AudioOptions, Clip, Fragments, Segments, Spectrum, most_mels, trimmed
from bench.datasets.decoded import DecodedFiles, Facts
from bench.datasets.esc50 import Esc50Options
from bench.datasets.fsdkaggle2018 import FsdKaggle2018Options
from bench.datasets.gtzan import GtzanOptions
from bench.datasets.sounds import SoundFile, read_sound
from bench.datasets.urbansound8k import UrbanSound8kOptions


def pcm(count: int, seed: int = 0) -> NDArray[np.int16]:
    t = np.arange(count) / 44_100
    noise = np.random.default_rng(seed).normal(0, 900, count)
    return (9_000 * np.sin(2 * np.pi * 440 * t) + noise).clip(-32_768, 32_767).astype(np.int16)


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    return pcm(30_000).astype(np.float32) / 32_768


@dataclass(frozen=True)
class Made:
    """An item whose waveform is given."""

    y: NDArray[np.float32]
    label: int = 0
    name: str = "made"

    def waveform(self, sample_rate: int, length: int | None) -> NDArray[np.float32]:
        return self.y[:length]


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"feature": "mfcc", "n_mfcc": 65}, "--n-mfcc 65 is more than --n-mels 64"),
        ({"hop": 2048}, "--hop 2048 is more than --n-fft 1024"),
        ({"n_mels": 512}, "--n-mels 512 is too many for --n-fft 1024"),
        ({"seconds": 0.01, "n_fft": 4096, "hop": 1024}, "--seconds 0.01 is shorter than one --hop"),
        ({"feature": "stft", "n_fft": 65_536, "hop": 16, "seconds": 600}, "values, more than"),
    ],
)
def test_options_that_do_not_fit_together_are_refused_in_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        AudioOptions.model_validate(values)
    (error,) = caught.value.errors()
    assert "\n" not in error["msg"]


@pytest.mark.parametrize(
    "values",
    [
        {"feature": "cqt"},
        {"sample_rate": 0},
        {"n_fft": 1},
        {"hop": 0},
        {"n_mels": 0},
        {"n_mfcc": 0},
        {"seconds": 0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"trim_db": 0},
        {"trim_db": float("nan")},
        {"fold": 1},
    ],
)
def test_options_out_of_bounds_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AudioOptions.model_validate(values)


def test_what_a_feature_does_not_use_is_not_checked_but_cannot_be_chosen() -> None:
    AudioOptions(feature="stft", n_fft=64, hop=64)
    for chosen, flag in (({"feature": "stft", "n_mels": 65}, "--n-mels"), ({"n_mfcc": 12}, "--n-mfcc")):
        with pytest.raises(ValueError, match=f"{flag} has no effect on --feature"):
            AudioOptions(**chosen)


def test_every_option_is_explained() -> None:
    for options in (AudioOptions, Esc50Options, UrbanSound8kOptions, GtzanOptions, FsdKaggle2018Options):
        for name, field in options.model_fields.items():
            assert field.description, f"{options.__name__}.{name}"
        options()


@given(
    sample_rate=st.sampled_from([1_000, 1_500, 8_000, 16_000, 22_050, 44_100, 96_000]),
    n_fft=st.integers(16, 2048),
    n_mels=st.integers(1, 256),
)
@settings(max_examples=300, deadline=None)
def test_filters_are_called_empty_where_librosa_makes_empty_ones(sample_rate: int, n_fft: int, n_mels: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    assert (most_mels(sample_rate, n_fft, n_mels) == n_mels) == bool((filters.max(axis=1) > 0).all())


def test_the_number_of_filters_that_is_advised_works() -> None:
    most = most_mels(44_100, 1024, 512)
    assert 64 <= most < 512
    assert (librosa.filters.mel(sr=44_100, n_fft=1024, n_mels=most).max(axis=1) > 0).all()


# ---------------------------------------------------------------- features


PLAIN: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "stft": lambda y: librosa.amplitude_to_db(
        np.abs(librosa.stft(y, n_fft=1000, win_length=1000, hop_length=300, window="hann", center=True)), top_db=80
    ),
    "mel": lambda y: librosa.power_to_db(
        librosa.feature.melspectrogram(y=y, sr=16_000, n_fft=1000, hop_length=300, n_mels=40, power=2.0), top_db=80
    ),
    "logmel": lambda y: np.log(
        np.maximum(librosa.feature.melspectrogram(y=y, sr=16_000, n_fft=1000, hop_length=300, n_mels=40), 1e-5)
    ),
    "mfcc": lambda y: librosa.feature.mfcc(y=y, sr=16_000, n_mfcc=20, n_fft=1000, hop_length=300, n_mels=40),
}


@pytest.mark.parametrize("feature", PLAIN)
def test_features_are_those_of_plain_librosa(feature: Any, sound: NDArray[np.float32]) -> None:
    spectrum = Spectrum(feature, sample_rate=16_000, n_fft=1000, hop=300, n_mels=40, n_mfcc=20)
    quiet_end = np.concatenate([sound, np.zeros(5_000, np.float32)])
    for y in (sound, quiet_end):
        x = spectrum.of(y)
        np.testing.assert_allclose(x, PLAIN[feature](y), rtol=1e-5, atol=1e-5)
        assert x.shape == (spectrum.rows, spectrum.frames(len(y)))
        assert x.dtype == np.float32
        assert x.flags.c_contiguous


@pytest.mark.parametrize("feature", PLAIN)
@pytest.mark.parametrize("y", [np.zeros(2_000, np.float32), np.ones(1, np.float32)], ids=["silence", "one sample"])
def test_features_of_next_to_nothing_are_finite(feature: Any, y: NDArray[np.float32]) -> None:
    x = Spectrum(feature, 16_000, 4096, 1024, 40, 20).of(y)
    assert np.isfinite(x).all()


def test_trimming_removes_what_librosa_calls_silence(sound: NDArray[np.float32]) -> None:
    with_gap = np.concatenate([np.zeros(20_000, np.float32), sound, np.zeros(30_000, np.float32), sound])
    intervals = librosa.effects.split(with_gap, top_db=60)
    assert len(intervals) == 2
    np.testing.assert_array_equal(trimmed(with_gap, 60), np.concatenate([with_gap[a:b] for a, b in intervals]))
    assert len(trimmed(with_gap, 60)) < 70_000
    np.testing.assert_array_equal(trimmed(np.zeros(9_000, np.float32), 60), np.zeros(9_000))


# ---------------------------------------------------------------- cutting


SMALL = Spectrum("mel", 16_000, 400, 160, 26, 13)


@pytest.mark.parametrize("count", [1, 3_999, 4_000, 4_001, 30_000])
def test_a_clip_is_cut_or_padded(count: int, sound: NDArray[np.float32]) -> None:
    y = sound[:count]
    (x,) = Clip(SMALL, length=4_000, frames=20, trim_db=None)(Made(y))
    np.testing.assert_array_equal(x[0], SMALL.of(np.concatenate([y, np.zeros(4_000, np.float32)])[:4_000])[:, :20])
    assert x.shape == (1, 26, 20)


def test_silence_is_removed_before_a_clip_is_cut(sound: NDArray[np.float32]) -> None:
    y = np.concatenate([np.zeros(20_000, np.float32), sound])
    (x,) = Clip(SMALL, length=4_000, frames=26, trim_db=60)(Made(y))
    np.testing.assert_array_equal(x[0], SMALL.of(trimmed(y, 60)[:4_000]))


def test_segments_are_consecutive_and_the_last_is_padded(sound: NDArray[np.float32]) -> None:
    x = Segments(SMALL, length=4_000, count=3, trim_db=None)(Made(sound[:11_000]))
    last = np.concatenate([sound[8_000:11_000], np.zeros(1_000, np.float32)])
    for found, y in zip(x, (sound[:4_000], sound[4_000:8_000], last), strict=True):
        np.testing.assert_array_equal(found[0], SMALL.of(y))


def test_a_track_without_its_last_segment_is_refused(sound: NDArray[np.float32]) -> None:
    with pytest.raises(SourceError, match=r"it is 0\.5 s long, too short for 3 segments of 0\.25 s"):
        Segments(SMALL, length=4_000, count=3, trim_db=None)(Made(sound[:8_000]))


@given(count=st.integers(1, 20_000), frames=st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_fragments_overlap_by_half_and_short_sounds_repeat(sound: NDArray[np.float32], count: int, frames: int) -> None:
    step = frames // 2
    fragments = Fragments(SMALL, frames, step, trim_db=None)
    whole = SMALL.of(sound[:count])
    x = fragments(Made(sound[:count]))
    if whole.shape[1] < frames:
        assert len(x) == 1
        for k in range(frames):
            np.testing.assert_array_equal(x[0, 0, :, k], whole[:, k % whole.shape[1]])
    else:
        for i, fragment in enumerate(x):
            np.testing.assert_array_equal(fragment[0], whole[:, i * step : i * step + frames])
        assert len(x) * step + frames > whole.shape[1]
    assert x.flags.c_contiguous
    assert fragments.count(count / 16_000) == len(x)


def test_decoders_differ_in_repr_and_travel_by_pickle() -> None:
    made = [Clip(SMALL, 4_000, 26, None), Clip(SMALL, 4_000, 25, None), Clip(SMALL, 4_000, 26, 60.0)]
    made += [Clip(Spectrum("mel", 16_000, 400, 160, 25, 13), 4_000, 26, None)]
    assert len({repr(decode) for decode in made}) == len(made)
    assert [pickle.loads(pickle.dumps(decode)) for decode in made] == made


# ---------------------------------------------------------------- reading


def loaded(path: Path, rate: int) -> NDArray[np.float32]:
    """What librosa.load does, without the deprecated modules that it imports."""
    y, own_rate = soundfile.read(path, dtype="float32")
    return librosa.resample(librosa.to_mono(y.T), orig_sr=own_rate, target_sr=rate, res_type="soxr_hq")


LOSSLESS = [
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 0),
    ("WAV", "PCM_24", 0),
    ("WAV", "PCM_32", 0),
    ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 0),
    ("WAVEX", "PCM_16", 0),
    ("FLAC", "PCM_16", 0),
    ("FLAC", "PCM_24", 0),
    ("AU", "PCM_16", 0),
    ("AIFF", "PCM_24", 0),
]


@pytest.mark.parametrize(("form", "subtype", "error"), LOSSLESS)
def test_samples_are_read_as_written(form: str, subtype: str, error: float, tmp_path: Path) -> None:
    y, path = pcm(20_001).astype(np.float32) / 32_768, tmp_path / f"a.{form.lower().replace('wavex', 'wav')}"
    soundfile.write(path, y, 22_050, format=form, subtype=subtype)
    found = read_sound(str(path), 22_050)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, y, rtol=0, atol=error)


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.ogg", "VORBIS"), ("a.mp3", "MPEG_LAYER_III"), ("a.wav", "IMA_ADPCM")]
)
@pytest.mark.parametrize("rate", [22_050, 16_000])
def test_lossy_formats_are_what_librosa_loads(name: str, subtype: str, rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, pcm(20_001), 22_050, subtype=subtype)
    expected = loaded(tmp_path / name, rate)
    np.testing.assert_allclose(read_sound(str(tmp_path / name), rate), expected, rtol=1e-5, atol=1e-5)


def test_an_mp3_without_a_table_of_contents_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, pcm(100_000), 44_100, bitrate_mode="CONSTANT", compression_level=0.5)
    data = path.read_bytes()
    path.write_bytes(data[data.index(b"\xff\xfb", 10) :])  # the first frame is the table
    assert abs(len(read_sound(str(path), 44_100)) - 100_000) < 3_000


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("rate", [44_100, 16_000, 96_000])
def test_channels_are_averaged_and_rates_converted(channels: int, rate: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([pcm(50_000, seed) for seed in range(channels)], axis=1), 44_100)
    expected = loaded(path, rate)
    found = read_sound(str(path), rate)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert found.shape == expected.shape


@pytest.mark.parametrize("rate", [44_100, 22_050, 16_000, 48_000])
def test_the_beginning_of_a_long_sound_is_that_of_the_whole(
    rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, pcm(600_000), 44_100)
    whole = read_sound(str(path), rate)
    read: list[int] = []
    plain = soundfile.SoundFile.read

    def counting(self: Any, frames: int = -1, **keywords: Any) -> Any:
        read.append(frames)
        return plain(self, frames, **keywords)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    beginning = read_sound(str(path), rate, 2 * rate)
    np.testing.assert_allclose(beginning, whole[: 2 * rate], rtol=1e-5, atol=1e-5)
    assert sum(read) <= 3 * 44_100


def test_many_channels_are_read_in_bounded_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(0).normal(0, 0.1, (5_000, 16)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", y, 16_000, subtype="FLOAT")
    monkeypatch.setattr(sounds, "_BLOCK_VALUES", 1_000)
    np.testing.assert_allclose(read_sound(str(tmp_path / "a.wav"), 16_000), y.mean(axis=1), rtol=1e-4, atol=1e-6)


def wav(claimed: int, data: bytes, *, rate: int = 44_100, channels: int = 1, kind: int = 1, bits: int = 16) -> bytes:
    """A WAV file by hand, whose header claims ``claimed`` bytes of sound."""
    block = channels * bits // 8
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + layout + b"data" + struct.pack("<I", claimed) + data


def encoded(name: str, folder: Path, share: float) -> bytes:
    path = folder / f"whole-{name}"
    soundfile.write(path, pcm(200_000), 44_100)
    data = path.read_bytes()
    return data[: int(len(data) * share)]


def flac_of_unknown_length(folder: Path) -> bytes:
    data = bytearray(encoded("a.flac", folder, 1))
    # The lower 36 of the bits from here on are the number of samples.
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])
    return bytes(data)


SILENCE = bytes(20_000)
BAD: dict[str, tuple[str, str, Callable[[Path], bytes]]] = {
    "nothing": ("a.wav", "cannot be read as sound", lambda _: b""),
    "text": ("a.wav", "cannot be read as sound", lambda _: b"this is no sound\n" * 100),
    "text mp3": ("a.mp3", "it is none that libsndfile knows", lambda _: b"hello world"),
    "header cut": ("a.wav", "cannot be read as sound", lambda _: wav(20_000, SILENCE)[:30]),
    "no samples": ("a.wav", "holds no sound", lambda _: wav(0, b"")),
    "half": ("a.wav", "is truncated", lambda _: wav(40_000, SILENCE)),
    "1e9 samples": ("a.wav", "is truncated", lambda _: wav(2_000_000_000, SILENCE)),
    "half au": ("a.au", "is truncated", lambda folder: encoded("a.au", folder, 0.5)),
    "half aiff": ("a.aiff", "is truncated", lambda folder: encoded("a.aiff", folder, 0.5)),
    "half flac": ("a.flac", "cannot be read as sound|is truncated", lambda folder: encoded("a.flac", folder, 0.5)),
    "half ogg": ("a.ogg", "is truncated|holds no sound", lambda folder: encoded("a.ogg", folder, 0.5)),
    "90 % ogg": ("a.ogg", "is truncated", lambda folder: encoded("a.ogg", folder, 0.9)),
    "streamed flac": ("a.flac", "does not tell how long it is", flac_of_unknown_length),
    "half mp3": ("a.mp3", "is truncated", lambda folder: encoded("a.mp3", folder, 0.5)),
    "nan": ("a.wav", "infinite, no number", lambda _: wav(8, struct.pack("<2f", 0, np.nan), kind=3, bits=32)),
    "inf": ("a.wav", "infinite, no number", lambda _: wav(8, struct.pack("<2f", 0, -np.inf), kind=3, bits=32)),
    "huge": ("a.wav", "far too large", lambda _: wav(8, struct.pack("<2f", 0, 1e30), kind=3, bits=32)),
    "1 Hz": ("a.wav", "sample rate of 1 Hz", lambda _: wav(20_000, SILENCE, rate=1)),
    "2 GHz": ("a.wav", "sample rate of 2,000,000,000 Hz", lambda _: wav(20_000, SILENCE, rate=2_000_000_000)),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("length", [None, 4_000_000])
def test_bad_files_are_refused_in_one_line(case: str, length: int | None, tmp_path: Path) -> None:
    name, said, data = BAD[case]
    (tmp_path / name).write_bytes(data(tmp_path))
    with pytest.raises(SourceError, match=said) as caught:
        read_sound(str(tmp_path / name), 44_100, length)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read as sound"):
        read_sound(str(tmp_path / "a.wav"), 44_100)


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 20_036], ids=["to a pipe", "header counted"])
def test_lengths_that_writers_get_wrong_are_no_damage(claimed: int, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(claimed, SILENCE))
    assert len(read_sound(str(tmp_path / "a.wav"), 44_100)) == 10_000


def test_a_sound_too_long_to_hold_is_refused_unless_its_beginning_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    size = (1 << 25) + 2
    path.write_bytes(wav(size, b"", bits=8))
    os.truncate(path, 44 + size)  # sparse
    with pytest.raises(SourceError, match="it is 761 s long, more than 760 s"):
        read_sound(str(path), 44_100)
    assert len(read_sound(str(path), 44_100, 1_000)) == 1_000
    path.write_bytes(wav(1 << 24, b"", bits=8))
    os.truncate(path, 44 + (1 << 24))
    with pytest.raises(SourceError, match="it is 380 s long, more than 174 s"):
        read_sound(str(path), 192_000)


# ---------------------------------------------------------------- together


def folder_of(paths: list[Path], *, skip_bad: bool = False) -> DecodedFiles:
    options = AudioOptions(seconds=0.25)
    clip = Clip(options.spectrum, options.length, options.spectrum.frames(options.length), None)
    items = {"train": [SoundFile(str(path), k % 2) for k, path in enumerate(paths)]}
    return DecodedFiles(Facts("toy", ("a", "b"), "CC0", "local"), items, clip.decoding(), skip_bad=skip_bad)


def test_workers_name_the_bad_file_or_leave_it_out(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.wav" for k in range(5)]
    for k, path in enumerate(paths):
        soundfile.write(path, pcm(5_000, k), 44_100)
    paths[3].write_bytes(wav(40_000, SILENCE))
    with pytest.raises(SourceError, match=f"{paths[3]} cannot be used: it is truncated.*--skip-bad") as caught:
        list(folder_of(paths).samples("train"))
    assert "\n" not in str(caught.value)

    data = folder_of(paths, skip_bad=True)
    assert [label for block in data.samples("train") for label in block.y.tolist()] == [0, 1, 0, 0]
    assert not data.schema("train").exact
    (skipped,) = data.skipped("train")
    assert (skipped.file, skipped.reason[:15]) == (str(paths[3]), "it is truncated")


def test_importing_the_sound_sets_does_not_load_what_decodes() -> None:
    check = (
        "import sys\n"
        "from bench.datasets import audiofolder, esc50, fsdkaggle2018, gtzan, urbansound8k\n"
        "[cls() for cls in (esc50.Esc50, gtzan.Gtzan)]\n"
        "heavy = {'librosa', 'numba', 'scipy', 'soundfile', 'soxr', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
