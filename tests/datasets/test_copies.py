"""Changed copies of sounds: values against librosa, closed forms and measured levels; and that none leaves training."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import layouts_audio as layouts
import librosa
import numpy as np
import pytest
from layouts_audio import prepared, read
from numpy.typing import NDArray
from pydantic import ValidationError

from bench.contracts.errors import BenchError
from bench.contracts.source import DataSource
from bench.datasets.audio import AudioOptions, Clip, Fragments, Segments, Spectrum
from bench.datasets.audiofolder import AudioFolder
from bench.datasets.copies import CHANGES, Change, Compress, Copy, Gain, Noise, Pitch, Stretch
from bench.datasets.decoded import DecodedFiles
from bench.datasets.esc50 import Esc50
from bench.datasets.fsdkaggle2018 import FsdKaggle2018
from bench.datasets.gtzan import Gtzan
from bench.datasets.urbansound8k import UrbanSound8k
from bench.specs.spec import StoreSpec, make_spec

RATE = 8_000
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Made:
    """An item whose waveform is given."""

    y: NDArray[np.float32]
    label: int = 0
    name: str = "folder/made.wav"

    def state(self) -> str:
        return "as made"

    def waveform(self, sample_rate: int, length: int | None) -> NDArray[np.float32]:
        return self.y[:length]


def tone(hz: float, seconds: float, loudness: float = 0.5) -> NDArray[np.float32]:
    return (loudness * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def changed(change: Change, y: NDArray[np.float32]) -> NDArray[np.float32]:
    return Copy(Made(y), "x", change).changed(y, RATE)


def loudest_hz(y: NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y))))
    return float(np.argmax(spectrum)) * RATE / len(y)


# ---------------------------------------------------------------- values


def test_a_stretched_copy_is_librosas_shorter_and_of_the_same_pitch() -> None:
    y = tone(440, 2)
    found = changed(Stretch(1.23), y)
    np.testing.assert_array_equal(found, librosa.effects.time_stretch(y, rate=1.23))
    assert len(found) == round(len(y) / 1.23)
    assert loudest_hz(found) == pytest.approx(440, abs=2)


def test_a_shifted_copy_is_librosas_higher_and_of_the_same_length() -> None:
    y = tone(440, 2)
    found = changed(Pitch(2.0), y)
    np.testing.assert_array_equal(found, librosa.effects.pitch_shift(y, sr=RATE, n_steps=2))
    assert len(found) == len(y)
    assert loudest_hz(found) == pytest.approx(440 * 2 ** (2 / 12), abs=2)


@pytest.mark.parametrize(
    ("profile", "level_db", "gain_db"),
    [
        # Below the lowest point, within each piece of the curve, and at full scale.
        *(("film-standard", level, gain) for level, gain in [(-95, 0), (-80, 3), (-50, 6), (-37, 3), (-26, 0)]),
        *(("film-standard", level, gain) for level, gain in [(-10.5, -10), (0, -20)]),
        *(("music-standard", level, gain) for level, gain in [(-60, 12), (-43, 6), (-10.5, -10)]),
        *(("speech", level, gain) for level, gain in [(-60, 15), (-40.5, 7.5), (-26, 0)]),
        *(("radio", level, gain) for level, gain in [(-80, -5), (-60, 35), (-30, 15), (0, -5)]),
    ],
)
def test_a_steady_sound_is_as_much_louder_as_the_curve_says(profile: Any, level_db: float, gain_db: float) -> None:
    """A square wave has one magnitude, so its level is known exactly once it has been followed."""
    seconds = 30 if profile == "radio" else 6
    signs = np.where(np.arange(seconds * RATE) % 20 < 10, 1, -1)
    y = (10 ** (level_db / 20) * signs).astype(np.float32)
    found = changed(Compress(profile), y)
    gains_db = 20 * np.log10(np.abs(found[-100:]) / np.abs(y[-100:]))
    np.testing.assert_allclose(gains_db, gain_db, atol=0.02)
    np.testing.assert_array_equal(np.sign(found), np.sign(y))


def test_compression_follows_a_jump_by_its_attack_and_release() -> None:
    """Level and gain in closed form: exponentials of 0.1 s up and 0.3 s down, seen 0.1 s ahead."""
    quiet, loud, half = 10 ** (-40 / 20), 10 ** (-10 / 20), 6 * RATE
    y = np.repeat([quiet, loud, quiet], half).astype(np.float32)
    found = changed(Compress("film-standard"), y).astype(np.float64)

    def at(levels: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(20 * np.log10(levels), [-43, -31, -21, 0], [6, 0, 0, -20])

    after_s = np.arange(1, 4_001) / RATE
    up = loud + (quiet - loud) * np.exp(-after_s / 0.1)
    down = quiet + (loud - quiet) * np.exp(-after_s / 0.3)
    ahead = round(0.1 * RATE)
    for jump, levels in ((half, up), (2 * half, down)):
        here = slice(jump - ahead, jump - ahead + 4_000)
        gains_db = 20 * np.log10(found[here] / y[here])
        np.testing.assert_allclose(gains_db, at(levels), atol=0.01)


def test_compression_narrows_the_range_of_a_sound() -> None:
    loud, quiet = tone(300, 3, 0.9), tone(300, 3, 0.005)
    found = changed(Compress("film-standard"), np.concatenate([loud, quiet, loud, quiet]))
    steady = [slice(k * 3 * RATE - RATE, k * 3 * RATE - RATE // 5) for k in (3, 4)]
    rms = [float(np.sqrt(np.mean(found[part].astype(np.float64) ** 2))) for part in steady]
    assert np.abs(found).max() < 0.5
    assert 20 * np.log10(0.9 / 0.005) == pytest.approx(45.1, abs=0.1)
    assert 20 * np.log10(rms[0] / rms[1]) < 30


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 10.0, 40.0])
def test_noise_has_the_power_that_was_asked_for(snr_db: float) -> None:
    y = tone(440, 2)
    noise = changed(Noise(snr_db), y).astype(np.float64) - y
    assert 10 * np.log10(np.mean(y.astype(np.float64) ** 2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.01)


def test_noise_is_pink() -> None:
    y = tone(440, 8)
    noise = changed(Noise(0.0), y).astype(np.float64) - y
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = [power[(hz >= low) & (hz < 2 * low)].mean() for low in (60, 120, 240, 480, 960, 1920)]
    falls_db = 10 * np.diff(np.log10(octaves))
    np.testing.assert_allclose(falls_db, -3, atol=1.2)
    assert falls_db.mean() == pytest.approx(-3, abs=0.4)


def test_silence_stays_silent_under_noise() -> None:
    assert not changed(Noise(10.0), np.zeros(500, np.float32)).any()


def test_gain_is_exact() -> None:
    y = tone(440, 1)
    np.testing.assert_allclose(changed(Gain(-6.0), y), y * 10 ** (-6 / 20), rtol=1e-6)


ALL = [Stretch(4.0), Stretch(0.25), Pitch(24.0), Compress("speech"), Noise(0.0), Gain(6.0)]


@pytest.mark.parametrize("change", ALL, ids=repr)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_next_to_nothing_can_be_changed(change: Change, count: int) -> None:
    found = changed(change, np.full(count, 0.1, np.float32))
    assert len(found) >= 1
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_noise_follows_from_the_file_and_not_from_where_it_lies() -> None:
    y = tone(440, 0.1)

    def copied(name: str, label: int = 0, part: int = 0) -> bytes:
        return Copy(Made(y, label, name), "noise", Noise(10.0)).changed(y, RATE, part).tobytes()

    assert copied("/here/a.wav") == copied("/here/a.wav") == copied("/there/b/a.wav")
    others = [copied("/here/b.wav"), copied("/here/a.wav", label=1), copied("/here/a.wav", part=1)]
    assert len({copied("/here/a.wav"), *others}) == 4


# ---------------------------------------------------------------- cutting


SPECTRUM = Spectrum("logmel", RATE, 400, 160, 26, 13)
RANDOM = np.random.default_rng(3).normal(0, 0.1, 4 * RATE).astype(np.float32)


@pytest.mark.parametrize("change", [Stretch(1.23), Stretch(0.8), Compress("film-standard"), Gain(-6.0)])
def test_a_clip_of_a_copy_is_what_the_whole_changed_sound_begins_with(change: Change) -> None:
    """No more is read than needed, and that is enough: a stretched clip is not cut short where its sound goes on."""
    item = Copy(Made(RANDOM), "x", change)
    (x,) = Clip(SPECTRUM, length=2 * RATE, frames=90, trim_db=None)(item)
    whole = SPECTRUM.of(changed(change, RANDOM)[: 2 * RATE])
    inside = slice(0, 85)  # the phase vocoder sees an end where the whole goes on
    np.testing.assert_allclose(x[0][:, inside], whole[:, inside], atol=0.02)
    assert x[0][:, 85:].min() > np.log(1e-5), "there is no silence at the end"


def test_silence_is_removed_before_noise_can_hide_it() -> None:
    y = np.concatenate([RANDOM[:RATE], np.zeros(2 * RATE, np.float32), RANDOM[RATE : 2 * RATE]])
    fragments = Fragments(SPECTRUM, 40, 20, trim_db=60.0)
    plain, noisy = fragments(Made(y)), fragments(Copy(Made(y), "noise", Noise(20.0)))
    assert len(plain) == len(noisy)
    assert len(plain) < len(Fragments(SPECTRUM, 40, 20, trim_db=None)(Made(y)))


def test_each_segment_of_a_track_is_changed_by_itself() -> None:
    y = RANDOM[: 3 * RATE - 500]
    item = Copy(Made(y), "stretch", Stretch(1.23))
    x = Segments(SPECTRUM, length=RATE, count=3, trim_db=None)(item)
    assert len(x) == 3
    needed = int(np.ceil(1.23 * RATE))
    for number, found in enumerate(x):
        part = librosa.effects.time_stretch(y[number * RATE : number * RATE + needed], rate=1.23)
        np.testing.assert_array_equal(found[0], SPECTRUM.of(librosa.util.fix_length(part, size=RATE)))
    twice = Copy(Made(np.tile(RANDOM[:RATE], 2)), "noise", Noise(0.0))
    noisy = Segments(SPECTRUM, length=RATE, count=2, trim_db=None)(twice)
    assert not np.array_equal(noisy[0], noisy[1]), "no two segments get the same noise"


# ---------------------------------------------------------------- sets


SETS: dict[str, tuple[type[DataSource], Any, Any]] = {
    "audiofolder": (AudioFolder, layouts.lay_out_audiofolder, layouts.audiofolder_truth),
    "esc50": (Esc50, layouts.lay_out_esc50, layouts.esc50_truth),
    "fsdkaggle2018": (FsdKaggle2018, layouts.lay_out_fsdkaggle2018, layouts.fsdkaggle2018_truth),
    "gtzan": (Gtzan, layouts.lay_out_gtzan, layouts.gtzan_truth),
    "urbansound8k": (UrbanSound8k, layouts.lay_out_urbansound8k, layouts.urbansound8k_truth),
}


@pytest.mark.parametrize("name", SETS)
def test_training_gains_copies_of_its_own_files_and_nothing_else_changes(name: str, tmp_path: Path) -> None:
    cls, lay_out, truth = SETS[name]
    place = lay_out(tmp_path, truth())
    source, plain = prepared(cls, place, augment_copies="noise+gain"), prepared(cls, place)
    assert isinstance(source.data, DecodedFiles)
    assert isinstance(plain.data, DecodedFiles)
    items = source.data.items
    files = {split: [item.name for item in items[split] if not isinstance(item, Copy)] for split in items}
    copies = {split: [item for item in items[split] if isinstance(item, Copy)] for split in items}
    assert {split for split in items if copies[split]} == {"train"}
    assert Counter(copy.original.name for copy in copies["train"]) == dict.fromkeys(files["train"], 2)
    others = set(itertools.chain.from_iterable(files[split] for split in files if split != "train"))
    assert not others & {copy.original.name for copy in copies["train"]}
    assert {split: items[split] for split in items if split != "train"} == {
        split: found for split, found in plain.data.items.items() if split != "train"
    }
    assert Counter(item.label for item in items["train"]) == {
        label: 3 * count for label, count in Counter(item.label for item in plain.data.items["train"]).items()
    }
    assert source.schema("train").count == 3 * plain.schema("train").count
    assert source.fingerprint() != plain.fingerprint()
    assert prepared(cls, place, augment_copies="gain+noise").fingerprint() == source.fingerprint()
    assert prepared(cls, place, augment_copies="noise+gain", gain_db=-7).fingerprint() != source.fingerprint()


def test_copies_of_esc50_are_those_of_plain_librosa(tmp_path: Path) -> None:
    place = layouts.lay_out_esc50(tmp_path, layouts.esc50_truth())
    source = prepared(Esc50, place, augment_copies="pitch+gain", gain_db=-20, pitch_semitones=3)
    assert isinstance(source.data, DecodedFiles)
    clips = {Path(clip.path).name: clip for clip in layouts.ESC50_CLIPS}
    x, y = read(source, "train")
    seen = Counter()
    for item, sample, label in zip(source.data.items["train"], x, y, strict=True):
        name = Path(item.original.name if isinstance(item, Copy) else item.name).name
        wave = clips[name].at(44_100)[:220_500]
        if isinstance(item, Copy) and item.name_of_change == "pitch":
            wave = librosa.effects.pitch_shift(wave, sr=44_100, n_steps=3)
        elif isinstance(item, Copy):
            wave = wave / 10
        wave = librosa.util.fix_length(wave, size=220_500)
        power = librosa.feature.melspectrogram(y=wave, sr=44_100, n_fft=1024, hop_length=256, n_mels=64)
        np.testing.assert_allclose(sample[0], np.log(np.maximum(power, 1e-5)), rtol=1e-4, atol=1e-3)
        assert label == clips[name].label
        seen[item.name_of_change if isinstance(item, Copy) else "as it is"] += 1
    assert seen == {"as it is": 9, "pitch": 9, "gain": 9}


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"augment_copies": "echo"}, "'echo' is no copy; choose from stretch, pitch, compress, noise, gain, several"),
        ({"augment_copies": ""}, "'' is no copy"),
        ({"augment_copies": "pitch+pitch"}, "each copy can be named once"),
        ({"stretch_rate": 1.1}, "--stretch-rate has no effect without stretch in --augment-copies. Leave it out"),
        ({"augment_copies": "gain", "noise_snr_db": 3}, "--noise-snr-db has no effect without noise"),
        ({"augment_copies": "stretch", "stretch_rate": 0}, "greater than or equal to 0.25"),
        ({"augment_copies": "compress", "compression": "opera"}, "film-standard"),
    ],
)
def test_nonsense_is_refused_in_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AudioOptions.model_validate(values)
    (error,) = caught.value.errors()
    assert said in error["msg"]
    with pytest.raises(BenchError) as told:
        make_spec(StoreSpec, [], backend="hdf5", dataset="esc50", dataset_options=values)
    assert "\n" not in str(told.value)


def test_the_sizes_of_changes_are_those_of_the_study() -> None:
    options = AudioOptions(augment_copies="+".join(CHANGES))
    dumped = options.model_dump(mode="json")
    assert (options.stretch_rate, options.pitch_semitones, options.compression) == (1.23, 2.0, "film-standard")
    assert {option for option, _ in CHANGES.values()} <= set(dumped)
    assert AudioOptions.model_validate(dumped) == options


def test_sets_without_copies_are_the_sets_that_they_were() -> None:
    """What a run of before there were copies recorded of its data set is what it would be today."""
    before = {
        "feature": "logmel",
        "sample_rate": 44100,
        "n_fft": 1024,
        "hop": 256,
        "n_mels": 64,
        "n_mfcc": 13,
        "seconds": 5.0,
        "trim_db": None,
        "skip_bad": False,
        "fold": 1,
    }
    assert make_spec(StoreSpec, [], backend="hdf5", dataset="esc50").dataset_options == before
    chosen = make_spec(StoreSpec, [], backend="hdf5", dataset="esc50", dataset_options={"augment_copies": "gain+pitch"})
    assert chosen.dataset_options == {**before, "augment_copies": "pitch+gain", "pitch_semitones": 2.0, "gain_db": -6.0}
