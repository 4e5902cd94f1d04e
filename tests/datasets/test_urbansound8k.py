from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts_audio import assert_delivers, lay_out_urbansound8k, prepared, read, refusal, urbansound8k_truth

from bench.contracts.source import DataSource, Split
from bench.datasets.urbansound8k import UrbanSound8k, UrbanSound8kOptions

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return lay_out_urbansound8k(tmp_path, urbansound8k_truth())


@pytest.fixture
def table(place: Path) -> Path:
    return place / "UrbanSound8K" / "metadata" / "UrbanSound8K.csv"


def folds(source: DataSource, split: Split) -> set[str]:
    return {Path(item.name).parent.name for item in source.data.items[split]}  # type: ignore[attr-defined]


def test_samples_are_those_of_plain_librosa(place: Path) -> None:
    source = prepared(UrbanSound8k, place)
    assert_delivers(source, urbansound8k_truth())
    schema = source.schema("train")
    assert (schema.shape, schema.dtype, schema.exact) == ((1, 128, 128), "float32", True)
    assert schema.classes[6] == "gun_shot"


@pytest.mark.parametrize(("fold", "val"), [(1, 2), (4, 5), (10, 1)])
def test_folds_are_never_mixed(place: Path, fold: int, val: int) -> None:
    source = prepared(UrbanSound8k, place, fold=fold)
    assert folds(source, "test") == {f"fold{fold}"}
    assert folds(source, "val") == {f"fold{val}"}
    assert folds(source, "train") == {f"fold{k}" for k in range(1, 11)} - {f"fold{fold}", f"fold{val}"}
    assert sum(source.schema(split).count for split in SPLITS) == 20


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({}, 128),
        ({"feature": "stft"}, 128),
        ({"n_mels": 64, "n_fft": 2048}, 128),
        ({"seconds": 2}, 87),
        ({"hop": 512}, 259),
        ({"sample_rate": 22_050}, 65),
    ],
)
def test_128_frames_are_kept_of_the_usual_130(place: Path, options: dict[str, float], frames: int) -> None:
    if "sample_rate" in options:
        options = {**options, "n_fft": 2048}
    source = prepared(UrbanSound8k, place, **options)
    x, _ = read(source, "test")
    assert x.shape[3] == source.schema("test").shape[2] == frames


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("1007-1-0-1.wav,1007,", "1007-1-0-1.wav,1008,", "line 2: fsID 1008 and classID 1 are not those in the name"),
        (",1,1,car_horn", ",1,6,gun_shot", "line 2: fsID 1007 and classID 6 are not those in the name"),
        (",1,1,car_horn", ",1,1,siren", "line 2: classID 1 is not the class 'siren'"),
        (",1,1,car_horn", ",11,1,car_horn", "line 2: fold 11 is none of 1 to 10"),
        (",1,1,car_horn", ",3,1,car_horn", "fold3/1007-1-0-1.wav is missing"),
        ("1007-6-0-1.wav,1007", "1007-1-0-1.wav,1007", "line 3: 1007-1-0-1.wav has been there already, in line 2"),
        ("1007-1-0-1.wav", "1007.wav", "line 2: '1007.wav' is no RECORDING-CLASS"),
        ("classID", "klass", "lacks the column 'classID'"),
    ],
)
def test_a_table_that_disagrees_is_refused(place: Path, table: Path, before: str, after: str, said: str) -> None:
    text = table.read_text()
    assert before in text
    table.write_text(text.replace(before, after, 1))
    message = refusal(UrbanSound8k, place)
    assert said in message
    assert str(table) in message


def test_a_file_in_the_wrong_fold_is_missing_from_its_own(place: Path) -> None:
    audio = place / "UrbanSound8K" / "audio"
    (audio / "fold3" / "1021-1-0-3.wav").rename(audio / "fold4" / "1021-1-0-3.wav")
    assert "fold3/1021-1-0-3.wav is missing" in refusal(UrbanSound8k, place)


def test_an_archive_holds_the_same(place: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "UrbanSound8K.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(place / "UrbanSound8K", "UrbanSound8K")
    assert_delivers(prepared(UrbanSound8k, packed), urbansound8k_truth())


@given(fold=st.integers(1, 10))
def test_the_stand_in_has_the_published_counts(fold: int) -> None:
    sizes = [873, 888, 925, 990, 936, 823, 838, 806, 816, 837]
    source = prepared(UrbanSound8k, None, fold=fold)
    found = {split: source.schema(split).count for split in SPLITS}
    test, val = sizes[fold - 1], sizes[fold % 10]
    assert found == {"train": 8732 - test - val, "val": val, "test": test}
    items = [item for split in SPLITS for item in source.data.items[split]]
    assert len({item.state() for item in items}) == 8732
    counts = Counter(item.label for item in items)
    assert [counts[k] for k in range(10)] == [1000, 429, 1000, 1000, 1000, 1000, 374, 1000, 929, 1000]
    assert {item.label for item in source.data.items["test"]} == set(range(10))


def test_the_defaults_are_those_of_the_study() -> None:
    options = UrbanSound8kOptions().model_dump()
    expected = {"feature": "mel", "sample_rate": 44_100, "n_fft": 1024, "hop": 1024, "n_mels": 128, "seconds": 3.0}
    assert {name: options[name] for name in expected} == expected
