from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from layouts_images import WNIDS, lay_out_tiny_imagenet, save_png, tiny_imagenet_truth
from numpy.typing import NDArray
from PIL import Image
from source_conformance import read

from bench.contracts.source import SilentProgress, SourceError, SourceRequest, Split
from bench.datasets.decoded import DecodedFiles, File
from bench.datasets.images import ImageOptions
from bench.datasets.tiny_imagenet import TinyImagenet

CAT, DOG, OWN = "n02123045", "n02099601", "n99999999"  # the last is no class of the published set


def opened(folder: Path, **options: object) -> TinyImagenet:
    source = TinyImagenet(SourceRequest("local", folder), ImageOptions(**options))
    source.prepare(folder / "cache")
    return source


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (3, 64, 64), np.uint8)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A copy with three classes: four pictures each for training, one each for validation."""
    root = tmp_path / "tiny-imagenet-200"
    lines = []
    for k, wnid in enumerate((CAT, DOG, OWN)):
        for i in range(4):
            save_png(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", picture(10 * k + i))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
        save_png(root / "val" / "images" / f"val_{k}.JPEG", picture(100 + k))
        lines.append(f"val_{k}.JPEG\t{wnid}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text(f"{OWN}\n{CAT}\n{DOG}\n")
    save_png(root / "test" / "images" / "test_0.JPEG", picture(999))
    return root


def refused(root: Path) -> str:
    with pytest.raises(SourceError) as caught:
        opened(root)
    text = str(caught.value)
    assert str(root) in text
    assert "\n" not in text
    return text


def annotate(root: Path, text: str) -> None:
    (root / "val" / "val_annotations.txt").write_text(text)


def test_labels_are_those_of_folders_and_annotations(small: Path) -> None:
    source = opened(small)
    assert source.schema("train").classes == ("golden retriever (n02099601)", "tabby (n02123045)", OWN)
    labels = {CAT: 1, DOG: 0, OWN: 2}
    expected: dict[Split, dict[bytes, int]] = {
        "train": {picture(10 * k + i).tobytes(): labels[w] for k, w in enumerate((CAT, DOG, OWN)) for i in range(4)},
        "val": {picture(100 + k).tobytes(): labels[w] for k, w in enumerate((CAT, DOG, OWN))},
    }
    for split, truth in expected.items():
        x, y = read(source, split)
        assert source.schema(split).count == len(truth) == len(y)
        assert {image.tobytes(): label for image, label in zip(x, y, strict=True)} == truth
    with pytest.raises(SourceError, match="no test samples here; it has: train, val"):
        source.schema("test")


def test_the_first_samples_are_of_all_classes(tmp_path: Path) -> None:
    truth = tiny_imagenet_truth()
    _, y = read(opened(lay_out_tiny_imagenet(tmp_path, truth)), "train")
    np.testing.assert_array_equal(y, truth["train"][1])
    assert len(set(y[:60])) > 40
    assert 0.3 < (np.diff(y) > 0).mean() < 0.7


def test_a_full_list_gives_the_published_classes(tmp_path: Path) -> None:
    schema = opened(lay_out_tiny_imagenet(tmp_path, tiny_imagenet_truth())).schema("train")
    stand_in = TinyImagenet(SourceRequest("synthetic"))
    stand_in.prepare(tmp_path)
    assert schema.classes == stand_in.schema("train").classes
    assert len(schema.classes) == 200
    assert [text.rpartition("(")[2].rstrip(")") for text in schema.classes] == sorted(WNIDS)


def test_grey_pictures_become_rgb(small: Path) -> None:
    grey = Image.fromarray(picture(5)[0])
    grey.save(small / "train" / CAT / "images" / f"{CAT}_9.JPEG", quality=90)
    with Image.open(small / "train" / CAT / "images" / f"{CAT}_9.JPEG") as stored:
        assert stored.mode == "L"
        expected = np.stack([np.asarray(stored)] * 3)
    x, y = read(opened(small), "train")
    (found,) = (k for k, image in enumerate(x) if np.array_equal(image, expected))
    assert y[found] == 1


def test_size_and_skip_bad(small: Path) -> None:
    assert read(opened(small, size=32), "val")[0].shape == (3, 3, 32, 32)
    bad = small / "train" / CAT / "images" / f"{CAT}_2.JPEG"
    bad.write_bytes(bad.read_bytes()[:2000])
    with pytest.raises(SourceError, match=f"{CAT}_2.JPEG cannot be used: .*--skip-bad"):
        read(opened(small), "train")
    source = opened(small, skip_bad=True)
    assert len(read(source, "train")[1]) == 11
    assert [skipped.file for skipped in source.skipped("train")] == [str(bad)]


@pytest.mark.parametrize("place", [".", "..", "tiny-imagenet", "tiny-imagenet/tiny-imagenet-200"])
def test_found_where_it_may_lie(small: Path, tmp_path: Path, place: str) -> None:
    given = small
    if place == "..":
        given = small.parent
    elif place != ".":
        given = tmp_path / "given"
        (given / place).parent.mkdir(parents=True)
        small.rename(given / place)
    assert opened(given).schema("train").count == 12


def test_read_from_an_archive(small: Path, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    archive = tmp_path / "given" / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(small.rglob("*")):
            packed.write(path, path.relative_to(tmp_path))
    source = opened(archive.parent)
    assert source.schema("train").origin == "local"
    for split in source.splits:
        for one, other in zip(read(source, split), read(opened(small), split), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(SourceError, match=r"tiny-imagenet-200\.zip is not the published archive"):
        TinyImagenet(SourceRequest("official", None, (archive.parent,))).prepare(tmp_path / "other")


def test_other_folders_are_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    assert TinyImagenet().locate(tmp_path, official_only=False) is None


def test_only_what_is_needed_is_unpacked() -> None:
    source = TinyImagenet()
    top = "tiny-imagenet-200"
    needed = ["wnids.txt", f"train/{CAT}/images/{CAT}_0.JPEG", "val/images/val_0.JPEG", "val/val_annotations.txt"]
    assert all(source.wanted(f"{top}/{member}") for member in needed)
    assert not any(source.wanted(f"{top}/{member}") for member in ("words.txt", "test/images/test_0.JPEG", ""))


def test_the_stand_in_takes_the_size(tmp_path: Path) -> None:
    for options, side in ((ImageOptions(), 64), (ImageOptions(size=96), 96)):
        source = TinyImagenet(SourceRequest("synthetic"), options)
        source.prepare(tmp_path, SilentProgress())
        assert source.schema("train").shape == (3, side, side)
        assert (source.schema("train").count, source.schema("val").count) == (100_000, 10_000)


def test_classes_that_do_not_fit_are_refused(small: Path) -> None:
    wnids = small / "wnids.txt"
    whole = wnids.read_text()
    wnids.write_text(f"{CAT}\n{OWN}\n")
    assert f"{DOG} is of no class that wnids.txt names" in refused(small)
    wnids.write_text(f"{whole}n00000001\n")
    assert "n00000001" in refused(small)
    wnids.write_text(f"{whole}{CAT}\n")
    assert f"wnids.txt names class {CAT!r} twice" in refused(small)
    wnids.write_text(f"\n{CAT}\n")
    assert "wnids.txt names 1 classes" in refused(small)
    wnids.write_text(whole)
    for path in (small / "train" / OWN / "images").iterdir():
        path.unlink()
    assert f"{OWN}/images has no .JPEG files" in refused(small)


def test_annotations_that_do_not_fit_are_refused(small: Path) -> None:
    whole = (small / "val" / "val_annotations.txt").read_text()
    first, second, third = whole.splitlines(keepends=True)
    annotate(small, first + second.replace(DOG, "n00000001") + third)
    assert "val_annotations.txt, line 2: 'n00000001' is no class" in refused(small)
    annotate(small, first + "\n" + "no tabs here\n" + second + third)
    assert "val_annotations.txt, line 3: '' is no class" in refused(small)
    annotate(small, first + second)
    assert "val_2.JPEG has no line in val_annotations.txt" in refused(small)
    annotate(small, whole + f"val_77.JPEG\t{CAT}\t0\t0\t63\t63\n")
    assert "val_77.JPEG is missing, but val_annotations.txt names it" in refused(small)
    annotate(small, whole + first)
    assert "val_annotations.txt, line 4: 'val_0.JPEG' has been named before" in refused(small)
    (small / "val" / "val_annotations.txt").unlink()
    assert "val_annotations.txt cannot be read: No such file" in refused(small)
    annotate(small, whole.replace("\n", "\r\n").replace("\t0\t0\t63\t63", ""))
    assert opened(small).schema("val").count == 3


@pytest.mark.real_data
def test_the_real_pictures(real_data: Path) -> None:
    source = opened(real_data / "tiny-imagenet")
    root = real_data / "tiny-imagenet" / "tiny-imagenet-200"
    words = dict(line.split("\t") for line in (root / "words.txt").read_text().splitlines())
    wnids = sorted((root / "wnids.txt").read_text().split())
    assert source.schema("train").classes == tuple(f"{words[wnid].split(',')[0]} ({wnid})" for wnid in wnids)

    annotated = {}
    for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        annotated[name] = wnids.index(wnid)
    data = source.data
    assert isinstance(data, DecodedFiles)
    grey_seen = 0
    for split, each in (("train", 50), ("val", 10)):
        x, y = read(source, split)
        assert x.shape == (each * 200, 3, 64, 64)
        assert np.bincount(y, minlength=200).tolist() == [each] * 200
        for k in range(0, len(y), 7):
            item = data.items[split][k]
            assert isinstance(item, File)
            with Image.open(item.path) as image:
                grey_seen += image.mode == "L"
                np.testing.assert_array_equal(x[k], np.asarray(image.convert("RGB")).transpose(2, 0, 1))
        for item, label in zip(data.items[split], y, strict=True):
            path = Path(item.name)
            assert label == (wnids.index(path.parts[-3]) if split == "train" else annotated[path.name])
    assert grey_seen > 5
