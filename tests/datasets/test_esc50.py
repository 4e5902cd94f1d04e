from __future__ import annotations

import csv
import zipfile
from collections import Counter
from pathlib import Path

import layouts_audio
import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from layouts_audio import assert_delivers, esc50_truth, lay_out_esc50, prepared, read, refusal

from bench.contracts.source import SourceRequest, Split
from bench.datasets.decoded import DecodedFiles
from bench.datasets.esc50 import CLASSES, Esc50


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return lay_out_esc50(tmp_path, esc50_truth())


@pytest.fixture
def table(place: Path) -> Path:
    return place / "ESC-50-master" / "meta" / "esc50.csv"


def names(source: Esc50, split: Split) -> list[str]:
    assert isinstance(source.data, DecodedFiles)
    return [Path(item.name).name for item in source.data.items[split]]


def test_samples_are_those_of_plain_librosa(place: Path) -> None:
    source = prepared(Esc50, place)
    assert_delivers(source, esc50_truth())
    schema = source.schema("train")
    assert (schema.shape, schema.dtype, schema.exact) == ((1, 64, 862), "float32", True)
    assert (len(schema.classes), schema.classes[0], schema.classes[49]) == (50, "dog", "hand_saw")


@pytest.mark.parametrize("fold", [1, 3])
def test_a_fold_is_for_testing_and_the_others_for_training(place: Path, fold: int) -> None:
    source = prepared(Esc50, place, fold=fold)
    assert {name[0] for name in names(source, "test")} == {str(fold)}
    assert {name[0] for name in names(source, "train")} == set("1234") - {str(fold)}
    assert len(names(source, "test")) + len(names(source, "train")) == 12


def test_a_fold_that_is_not_there_has_no_samples(place: Path) -> None:
    source = prepared(Esc50, place, fold=5)
    assert not source.data.has("test")


def test_an_archive_holds_the_same(place: Path, tmp_path: Path) -> None:
    root = place / "ESC-50-master"
    (root / "audio" / "notes.txt").write_text("not wanted")
    (root / "README.md").write_text("not wanted")
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "ESC-50-master.zip", "w") as archive:
        for path in sorted(root.rglob("*.*")):
            archive.write(path, path.relative_to(place))
    assert_delivers(prepared(Esc50, packed / "ESC-50-master.zip"), esc50_truth())
    unpacked = {path.name for path in tmp_path.rglob("cache/raw/**/*.*")}
    assert {"esc50.csv", *(Path(clip.path).name for clip in layouts_audio.ESC50_CLIPS)} <= unpacked
    assert not {"notes.txt", "README.md"} & unpacked


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "1-100001-A-0.wav,1,0,dog",
            "1-100001-A-0.wav,2,0,dog",
            "line 2: fold 2 and target 0 are not those in the name",
        ),
        (
            "1-100001-A-0.wav,1,0,dog",
            "1-100001-A-0.wav,1,1,rooster",
            "line 2: fold 1 and target 1 are not those in the",
        ),
        ("1-100001-A-0.wav,1,0,dog", "1-100001-A-0.wav,1,0,cat", "line 2: target 0 is not the class 'cat'"),
        ("1-100001-A-0.wav,1,0,dog", "1-100001-A-0.wav,1,50,dog", "line 2: target 50 is not the class 'dog'"),
        ("1-100001-A-0.wav,1,0,dog", "1-100001-A-0.wav,6,0,dog", "line 2: fold 6 is none of 1 to 5"),
        ("1-100001-A-0.wav,1,0,dog", "1-100001-A-0.wav,one,0,dog", "line 2: fold is 'one', not a whole number"),
        ("1-100001-A-0.wav,1,0,dog", "1-100001-A-0.wav,1,,dog", "line 2: it lacks a value"),
        ("1-100001-A-0.wav,1,0,dog", "../1-100001-A-0.wav,1,0,dog", "line 2: '../1-100001-A-0.wav' is no FOLD-CLIP"),
        ("1-100001-A-0.wav,1,0,dog", "1-999999-A-0.wav,1,0,dog", "1-999999-A-0.wav is missing"),
        ("1-100001-A-10.wav,1,10,rain", "1-100001-A-0.wav,1,0,dog", "line 3: 1-100001-A-0.wav has been there already"),
        ("filename,fold", "name,fold", "lacks the column 'filename'"),
        ("1-100001-A-0.wav,1,0,dog", '"1-100001-A-0.wav,1,0,dog', "is no table in CSV"),
        ("dog", "d\udcffg", "is no table in CSV"),
    ],
)
def test_a_table_that_disagrees_is_refused(place: Path, table: Path, before: str, after: str, said: str) -> None:
    text = table.read_text().replace(before, after, 1)
    table.write_bytes(text.encode(errors="surrogateescape"))
    message = refusal(Esc50, place)
    assert said in message
    assert str(table) in message


def test_a_table_without_rows_is_refused(place: Path, table: Path) -> None:
    table.write_text("filename,fold,target,category\n")
    assert "has no rows" in refusal(Esc50, place)


def test_a_part_with_a_table_of_its_own_will_do(place: Path, table: Path) -> None:
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], *(row for row in rows if ",dog," in row or ",rain," in row)]))
    source = prepared(Esc50, place)
    assert source.schema("train").count == 6
    assert len(source.schema("train").classes) == 50


def test_options_change_the_samples(place: Path) -> None:
    source = prepared(Esc50, place, feature="mfcc", n_mfcc=20, sample_rate=16_000, seconds=1, trim_db=60)
    x, _ = read(source, "test")
    assert x.shape == (3, 1, 20, 63)
    assert prepared(Esc50, place).fingerprint() != source.fingerprint()


@given(fold=st.integers(1, 5))
def test_the_stand_in_has_the_published_counts(fold: int) -> None:
    source = prepared(Esc50, None, fold=fold)
    for split, each in (("train", 32), ("test", 8)):
        assert source.schema(split).count == each * 50
        assert Counter(item.label for item in source.data.items[split]) == dict.fromkeys(range(50), each)
    both = [{item.state() for item in source.data.items[split]} for split in ("train", "test")]
    assert len(both[0] | both[1]) == 2000


def test_the_first_samples_have_many_classes() -> None:
    items = prepared(Esc50, None).data.items["train"]
    assert len({item.label for item in items[:200]}) >= 45


def test_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    source = Esc50(SourceRequest("local", tmp_path))
    assert source.locate(tmp_path, official_only=False) is None


@pytest.mark.real_data
def test_the_real_clips(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "esc50" / "ESC-50-master"
    with (root / "meta" / "esc50.csv").open(newline="") as file:
        rows = {row["filename"]: row for row in csv.DictReader(file)}
    source = Esc50(SourceRequest("local", real_data / "esc50"))
    source.prepare(tmp_path)
    seen: dict[str, set[str]] = {}
    for split, folds in (("train", "2345"), ("test", "1")):
        x, y = read(source, split)
        found = names(source, split)
        assert sorted(found) == sorted(name for name, row in rows.items() if row["fold"] in folds)
        assert [CLASSES[label] for label in y] == [rows[name]["category"] for name in found]
        seen[split] = {rows[name]["src_file"] for name in found}
        for k in range(0, len(found), 20):
            sound, rate = soundfile.read(root / "audio" / found[k], dtype="float32")
            assert rate == 44_100
            power = librosa.feature.melspectrogram(y=sound, sr=rate, n_fft=1024, hop_length=256, n_mels=64)
            np.testing.assert_allclose(x[k, 0], np.log(np.maximum(power, 1e-5)), rtol=1e-5, atol=1e-5)
    assert not seen["train"] & seen["test"]
