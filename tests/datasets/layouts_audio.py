"""Small copies of the sound sets in their published layouts, and what must come out of them by plain librosa.

``lay_out_NAME(folder, truth)`` writes a copy and returns its place; ``NAME_truth()`` is what a source with its
default options must deliver of it. Given any other truth the sounds are other ones.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from bench.contracts.source import DataSource, SourceError, SourceRequest, Split
from bench.datasets.trees import shuffled, stratified

Truth = dict[Split, tuple[NDArray[Any], NDArray[np.int64]]]
Feature = Callable[["Clip"], NDArray[np.float32]]


@dataclass(frozen=True)
class Clip:
    """One sound file: where it goes below the root, its class, and what it sounds like."""

    path: str
    label: int
    seconds: float
    rate: int
    silence_s: float = 0.0

    def pcm(self, seed: int = 0) -> NDArray[np.int16]:
        """A chord in noise, then silence, then the same again."""
        count = int(self.seconds * self.rate)
        rng = np.random.default_rng([seed, sum(self.path.encode()), self.label])
        t = np.arange(count) / self.rate
        y = 0.05 * rng.standard_normal(count)
        for pitch in 200 * (self.label + 1) * rng.uniform(1, 3, 3):
            y += 0.2 * np.sin(2 * np.pi * pitch * t)
        silence = np.zeros(int(self.silence_s * self.rate))
        return np.clip(np.concatenate([y, silence, y] if len(silence) else [y]) * 20_000, -32_768, 32_767).astype("i2")

    def at(self, rate: int) -> NDArray[np.float32]:
        y = self.pcm().astype(np.float32) / 32_768
        return librosa.resample(y, orig_sr=self.rate, target_sr=rate, res_type="soxr_hq") if rate != self.rate else y


def prepared(source: type[DataSource], place: Path | None, **options: Any) -> DataSource:
    """The source, found at ``place``, or synthetic without one."""
    request = SourceRequest("synthetic") if place is None else SourceRequest("local", place)
    made = source(request, source.options_type.model_validate(options))
    made.prepare((place or Path("unused")).parent / "cache")
    return made


def read(source: DataSource, split: Split) -> tuple[NDArray[Any], NDArray[np.int64]]:
    blocks = list(source.samples(split))
    for block in blocks:
        assert block.x.flags.c_contiguous
        assert (block.x.dtype, block.y.dtype) == (np.dtype(np.float32), np.dtype(np.int64))
    return np.concatenate([block.x for block in blocks]), np.concatenate([block.y for block in blocks])


def assert_delivers(source: DataSource, truth: Truth) -> None:
    for split, (x, y) in truth.items():
        found = read(source, split)
        np.testing.assert_allclose(found[0], x, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(found[1], y)
        assert source.schema(split).shape == x.shape[1:]


def refusal(source: type[DataSource], place: Path, **options: Any) -> str:
    """The one line with which the source refuses what is at ``place``."""
    with pytest.raises(SourceError) as caught:
        prepared(source, place, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(root: Path, clips: Iterable[Clip], seed: int) -> None:
    for clip in clips:
        (root / clip.path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / clip.path, clip.pcm(seed), clip.rate, subtype="PCM_16")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def in_order(clips: Sequence[Clip], feature: Feature) -> tuple[NDArray[Any], NDArray[np.int64]]:
    parts = [feature(clip) for clip in clips]
    labels = [np.full(len(part), clip.label) for part, clip in zip(parts, clips, strict=True)]
    return np.concatenate(parts), np.concatenate(labels)


def logmel(clip: Clip) -> NDArray[np.float32]:
    """44.1 kHz, 5 s, n_fft 1024, hop 256, 64 mels, natural logarithm."""
    y = librosa.util.fix_length(clip.at(44_100)[:220_500], size=220_500)
    power = librosa.feature.melspectrogram(y=y, sr=44_100, n_fft=1024, hop_length=256, n_mels=64)
    return np.log(np.maximum(power, 1e-5))[None, None]


# ---------------------------------------------------------------- ESC-50

ESC50_CLASSES = {0: "dog", 10: "rain", 49: "hand_saw"}
ESC50_CLIPS = [
    Clip(f"audio/{fold}-{100_000 + fold}-A-{target}.wav", target, seconds, rate)
    for fold, (seconds, rate) in enumerate([(5.0, 44_100), (1.3, 44_100), (6.0, 22_050), (0.2, 48_000)], start=1)
    for target in ESC50_CLASSES
]


def _fold(clip: Clip) -> str:
    return Path(clip.path).name[0]


def _by_name(clip: Clip) -> str:
    return Path(clip.path).name


@functools.cache
def esc50_truth() -> Truth:
    clips = sorted(ESC50_CLIPS, key=_by_name)
    return {
        "train": in_order(shuffled([clip for clip in clips if _fold(clip) != "1"]), logmel),
        "test": in_order(shuffled([clip for clip in clips if _fold(clip) == "1"]), logmel),
    }


def lay_out_esc50(folder: Path, truth: Truth) -> Path:
    root = folder / "raw" / "ESC-50-master"
    write(root, ESC50_CLIPS, seed=int(truth is not esc50_truth()))
    columns = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    rows = [(_by_name(c), _fold(c), c.label, ESC50_CLASSES[c.label], False, 1, "A") for c in ESC50_CLIPS]
    write_table(root / "meta" / "esc50.csv", columns, rows)
    return folder / "raw"


# ---------------------------------------------------------------- UrbanSound8K

URBAN_CLASSES = {1: "car_horn", 6: "gun_shot"}
URBAN_CLIPS = [
    Clip(f"audio/fold{fold}/{1000 + 7 * fold}-{target}-0-{fold}.wav", target, seconds, rate)
    for fold, (seconds, rate) in enumerate(
        [(4.0, 44_100), (0.5, 44_100), (3.0, 48_000), (4.0, 22_050), (2.0, 96_000)] + [(0.3, 44_100)] * 5, start=1
    )
    for target in URBAN_CLASSES
]


def urban_mel(clip: Clip) -> NDArray[np.float32]:
    y = librosa.util.fix_length(clip.at(44_100)[:132_300], size=132_300)
    power = librosa.feature.melspectrogram(y=y, sr=44_100, n_fft=1024, hop_length=1024, n_mels=128, fmin=0, fmax=22_050)
    return np.ascontiguousarray(librosa.power_to_db(power, ref=1.0, top_db=80)[None, None, :, :128])


@functools.cache
def urbansound8k_truth() -> Truth:
    clips = sorted(URBAN_CLIPS, key=_by_name)
    parts: dict[Split, list[Clip]] = {
        "train": [clip for clip in clips if Path(clip.path).parent.name not in {"fold1", "fold2"}],
        "val": [clip for clip in clips if Path(clip.path).parent.name == "fold2"],
        "test": [clip for clip in clips if Path(clip.path).parent.name == "fold1"],
    }
    return {split: in_order(shuffled(part), urban_mel) for split, part in parts.items()}


def lay_out_urbansound8k(folder: Path, truth: Truth) -> Path:
    root = folder / "raw" / "UrbanSound8K"
    write(root, URBAN_CLIPS, seed=int(truth is not urbansound8k_truth()))
    columns = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    rows = [
        (
            *(_by_name(clip), _by_name(clip).split("-")[0], 0.0, clip.seconds, 1),
            *(Path(clip.path).parent.name.removeprefix("fold"), clip.label, URBAN_CLASSES[clip.label]),
        )
        for clip in URBAN_CLIPS
    ]
    write_table(root / "metadata" / "UrbanSound8K.csv", columns, rows)
    return folder / "raw"


# ---------------------------------------------------------------- GTZAN

GTZAN_GENRES = {0: "blues", 5: "jazz"}
GTZAN_CLIPS = [
    Clip(f"{genre}/{genre}.{number:05}.{suffix}", label, seconds, 22_050)
    for label, genre in GTZAN_GENRES.items()
    for number, (seconds, suffix) in enumerate([(30.0, "wav"), (29.0, "au"), (30.01, "au"), (27.2, "wav")])
]


def gtzan_mfcc(clip: Clip) -> NDArray[np.float32]:
    y = librosa.util.fix_length(clip.at(22_050)[:661_500], size=661_500)
    return np.stack([librosa.feature.mfcc(y=part, sr=22_050, n_mfcc=13)[None] for part in y.reshape(10, -1)])


@functools.cache
def gtzan_truth() -> Truth:
    rest, test = stratified({g: [c for c in GTZAN_CLIPS if c.label == k] for k, g in GTZAN_GENRES.items()}, 0.25)
    train, val = stratified({g: [c for c in rest if c.label == k] for k, g in GTZAN_GENRES.items()}, 0.2)
    parts: dict[Split, list[Clip]] = {"train": train, "val": val, "test": test}
    return {split: in_order(shuffled(part), gtzan_mfcc) for split, part in parts.items()}


def lay_out_gtzan(folder: Path, truth: Truth) -> Path:
    write(folder / "raw" / "genres", GTZAN_CLIPS, seed=int(truth is not gtzan_truth()))
    return folder / "raw"


# ---------------------------------------------------------------- FSDKaggle2018

FSD_CLASSES = {0: "Acoustic_guitar", 1: "Applause", 40: "Writing"}
FSD_CLIPS = [
    Clip(f"FSDKaggle2018.audio_{part}/{part}{label:02}{number}.wav", label, seconds, 44_100, silence_s)
    for part, lengths in {
        "train": [(1.0, 0.0), (0.2, 0.0), (0.7, 0.5), (0.4, 0.0)],
        "test": [(0.9, 0.3)],
    }.items()
    for label in FSD_CLASSES
    for number, (seconds, silence_s) in enumerate(lengths)
]


def fsd_fragments(clip: Clip) -> NDArray[np.float32]:
    y = clip.at(16_000)
    y = np.concatenate([y[start:end] for start, end in librosa.effects.split(y, top_db=80)])
    x = librosa.feature.mfcc(y=y, sr=16_000, n_mfcc=13, n_fft=400, hop_length=160, n_mels=26)
    if x.shape[1] < 40:
        return np.concatenate([x] * 40, axis=1)[None, None, :, :40]
    return np.stack([x[None, :, start : start + 40] for start in range(0, x.shape[1] - 39, 20)])


@functools.cache
def fsdkaggle2018_truth() -> Truth:
    clips = sorted(FSD_CLIPS, key=_by_name)
    given = {part: [clip for clip in clips if f"audio_{part}" in clip.path] for part in ("train", "test")}
    by_class = {name: [c for c in given["train"] if c.label == label] for label, name in FSD_CLASSES.items()}
    # Classes without files count, too: each has a random order of its own.
    everything = {str(label): by_class.get(FSD_CLASSES.get(label, ""), []) for label in range(41)}
    train, val = stratified(everything, 0.3)
    parts: dict[Split, list[Clip]] = {"train": train, "val": val, "test": given["test"]}
    return {split: in_order(shuffled(part), fsd_fragments) for split, part in parts.items()}


def lay_out_fsdkaggle2018(folder: Path, truth: Truth) -> Path:
    root = folder / "raw"
    write(root, FSD_CLIPS, seed=int(truth is not fsdkaggle2018_truth()))
    for part, table, column in (
        ("train", "train_post_competition.csv", "manually_verified"),
        ("test", "test_post_competition_scoring_clips.csv", "usage"),
    ):
        rows = [(_by_name(c), FSD_CLASSES[c.label], 1, 2, "CC0") for c in FSD_CLIPS if f"audio_{part}" in c.path]
        write_table(root / "FSDKaggle2018.meta" / table, ("fname", "label", column, "freesound_id", "license"), rows)
    return root


# ---------------------------------------------------------------- a folder of one's own

FOLDER_CLIPS = [
    Clip(f"{split}/{name}/{number}{suffix}", label, 0.5 + number, rate)
    for split in ("train", "val", "test")
    for label, name in enumerate(("bark", "meow", "whistle"))
    for number, (suffix, rate) in enumerate([(".wav", 44_100), (".flac", 48_000), (".aiff", 16_000)])
]


@functools.cache
def audiofolder_truth() -> Truth:
    splits: tuple[Split, ...] = ("train", "val", "test")
    return {
        split: in_order(shuffled([clip for clip in FOLDER_CLIPS if clip.path.startswith(split)]), logmel)
        for split in splits
    }


def lay_out_audiofolder(folder: Path, truth: Truth) -> Path:
    write(folder / "raw", FOLDER_CLIPS, seed=int(truth is not audiofolder_truth()))
    return folder / "raw"
