from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from layouts_audio import GTZAN_CLIPS, assert_delivers, gtzan_truth, lay_out_gtzan, prepared, read, refusal

from bench.contracts.source import DataSource, SourceError, SourceRequest, SourceUnavailableError, Split
from bench.datasets.gtzan import GENRES, Gtzan, GtzanOptions

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return lay_out_gtzan(tmp_path, gtzan_truth())


def tracks(source: DataSource) -> dict[Split, list[str]]:
    return {split: [item.name for item in source.data.items[split]] for split in SPLITS}  # type: ignore[attr-defined]


def test_samples_are_those_of_plain_librosa(place: Path) -> None:
    source = prepared(Gtzan, place)
    assert_delivers(source, gtzan_truth())
    schema = source.schema("train")
    assert (schema.shape, schema.count, schema.exact) == ((1, 13, 130), 40, True)
    assert schema.classes == GENRES


def test_tracks_are_in_one_split_each(place: Path) -> None:
    found = tracks(prepared(Gtzan, place))
    assert sorted(path for paths in found.values() for path in paths) == sorted(
        str(place / "genres" / clip.path) for clip in GTZAN_CLIPS
    )
    assert {split: len(paths) for split, paths in found.items()} == {"train": 4, "val": 2, "test": 2}


@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=10))
def test_splits_are_stratified_by_track(counts: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("gtzan")
    for genre, count in zip(GENRES, counts, strict=False):
        (root / genre).mkdir()
        for number in range(count):
            (root / genre / f"{genre}.{number:05}.wav").touch()
    found = tracks(prepared(Gtzan, root))
    everything = [path for paths in found.values() for path in paths]
    assert len(everything) == len(set(everything)) == sum(counts)
    assert found == tracks(prepared(Gtzan, root))
    for genre, count in zip(GENRES, counts, strict=False):
        test = sum(Path(path).parent.name == genre for path in found["test"])
        assert abs(test - count / 4) <= 1


def test_a_track_in_two_formats_counts_once(place: Path) -> None:
    folder = place / "genres" / "blues"
    track, rate = soundfile.read(folder / "blues.00001.au", dtype="int16")
    soundfile.write(folder / "blues.00001.wav", track, rate)
    assert sum(map(len, tracks(prepared(Gtzan, place)).values())) == 8


@pytest.mark.parametrize(("seconds", "segments"), [(0.1, 300), (0.2, 150), (0.3, 100), (0.4, 75), (7, 4), (29.9, 1)])
def test_rounding_loses_no_segment(seconds: float, segments: int) -> None:
    assert Gtzan.options_type.model_validate({"seconds": seconds}).segments == segments


@pytest.mark.parametrize(("seconds", "segments", "frames"), [(3, 10, 130), (5, 6, 216), (7, 4, 302), (30, 1, 1292)])
def test_a_track_gives_as_many_segments_as_it_holds(place: Path, seconds: float, segments: int, frames: int) -> None:
    source = prepared(Gtzan, place, seconds=seconds)
    x, y = read(source, "test")
    assert x.shape == (2 * segments, 1, 13, frames)
    assert Counter(y.tolist()) == {0: segments, 5: segments}
    assert source.schema("test").count == len(x)


def test_a_short_track_is_refused_or_left_out(place: Path) -> None:
    path = place / "genres" / "jazz" / "jazz.00002.au"
    sound, rate = soundfile.read(path, dtype="int16")
    soundfile.write(path, sound[: 12 * rate], rate)

    def everything(**options: Any) -> int:
        source = prepared(Gtzan, place, **options)
        return sum(len(read(source, split)[1]) for split in SPLITS)

    with pytest.raises(
        SourceError, match=f"{path} cannot be used: it is 12.0 s long, too short for 10 segments of 3 s"
    ):
        everything()
    assert everything(skip_bad=True) == 70


def test_folders_and_archive_of_other_copies(place: Path, tmp_path: Path) -> None:
    (place / "genres").rename(place / "genres_original")
    (place / "images_original" / "blues").mkdir(parents=True)
    assert prepared(Gtzan, place).schema("train").count == 40
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "genres.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(place / "genres_original", "genres")
    assert_delivers(prepared(Gtzan, packed / "genres.tar.gz"), gtzan_truth())


def test_a_genre_without_tracks_is_refused(place: Path) -> None:
    (place / "genres" / "rock").mkdir()
    (place / "genres" / "rock" / "notes.txt").touch()
    assert f"{place / 'genres' / 'rock'} has no tracks" in refusal(Gtzan, place)


def test_nothing_is_downloaded_and_the_user_learns_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match=r"genres\.tar\.gz.*--source local:PATH") as caught:
        Gtzan(SourceRequest("official")).prepare(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_stand_in_has_the_published_counts() -> None:
    source = prepared(Gtzan, None)
    assert {split: source.schema(split).count for split in SPLITS} == {"train": 6000, "val": 1500, "test": 2500}
    items = {split: source.data.items[split] for split in SPLITS}
    for split, count in (("train", 60), ("val", 15), ("test", 25)):
        assert Counter(item.label for item in items[split]) == dict.fromkeys(range(10), count)
    assert len({item.state() for split in SPLITS for item in items[split]}) == 1000


def test_the_defaults_are_those_of_the_study() -> None:
    options = GtzanOptions().model_dump()
    expected = {"feature": "mfcc", "sample_rate": 22_050, "n_fft": 2048, "hop": 512, "n_mels": 128, "n_mfcc": 13}
    assert {name: options[name] for name in expected} == expected
