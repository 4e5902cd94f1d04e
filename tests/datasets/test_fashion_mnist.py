from __future__ import annotations

import gzip
import hashlib
import struct
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layouts_images import fashion_mnist_truth, lay_out_fashion_mnist
from source_conformance import read
from torchvision.datasets import FashionMNIST

from bench.contracts.source import SourceError, SourceRequest
from bench.datasets import fashion_mnist
from bench.datasets.download import Remote
from bench.datasets.fashion_mnist import FashionMnist

TRUTH = fashion_mnist_truth()
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def opened(folder: Path, kind: str = "local") -> FashionMnist:
    request = SourceRequest("local", folder) if kind == "local" else SourceRequest("official", None, (folder,))
    source = FashionMnist(request)
    source.prepare(folder / "cache")
    return source


def unpacked(folder: Path) -> Path:
    """Lay out the files as torchvision leaves them, without the gzipped ones."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in lay_out_fashion_mnist(folder / "gz", TRUTH).iterdir():
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return folder


def test_reads_what_torchvision_reads(tmp_path: Path) -> None:
    source = opened(unpacked(tmp_path))
    for split in source.splits:
        x, y = read(source, split)
        reference = FashionMNIST(tmp_path, train=split == "train")
        np.testing.assert_array_equal(x[:, 0], reference.data.numpy())
        np.testing.assert_array_equal(y, reference.targets.numpy())
        np.testing.assert_array_equal(x, TRUTH[split][0])
        assert list(source.schema(split).classes) == FashionMNIST.classes


def test_places_and_digests_are_those_of_torchvision() -> None:
    published = {(f"{FashionMNIST.mirrors[0]}{name}", md5) for name, md5 in FashionMNIST.resources}
    assert {(remote.mirrors[0], remote.md5) for remote in fashion_mnist._REMOTES.values()} == published
    assert set(FashionMnist.downloads) == {name for name, _ in FashionMNIST.resources}


@pytest.mark.parametrize(
    "place", [".", "fashion-mnist", "FashionMNIST/raw", "fashion-mnist/FashionMNIST/raw", "downloads"]
)
def test_found_where_it_may_lie(tmp_path: Path, place: str) -> None:
    (tmp_path / "set" / place).parent.mkdir(parents=True, exist_ok=True)
    lay_out_fashion_mnist(tmp_path, TRUTH).rename(tmp_path / "set" / place)
    np.testing.assert_array_equal(read(opened(tmp_path / "set"), "test")[0], TRUTH["test"][0])


def test_blocks_of_many_images_are_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    truth = {
        "train": (rng.integers(0, 256, (10_001, 1, 28, 28), np.uint8), rng.integers(0, 10, 10_001)),
        "test": TRUTH["test"],
    }
    source = opened(lay_out_fashion_mnist(tmp_path, truth))
    blocks = list(source.samples("train"))
    assert [len(block.y) for block in blocks] == [10_000, 1]
    np.testing.assert_array_equal(np.concatenate([block.x for block in blocks]), truth["train"][0])
    np.testing.assert_array_equal(np.concatenate([block.y for block in blocks]), truth["train"][1])


def test_official_is_what_has_the_published_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = lay_out_fashion_mnist(tmp_path, TRUTH)
    assert opened(raw).schema("test").origin == "local"
    with pytest.raises(
        SourceError, match=r"train-images-idx3-ubyte\.gz is not the published file: its md5 is .*move it away"
    ):
        opened(raw, "official")
    for name, remote in list(fashion_mnist._REMOTES.items()):
        digest = hashlib.md5((raw / remote.name).read_bytes()).hexdigest()
        monkeypatch.setitem(fashion_mnist._REMOTES, name, replace(remote, md5=digest))
    assert opened(raw).schema("test").origin == "official"
    assert opened(raw, "official").schema("train").origin == "official"


def test_downloaded_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def fetch_all(remotes: Sequence[Remote], folder: Path, progress: object, *, licence: str) -> list[Path]:
        told.append((folder, licence))
        raw = lay_out_fashion_mnist(tmp_path, TRUTH)
        return [raw / remote.name for remote in remotes]

    monkeypatch.setattr(fashion_mnist, "fetch_all", fetch_all)
    source = FashionMnist(SourceRequest("official"))
    source.prepare(tmp_path / "cache")
    assert told == [(tmp_path / "cache" / "downloads", "fashion-mnist: MIT")]
    for split in source.splits:
        np.testing.assert_array_equal(read(source, split)[0], TRUTH[split][0])


def test_unpacked_files_are_not_taken_for_official(tmp_path: Path) -> None:
    assert FashionMnist().locate(unpacked(tmp_path), official_only=True) is None
    assert opened(tmp_path).schema("train").origin == "local"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    raw = lay_out_fashion_mnist(tmp_path, TRUTH)
    (raw / f"{LABELS}.gz").unlink()
    with pytest.raises(SourceError, match=f"lacks {LABELS}"):
        opened(raw)
    assert FashionMnist().locate(raw, official_only=True) is None


def test_the_fingerprint_notices_a_changed_file(tmp_path: Path) -> None:
    raw = lay_out_fashion_mnist(tmp_path, TRUTH)
    before = opened(raw).fingerprint()
    assert opened(raw).fingerprint() == before
    (raw / f"{LABELS}.gz").write_bytes((raw / f"{LABELS}.gz").read_bytes())
    assert opened(raw).fingerprint() != before


def images(count: int, *, rows: int = 28, magic: int = 0x803, body: int = 4 * 784) -> bytes:
    return struct.pack(">IIII", magic, count, rows, 28) + bytes(body)


def labels(count: int, *, magic: int = 0x801, body: bytes = bytes(4)) -> bytes:
    return struct.pack(">II", magic, count) + body


DAMAGES = {
    "wrong magic": (images(4, magic=0x801), labels(4), "header does not tell of Nx28x28 unsigned bytes"),
    "signed": (images(4, magic=0x903), labels(4), "header does not tell of Nx28x28"),
    "other rows": (images(4, rows=32), labels(4), "header does not tell of Nx28x28"),
    "labels as images": (labels(4), labels(4), "it ends early"),
    "images as labels": (images(4), images(4), "header does not tell of N unsigned bytes"),
    "no images": (images(0, body=0), labels(0, body=b""), "header tells of 0 samples"),
    "too many": (images(10**9), labels(10**9), "header tells of 1,000,000,000 samples"),
    "too many, but possible": (images(10**6), labels(10**6, body=bytes(10**6)), "it ends early"),
    "fewer labels": (images(4), labels(3, body=bytes(3)), "4 images, but .* has 3 labels"),
    "truncated images": (images(4, body=4 * 784 - 1), labels(4), "it ends early"),
    "truncated labels": (images(4), labels(4, body=bytes(3)), "it ends early"),
    "longer images": (images(4, body=4 * 784 + 1), labels(4), "it goes on after its last sample"),
    "longer labels": (images(4), labels(4, body=bytes(5)), "it goes on after its last sample"),
    "label out of range": (images(4), labels(4, body=b"\0\1\2\x0a"), "it has label 10, above 9"),
    "empty": (b"", labels(4), "it ends early"),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(tmp_path: Path, damage: str, suffix: str) -> None:
    raw = lay_out_fashion_mnist(tmp_path, TRUTH)
    for name, content in zip((IMAGES, LABELS), DAMAGES[damage], strict=False):
        (raw / f"{name}.gz").unlink()
        (raw / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    source = opened(raw)
    with pytest.raises(SourceError, match=DAMAGES[damage][2]) as caught:
        read(source, "test")
    assert str(raw) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [lambda b: b[:-9], lambda b: b[:-8] + bytes(8), lambda b: b"text" + b, lambda b: b[:500] + bytes(30) + b[530:]],
)
def test_damaged_gzip_files_are_found(tmp_path: Path, spoil: object) -> None:
    raw = lay_out_fashion_mnist(tmp_path, TRUTH)
    path = raw / f"{IMAGES}.gz"
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(SourceError, match=r"t10k-images-idx3-ubyte\.gz is damaged: it is no whole gzip file"):
        read(opened(raw), "test")


def test_a_gzip_bomb_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    raw = lay_out_fashion_mnist(tmp_path, TRUTH)
    with gzip.open(raw / f"{LABELS}.gz", "wb", compresslevel=1) as file:
        file.write(labels(4))
        for _ in range(200):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="goes on after its last sample"):
            read(opened(raw), "test")
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no split 'val', only train, test"):
        opened(lay_out_fashion_mnist(tmp_path, TRUTH)).schema("val")
