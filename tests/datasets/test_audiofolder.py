from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from layouts_audio import FOLDER_CLIPS, assert_delivers, audiofolder_truth, lay_out_audiofolder, prepared, read, refusal

from bench.contracts.source import SourceError, SourceRequest, SourceUnavailableError
from bench.datasets.audiofolder import AudioFolder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return lay_out_audiofolder(tmp_path, audiofolder_truth())


def test_samples_are_those_of_plain_librosa(place: Path) -> None:
    source = prepared(AudioFolder, place)
    assert_delivers(source, audiofolder_truth())
    schema = source.schema("val")
    assert (schema.shape, schema.origin, schema.licence) == ((1, 64, 862), "local", "your own data")
    assert schema.classes == ("bark", "meow", "whistle")


def test_without_split_folders_all_is_for_training(place: Path) -> None:
    source = prepared(AudioFolder, place / "train", seconds=0.5)
    assert source.schema("train").count == 9
    assert not source.data.has("val")
    assert not source.data.has("test")


def test_files_at_any_depth_count_and_others_do_not(place: Path) -> None:
    folder = place / "train" / "bark"
    (folder / "deep").mkdir()
    (folder / "0.wav").rename(folder / "deep" / "0.WAV")
    (folder / "notes.txt").write_text("no sound")
    (folder / ".hidden.wav").write_text("no sound")
    assert prepared(AudioFolder, place).schema("train").count == 9


def test_validation_goes_by_three_names(place: Path) -> None:
    (place / "val").rename(place / "validation")
    source = prepared(AudioFolder, place, seconds=0.5)
    assert source.schema("val").count == 9
    (place / "test").rename(place / "valid")
    assert "are the same split" in refusal(AudioFolder, place)


def test_a_class_may_be_missing_elsewhere_but_not_in_training(place: Path) -> None:
    for path in (place / "val" / "meow").iterdir():
        path.unlink()
    (place / "val" / "meow").rmdir()
    source = prepared(AudioFolder, place, seconds=0.5)
    assert sorted(read(source, "val")[1].tolist()) == [0, 0, 0, 2, 2, 2]
    (place / "val" / "bark").rename(place / "val" / "roar")
    assert f"{place / 'val' / 'roar'} is of no class that train has" in refusal(AudioFolder, place)


def test_what_is_no_folder_of_classes_is_refused(place: Path, tmp_path: Path) -> None:
    train = place / "train"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} holds no folders" in refusal(AudioFolder, empty)
    (empty / "one").mkdir()
    assert f"{empty} holds only the folder 'one'" in refusal(AudioFolder, empty)
    assert "is no folder" in refusal(AudioFolder, train / "bark" / "0.wav")
    (train / "howl").mkdir()
    assert f"{train / 'howl'} has no sounds (.aif, .aiff, .au, .flac, .mp3, .ogg, .wav)" in refusal(AudioFolder, place)
    (train / "howl" / "1.wav").touch()
    (train / "bark" / "0.wav").rename(train / "0.wav")
    assert f"{train} holds 1 sounds that are of no class, '0.wav' among them" in refusal(AudioFolder, place)


def test_a_bad_file_is_named_or_left_out(place: Path) -> None:
    bad = place / "train" / "meow" / "1.flac"
    bad.write_text("no sound")
    with pytest.raises(SourceError, match=f"{bad} cannot be used: it cannot be read as sound"):
        read(prepared(AudioFolder, place), "train")
    source = prepared(AudioFolder, place, skip_bad=True)
    assert len(read(source, "train")[1]) == 8
    assert [skipped.file for skipped in source.skipped("train")] == [str(bad)]


def test_other_sounds_give_another_fingerprint(place: Path) -> None:
    before = prepared(AudioFolder, place).fingerprint()
    assert prepared(AudioFolder, place).fingerprint() == before
    clip = FOLDER_CLIPS[0]
    soundfile.write(place / clip.path, clip.pcm(seed=9), clip.rate)
    assert prepared(AudioFolder, place).fingerprint() != before


def test_it_is_neither_downloaded_nor_imitated(tmp_path: Path) -> None:
    for kind in ("official", "synthetic"):
        with pytest.raises(SourceUnavailableError, match="data of your own"):
            AudioFolder(SourceRequest(kind)).prepare(tmp_path)  # type: ignore[arg-type]
