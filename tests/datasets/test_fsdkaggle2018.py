from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts_audio import (
    FSD_CLIPS,
    assert_delivers,
    fsdkaggle2018_truth,
    lay_out_fsdkaggle2018,
    prepared,
    read,
    refusal,
    write_table,
)
from pydantic import ValidationError

from bench.contracts.source import DataSource, Split
from bench.datasets.fsdkaggle2018 import SUBSETS, FsdKaggle2018, FsdKaggle2018Options

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return lay_out_fsdkaggle2018(tmp_path, fsdkaggle2018_truth())


def files(source: DataSource) -> dict[Split, list[str]]:
    return {split: [item.name for item in source.data.items[split]] for split in SPLITS}  # type: ignore[attr-defined]


def test_samples_are_those_of_plain_librosa(place: Path) -> None:
    source = prepared(FsdKaggle2018, place)
    assert_delivers(source, fsdkaggle2018_truth())
    schema = source.schema("train")
    assert (schema.shape, schema.exact, len(schema.classes)) == ((1, 13, 40), False, 41)


def test_the_estimate_is_right_where_nothing_is_silent(place: Path) -> None:
    # Two of twelve clips for training have a silence of 0.5 s, which the estimate cannot know.
    source = prepared(FsdKaggle2018, place, trim_db=200)
    for split in SPLITS:
        assert source.schema(split).count == len(read(source, split)[1])


def test_files_are_in_one_split_each_and_testing_is_as_published(place: Path) -> None:
    found = files(prepared(FsdKaggle2018, place))
    everything = [path for paths in found.values() for path in paths]
    assert sorted(everything) == sorted(str(place / clip.path) for clip in FSD_CLIPS)
    assert {Path(path).parent.name for path in found["test"]} == {"FSDKaggle2018.audio_test"}
    assert (len(found["train"]), len(found["val"]), len(found["test"])) == (9, 3, 3)


@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=41))
def test_validation_is_stratified_by_file(counts: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("fsd")
    rows = [(f"{k:02}{i:04}.wav", k) for k, count in enumerate(counts) for i in range(count)]
    for part in ("train", "test"):
        (root / f"FSDKaggle2018.audio_{part}").mkdir()
    for name, _ in rows:
        (root / "FSDKaggle2018.audio_train" / name).touch()
    (root / "FSDKaggle2018.audio_test" / "t.wav").touch()
    meta = root / "FSDKaggle2018.meta"
    labels = SUBSETS["all"]
    write_table(meta / "train_post_competition.csv", ("fname", "label"), [(name, labels[k]) for name, k in rows])
    write_table(meta / "test_post_competition_scoring_clips.csv", ("fname", "label"), [("t.wav", "Bark")])
    found = files(prepared(FsdKaggle2018, root))
    assert found == files(prepared(FsdKaggle2018, root))
    assert len({*found["train"], *found["val"]}) == len(found["train"]) + len(found["val"]) == sum(counts)
    for k, count in enumerate(counts):
        val = sum(Path(path).name.startswith(f"{k:02}") for path in found["val"])
        assert abs(val - 0.3 * count) <= 1


@pytest.mark.parametrize(
    ("subset", "labels"), [("music10", {0: "Acoustic_guitar"}), ("environment10", {0: "Applause"})]
)
def test_a_subset_has_its_ten_classes_only(place: Path, subset: str, labels: dict[int, str]) -> None:
    source = prepared(FsdKaggle2018, place, subset=subset)
    schema = source.schema("train")
    assert schema.classes == SUBSETS[subset]
    assert len(schema.classes) == 10
    found = files(source)
    for paths, items in zip(found.values(), source.data.items.values(), strict=True):
        for path, item in zip(paths, items, strict=True):
            index = int(Path(path).stem.lstrip("trainse")[:2])  # the names hold the number among all classes
            assert SUBSETS["all"][index] == schema.classes[item.label]
    assert sum(map(len, found.values())) == {"music10": 5, "environment10": 10}[subset]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("train000.wav,Acoustic_guitar", "train000.wav,Guitar", "line 2: 'Guitar' is none of the 41 classes"),
        ("train000.wav,Acoustic_guitar", "x.wav,Acoustic_guitar", "FSDKaggle2018.audio_train/x.wav is missing"),
        ("train000.wav,Acoustic_guitar", "../a.wav,Acoustic_guitar", "../a.wav is missing"),
        ("train001.wav", "train000.wav", "line 3: train000.wav has been there already, in line 2"),
        ("train000.wav,Acoustic_guitar", "train000.wav,", "line 2: it lacks a value"),
        ("fname,label", "fname,class", "lacks the column 'label'"),
    ],
)
def test_a_table_that_disagrees_is_refused(place: Path, before: str, after: str, said: str) -> None:
    table = place / "FSDKaggle2018.meta" / "train_post_competition.csv"
    (place / "a.wav").touch()
    text = table.read_text()
    assert before in text
    table.write_text(text.replace(before, after, 1))
    message = refusal(FsdKaggle2018, place)
    assert said in message
    assert str(table) in message


def test_a_missing_part_is_named(place: Path) -> None:
    (place / "FSDKaggle2018.meta" / "test_post_competition_scoring_clips.csv").unlink()
    assert "test_post_competition_scoring_clips.csv" in refusal(FsdKaggle2018, place)


def test_the_three_archives_hold_the_same(place: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for part in ("audio_train", "audio_test", "meta"):
        with zipfile.ZipFile(packed / f"FSDKaggle2018.{part}.zip", "w") as archive:
            for path in sorted((place / f"FSDKaggle2018.{part}").iterdir()):
                archive.write(path, path.relative_to(place))
    assert_delivers(prepared(FsdKaggle2018, packed), fsdkaggle2018_truth())


@pytest.mark.parametrize(("options", "frames"), [({}, 40), ({"seconds": 1}, 100), ({"hop": 320}, 20)])
def test_seconds_is_the_length_of_a_fragment(options: dict[str, Any], frames: int, place: Path) -> None:
    source = prepared(FsdKaggle2018, place, **options)
    assert read(source, "test")[0].shape[1:] == source.schema("test").shape == (1, 13, frames)


def test_a_fragment_of_one_frame_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"--seconds 0\.01 is shorter than two steps"):
        FsdKaggle2018Options(seconds=0.01)


@pytest.mark.parametrize(
    ("subset", "train", "test"), [("all", 9473, 1600), ("music10", 3000, 569), ("environment10", 2177, 317)]
)
def test_the_stand_in_has_the_published_files(subset: str, train: int, test: int) -> None:
    source = prepared(FsdKaggle2018, None, subset=subset)
    items = source.data.items
    assert len(items["train"]) + len(items["val"]) == train
    assert len(items["test"]) == test
    assert abs(len(items["val"]) - 0.3 * train) < 25
    everything = [item for split in SPLITS for item in items[split]]
    assert len({item.state() for item in everything}) == train + test
    names = source.schema("train").classes
    counts = Counter(names[item.label] for split in ("train", "val") for item in items[split])
    published = {"Glockenspiel": 94, "Scissors": 95, "Writing": 270, "Hi-hat": 300, "Cello": 300, "Knock": 279}
    assert all(counts[name] == count for name, count in published.items() if name in names)
    seconds = np.array([item.seconds for item in everything])
    assert 0.3 <= seconds.min() < 0.4
    assert 25 < seconds.max() <= 30
    # Evenly over the logarithm: the median is the geometric mean of the ends.
    assert 2.5 < np.median(seconds) < 3.6


def test_the_estimate_of_the_stand_in_is_near() -> None:
    source = prepared(FsdKaggle2018, None, subset="environment10")
    source.data.items["test"] = source.data.items["test"][:40]
    estimate = source.schema("test").count
    assert abs(len(read(source, "test")[1]) - estimate) < 0.1 * estimate


def test_the_defaults_are_those_of_the_study() -> None:
    options = FsdKaggle2018Options().model_dump()
    expected = {"feature": "mfcc", "sample_rate": 16_000, "n_fft": 400, "hop": 160, "n_mels": 26, "n_mfcc": 13}
    assert {name: options[name] for name in expected} == expected
    assert (options["seconds"], options["trim_db"], options["subset"]) == (0.4, 80.0, "all")
