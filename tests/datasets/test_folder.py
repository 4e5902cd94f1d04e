from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from layouts_images import folder_truth, lay_out_folder
from numpy.typing import NDArray
from PIL import Image
from source_conformance import read

from bench.contracts.source import SourceError, SourceRequest, SourceUnavailableError
from bench.datasets.folder import Folder
from bench.datasets.images import ImageOptions


def opened(folder: Path, **options: object) -> Folder:
    source = Folder(SourceRequest("local", folder), ImageOptions(**options))
    source.prepare(folder / "cache")
    return source


def refused(folder: Path, **options: object) -> str:
    with pytest.raises(SourceError) as caught:
        opened(folder, **options)
    text = str(caught.value)
    assert str(folder) in text
    assert "\n" not in text
    return text


def draw(path: Path, width: int = 12, height: int = 10) -> NDArray[np.uint8]:
    """Write a picture of its own, and return it channel first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(list(os.fsencode(path.name))).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(image).save(path, "PNG")
    return image.transpose(2, 0, 1)


def as_set(source: Folder, split: str) -> set[tuple[bytes, str]]:
    x, y = read(source, split)  # type: ignore[arg-type]
    classes = source.schema(split).classes  # type: ignore[arg-type]
    return {(image.tobytes(), classes[label]) for image, label in zip(x, y, strict=True)}


def test_folders_are_classes_and_all_is_for_training(tmp_path: Path) -> None:
    names = ["dog/b.png", "cat/a.PNG", "cat/deep/er/c.jpg", "Zebra/d.webp", "dog/e.jpeg"]
    truth = {(draw(tmp_path / name).tobytes(), name.split("/")[0]) for name in names}
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / "README.md").write_text("not a picture")
    (tmp_path / "cat" / ".hidden.png").write_text("not a picture")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / "._cover.png").write_text("what macOS keeps beside cover.png")
    source = opened(tmp_path)
    schema = source.schema("train")
    assert (schema.count, schema.shape, schema.classes) == (5, (3, 10, 12), ("Zebra", "cat", "dog"))
    assert (schema.licence, schema.origin, schema.exact) == ("your own data", "local", True)
    assert as_set(source, "train") == truth
    with pytest.raises(SourceError, match="no val samples here; it has: train"):
        source.schema("val")


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_splits_are_folders_too(tmp_path: Path, val: str) -> None:
    truth = {
        split: {
            (draw(tmp_path / split / label / f"{split}{label}{k}.png").tobytes(), label)
            for label in labels
            for k in range(3)
        }
        for split, labels in {"train": "abc", val: "abc", "test": "ac"}.items()
    }
    (tmp_path / "annotations").mkdir()
    source = opened(tmp_path)
    for split, folder in {"train": "train", "val": val, "test": "test"}.items():
        assert as_set(source, split) == truth[folder]
        assert source.schema(split).classes == ("a", "b", "c")  # type: ignore[arg-type]


def test_a_split_without_folders_of_classes_is_none(tmp_path: Path) -> None:
    for label in "ab":
        draw(tmp_path / "train" / label / "1.png")
    draw(tmp_path / "test" / "unlabelled.png")
    with pytest.raises(SourceError, match="no test samples here; it has: train"):
        opened(tmp_path).schema("test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("car", "train"):
        draw(tmp_path / label / "1.png")
    assert opened(tmp_path).schema("train").classes == ("car", "train")


@pytest.mark.parametrize("names", [("Train", "TEST"), ("TRAIN", "Validation"), ("training", "testing")])
def test_names_of_splits_have_any_case_of_letters(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        for label in ("a", "b"):
            draw(tmp_path / name / label / "1.png")
    source = opened(tmp_path)
    assert source.schema("train").classes == ("a", "b")
    assert source.data.has("test" if names[1].lower().startswith("test") else "val")


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        (("val/a", "val/b", "test/a", "test/b"), "holds test, but no train"),
        (("train/red", "train/blue", "bus", "car"), "bus has pictures, but beside train there are only train"),
        (("train/a", "train/b", "extra/a", "extra/b"), "extra has pictures, but beside train"),
        (("train/a", "train/b", "Train/a", "Train/b"), "are the same split"),
    ],
)
def test_layouts_that_could_be_misread_are_refused(tmp_path: Path, folders: tuple[str, ...], text: str) -> None:
    for folder in folders:
        draw(tmp_path / folder / "1.png")
    with pytest.raises(SourceError, match=text):
        opened(tmp_path)


def test_a_picture_beside_the_splits_is_refused(tmp_path: Path) -> None:
    for label in ("a", "b"):
        draw(tmp_path / "train" / label / "1.png")
    (tmp_path / "notes").mkdir()
    opened(tmp_path)
    draw(tmp_path / "stray.png")
    with pytest.raises(SourceError, match=r"'stray\.png' among them"):
        opened(tmp_path)


def test_the_order_mixes_the_classes_and_stays(tmp_path: Path) -> None:
    for label in "abcd":
        for k in range(10):
            draw(tmp_path / label / f"{k}{label}.png")
    x, y = read(opened(tmp_path), "train")
    again = read(opened(tmp_path), "train")
    np.testing.assert_array_equal(x, again[0])
    np.testing.assert_array_equal(y, again[1])
    assert set(y[:20]) == {0, 1, 2, 3}
    assert sorted(y) == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10


def test_pictures_of_several_shapes_need_a_size(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png", 12, 10)
    draw(tmp_path / "b" / "2.png", 10, 12)
    with pytest.raises(
        SourceError, match=r"2\.png cannot be used: it is 10x12 pixels, the first one is 12x10: use --s"
    ):
        read(opened(tmp_path), "train")
    source = opened(tmp_path, size=8)
    assert source.schema("train").shape == (3, 8, 8)
    assert read(source, "train")[0].shape == (2, 3, 8, 8)


def test_the_shape_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    for label in "ab":
        image = Image.fromarray(draw(tmp_path / label / "1.png", 12, 10).transpose(1, 2, 0))
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / label / "1.png", exif=exif)
    source = opened(tmp_path)
    assert source.schema("train").shape == (3, 12, 10)
    assert read(source, "train")[0].shape == (2, 3, 12, 10)


def test_the_shape_is_that_of_the_upright_picture_in_tiff_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = draw(tmp_path / "a" / "1.tif", 12, 10)
    draw(tmp_path / "b" / "2.tif", 12, 10)
    for path in tmp_path.rglob("*.tif"):
        with Image.open(path) as image:
            image.copy().save(path, "TIFF", exif=exif)
    source = opened(tmp_path)
    assert source.schema("train").shape == (3, 12, 10)
    x, y = read(source, "train")
    np.testing.assert_array_equal(x[list(y).index(0)], np.rot90(stored, -1, (1, 2)))


def test_a_link_to_nowhere_is_a_bad_file(tmp_path: Path) -> None:
    for label in "ab":
        draw(tmp_path / label / "1.png")
    (tmp_path / "b" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(SourceError, match=r"2\.png cannot be used: it cannot be decoded \(No such file.*--skip-bad"):
        read(opened(tmp_path), "train")
    source = opened(tmp_path, skip_bad=True)
    before = source.fingerprint()
    assert len(read(source, "train")[1]) == 2
    draw(tmp_path / ".gone.png")
    (tmp_path / "b" / "2.png").unlink()
    (tmp_path / "b" / "2.png").symlink_to(tmp_path / ".gone.png")
    assert opened(tmp_path, skip_bad=True).fingerprint() != before
    assert len(read(opened(tmp_path), "train")[1]) == 3


def test_bad_files_are_an_error_or_listed(tmp_path: Path) -> None:
    truth = {(draw(tmp_path / label / f"{label}.png").tobytes(), label) for label in "ab"}
    (tmp_path / "a" / "0.png").write_text("a text")
    with pytest.raises(SourceError, match=r"0\.png cannot be used: it is no picture.*--skip-bad"):
        read(opened(tmp_path, size=10), "train")
    source = opened(tmp_path, skip_bad=True)
    assert not source.schema("train").exact
    assert as_set(source, "train") == truth
    (skipped,) = source.skipped("train")
    assert skipped.file == str(tmp_path / "a" / "0.png")
    assert "it is no picture" in skipped.reason


def test_options_and_files_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    for label in "ab":
        draw(tmp_path / label / "1.png")
    plain = opened(tmp_path).fingerprint()
    assert opened(tmp_path).fingerprint() == plain
    assert len({plain, opened(tmp_path, size=8).fingerprint(), opened(tmp_path, skip_bad=True).fingerprint()}) == 3
    draw(tmp_path / "b" / "2.png")
    assert opened(tmp_path).fingerprint() != plain


def test_says_what_is_missing(tmp_path: Path) -> None:
    assert "holds no folders: at least 2" in refused(tmp_path)
    draw(tmp_path / "only" / "1.png")
    assert "holds only the folder 'only': at least 2" in refused(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("no picture")
    assert "empty has no pictures (.bmp, .gif," in refused(tmp_path)
    draw(tmp_path / "stray.jpg")
    assert "holds 1 pictures that are of no class, 'stray.jpg' among them" in refused(tmp_path)
    assert "is no folder" in refused(tmp_path / "stray.jpg")


def test_says_which_splits_do_not_fit(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "val/c"):
        draw(tmp_path / name / "1.png")
    assert f"{tmp_path / 'val' / 'c'} is of no class" in refused(tmp_path)
    (tmp_path / "val" / "c").rename(tmp_path / "val" / "b")
    opened(tmp_path)
    draw(tmp_path / "val" / "stray.png")
    assert f"{tmp_path / 'val'} holds 1 pictures" in refused(tmp_path)
    (tmp_path / "val" / "stray.png").unlink()
    draw(tmp_path / "valid" / "a" / "1.png")
    assert "are the same split" in refused(tmp_path)


def test_names_that_cannot_be_shown_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a\nb" / "1.png")
    draw(tmp_path / "c" / "1.png")
    assert r"'a\nb'" in refused(tmp_path)


def test_it_is_never_official_nor_imitated(tmp_path: Path) -> None:
    lay_out_folder(tmp_path, folder_truth())
    with pytest.raises(SourceUnavailableError):
        Folder(SourceRequest("official", None, (tmp_path / "raw",))).prepare(tmp_path / "cache")
    with pytest.raises(SourceUnavailableError):
        Folder(SourceRequest("synthetic")).prepare(tmp_path / "cache")
