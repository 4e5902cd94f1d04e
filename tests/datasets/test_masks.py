from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torchvision.transforms.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_images import lay_out_masks, masks_truth
from PIL import Image, ImageOps
from source_conformance import read

from bench.contracts.source import SourceError, SourceRequest
from bench.datasets.decoded import DecodedFiles
from bench.datasets.masks import Masks, MasksOptions
from bench.datasets.synthetic import SyntheticPhotos

CLASSES = ("with_mask", "without_mask")


def opened(folder: Path, **options: object) -> Masks:
    source = Masks(SourceRequest("local", folder), MasksOptions(**options))
    source.prepare(folder / "cache")
    return source


def files_of(source: Masks) -> dict[str, list[tuple[str, int]]]:
    assert isinstance(source.data, DecodedFiles)
    return {split: [(item.name, item.label) for item in items] for split, items in source.data.items.items()}


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(max_examples=25, deadline=None)
def test_every_file_is_in_one_split(tmp_path_factory: pytest.TempPathFactory, counts: tuple[int, int]) -> None:
    root = tmp_path_factory.mktemp("masks")
    every = set()
    for label, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
        (root / name).mkdir()
        for k in range(count):
            (root / name / f"{k}.jpg").touch()
            every.add((str(root / name / f"{k}.jpg"), label))
    splits = files_of(opened(root))
    assert splits == files_of(opened(root))
    assert len(splits["train"]) + len(splits["test"]) == len(every)
    assert set(splits["train"]) | set(splits["test"]) == every
    for label, count in enumerate(counts):
        share = sum(own == label for _, own in splits["test"])
        assert share == (0 if count == 1 else max(1, round(count / 5)))


def test_the_split_is_the_same_everywhere(tmp_path: Path) -> None:
    # A change here must be told to users: figures of before and after are of different splits.
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for k in range(10):
            (tmp_path / name / f"{k}.jpg").touch()
    found = [f"{Path(name).parent.name}/{Path(name).stem}" for name, _ in files_of(opened(tmp_path))["test"]]
    assert found == ["without_mask/0", "with_mask/0", "with_mask/8", "without_mask/7"]


def test_scaled_and_cropped_unless_told_otherwise(tmp_path: Path) -> None:
    for k, name in enumerate(CLASSES * 2):
        (tmp_path / name).mkdir(exist_ok=True)
        image = np.random.default_rng(k).integers(0, 256, (30 + 9 * k, 61, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / name / f"{k}.png")
    assert opened(tmp_path).schema("train").shape == (3, 512, 512)
    x, y = read(opened(tmp_path, size=24), "train")
    truth = set()
    for name in CLASSES:
        for path in (tmp_path / name).iterdir():
            with Image.open(path) as image:
                scaled = reference.center_crop(
                    reference.resize(image, 24, reference.InterpolationMode.BILINEAR), [24, 24]
                )
            truth.add((np.asarray(scaled).transpose(2, 0, 1).tobytes(), CLASSES.index(name)))
    assert len(y) == 2
    assert {(image.tobytes(), label) for image, label in zip(x, y, strict=True)} < truth


@pytest.mark.parametrize("place", [".", "dataset", "Face-Mask-Detection-master/dataset", "masks/dataset", "masks"])
def test_found_where_it_may_lie(tmp_path: Path, place: str) -> None:
    raw = lay_out_masks(tmp_path, masks_truth())
    (tmp_path / "given" / place).parent.mkdir(parents=True, exist_ok=True)
    (raw / "dataset").rename(tmp_path / "given" / place)
    assert opened(tmp_path / "given").schema("train").count == 8


def test_a_class_without_pictures_is_refused(tmp_path: Path) -> None:
    raw = lay_out_masks(tmp_path, masks_truth())
    for path in (raw / "dataset" / "with_mask").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(SourceError, match="with_mask has no pictures"):
        opened(raw)
    (raw / "dataset" / "without_mask").rename(raw / "dataset" / "other")
    assert Masks().locate(raw, official_only=False) is None


def test_only_the_pictures_are_unpacked() -> None:
    source = Masks()
    top = source.folders[0]
    assert source.wanted(f"{top}/dataset/with_mask/1.jpg")
    assert source.wanted(f"{top}/dataset/without_mask/deep/1.jpg")
    others = ("README.md", "dataset/readme.txt", "dataset/other/1.jpg", "test/with_mask/1.jpg", "dataset/with_mask")
    assert not any(source.wanted(f"{top}/{member}") for member in others)


def test_read_from_the_archive_of_the_commit(tmp_path: Path) -> None:
    truth = masks_truth()
    raw = lay_out_masks(tmp_path, truth)
    archive = tmp_path / "given" / Masks.downloads[0]
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        # GitHub's archives have the commit as their comment.
        packed.comment = (Masks.archives[0].commit or "").encode()
        packed.writestr(f"{Masks.folders[0]}/README.md", "not wanted")
        for path in sorted(raw.rglob("*.png")):
            packed.write(path, f"{Masks.folders[0]}/{path.relative_to(raw)}")
    source = Masks(SourceRequest("official", None, (archive.parent,)))
    source.prepare(tmp_path / "cache")
    assert source.schema("train").origin == "official"
    for split, (images, labels) in truth.items():
        x, y = read(source, split)
        np.testing.assert_array_equal(x, images)
        np.testing.assert_array_equal(y, labels)
    assert not list((tmp_path / "cache").rglob("README.md"))


def test_the_archive_is_that_of_one_commit() -> None:
    (remote,) = Masks.archives
    assert remote.mirrors == (f"https://github.com/chandrikadeb7/Face-Mask-Detection/archive/{remote.commit}.zip",)
    assert Masks.downloads == (remote.name,)
    assert remote.commit in Masks.folders[0]


def test_the_stand_in_has_the_balance_of_the_published_set(tmp_path: Path) -> None:
    source = Masks(SourceRequest("synthetic"), MasksOptions(size=4))
    source.prepare(tmp_path)
    assert source.schema("train").shape == (3, 4, 4)
    # Of 2,165 and 1,930 published pictures a fifth each.
    for split, counts in (("train", [1732, 1544]), ("test", [433, 386])):
        y = np.concatenate([block.y for block in source.samples(split)])  # type: ignore[arg-type]
        assert np.bincount(y).tolist() == counts
        assert source.schema(split).count == sum(counts)  # type: ignore[arg-type]
        assert 0 < np.bincount(y[:100])[1] < 100


def test_a_stand_in_can_be_uneven() -> None:
    def photos(**class_counts: list[int]) -> SyntheticPhotos:
        return SyntheticPhotos(
            name="toy",
            counts={"train": 40, "test": 20},
            shape=(3, 4, 4),
            classes=("a", "b", "c"),
            licence="none",
            class_counts=class_counts,  # type: ignore[arg-type]
        )

    uneven = photos(train=[30, 0, 10])
    (block,) = uneven.samples("train")
    assert np.bincount(block.y).tolist() == [30, 0, 10]
    assert 0 < block.y[:20].sum() < 40
    (block,) = uneven.samples("test")
    assert np.bincount(block.y).tolist() == [7, 7, 6]
    assert len({photos().fingerprint(), uneven.fingerprint(), photos(train=[29, 1, 10]).fingerprint()}) == 3
    for wrong in ([30, 10], [30, 0, 11]):
        with pytest.raises(ValueError, match="class_counts of train must be 3 numbers, 40 in all"):
            photos(train=wrong)


@pytest.mark.real_data
def test_the_real_pictures(real_data: Path) -> None:
    source = opened(real_data / "masks", size=96)
    files = files_of(source)
    for split, each in (("train", 120), ("test", 30)):
        x, y = read(source, split)  # type: ignore[arg-type]
        assert x.shape == (2 * each, 3, 96, 96)
        assert np.bincount(y).tolist() == [each, each]
        for image, label, (name, _) in zip(x, y, files[split], strict=True):
            assert CLASSES[label] == Path(name).parent.name
            with Image.open(name) as stored:
                upright = ImageOps.exif_transpose(stored)
            if upright.has_transparency_data:
                front = upright.convert("RGBA")
                white = Image.new("RGBA", front.size, "white")
                white.paste(front, mask=front.getchannel("A"))
                upright = white
            scaled = reference.resize(upright.convert("RGB"), 96, reference.InterpolationMode.BILINEAR)
            expected = np.asarray(reference.center_crop(scaled, [96, 96])).transpose(2, 0, 1)
            np.testing.assert_array_equal(image, expected)
