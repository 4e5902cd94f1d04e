"""Fashion-MNIST: four files in the IDX format, gzipped as published or unpacked."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from bench.contracts.source import Content, DataSource, Progress, RawData, SampleBlock, Schema, SourceError, Split

from .download import Remote, deviation, fetch_all
from .synthetic import SyntheticPhotos

# Part of the fingerprint: raise it with every change that alters a sample or their order.
_VERSION = 1

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
LICENCE = "MIT"
SHAPE = (1, 28, 28)

_HOST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_REMOTES = {
    name: Remote(f"{name}.gz", (f"{_HOST}/{name}.gz",), md5=md5)
    for name, md5 in {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }.items()
}
_PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}

# IDX (http://yann.lecun.com/exdb/mnist): two zeros, 8 for unsigned bytes, the number of dimensions; then each of
# them, big-endian; then the values.
_IMAGES_MAGIC, _LABELS_MAGIC = b"\0\0\x08\x03", b"\0\0\x08\x01"
_MAX_COUNT = 1_000_000
_BLOCK_IMAGES = 10_000


class FashionMnist(DataSource):
    """70,000 grey pictures of clothes in 10 classes (Xiao, Rasul and Vollgraf, 2017)."""

    name: ClassVar[str] = "fashion-mnist"
    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    content: ClassVar[Content | None] = "images"
    downloads: ClassVar[tuple[str, ...]] = tuple(remote.name for remote in _REMOTES.values())

    def locate(self, path: Path, *, official_only: bool) -> RawData | None:
        """See DataSource.locate. Gzipped goes before unpacked, of which no published digest is known."""
        raw = Path("FashionMNIST", "raw")  # where torchvision leaves the files
        for folder in (path, path / self.name, path / raw, path / self.name / raw, path / "downloads"):
            files = _present(folder)
            missing = [name for name in _REMOTES if name not in files]
            if not files or (official_only and (missing or any(file.suffix != ".gz" for file in files.values()))):
                continue
            if missing:
                raise SourceError(f"{folder} lacks {missing[0]} (or {missing[0]}.gz). Get it, or move the others away.")
            data = FashionMnistFiles(files)
            if official_only and data.deviation:
                raise SourceError(f"{data.deviation}. Replace it, or move it away.")
            return data
        return None

    def fetch(self, cache: Path, progress: Progress) -> RawData:
        """See DataSource.fetch."""
        paths = fetch_all(tuple(_REMOTES.values()), cache / "downloads", progress, licence=f"{self.name}: {LICENCE}")
        return FashionMnistFiles(dict(zip(_REMOTES, paths, strict=True)))

    def imitate(self) -> RawData:
        """See DataSource.imitate."""
        return SyntheticPhotos(
            name=self.name, counts={"train": 60_000, "test": 10_000}, shape=SHAPE, classes=CLASSES, licence=LICENCE
        )


def _present(folder: Path) -> dict[str, Path]:
    """Return the files that a folder has, by their published names without ``.gz``."""
    found = {}
    for name in _REMOTES:
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                found[name] = path
                break
    return found


class FashionMnistFiles(RawData):
    """The four files, each gzipped or not; ``files`` has their published names without ``.gz`` as keys."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    @cached_property
    def deviation(self) -> str:
        """What sets one of the files apart from the published one, or nothing."""
        for name, path in self._files.items():
            try:
                found = deviation(_REMOTES[name], path)
            except OSError as error:
                raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
            if found:
                return f"{path} is not the published file: {found}"
        return ""

    def fingerprint(self) -> str:
        """See RawData.fingerprint."""
        stats = [(path.name, path.stat()) for path in self._files.values()]
        # Inode and time of change tell copies apart whose sizes and modification times are the same.
        files = " ".join(f"{n}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}:{s.st_dev}:{s.st_ino}" for n, s in stats)
        return f"fashion-mnist-v{_VERSION} {files}"

    def schema(self, split: Split) -> Schema:
        """See RawData.schema."""
        images = self._path(split, "images-idx3")
        with _open(images) as file:
            count = _count(file, images, _IMAGES_MAGIC, SHAPE[1:])
        labels = self._path(split, "labels-idx1")
        with _open(labels) as file:
            label_count = _count(file, labels, _LABELS_MAGIC, ())
        if count != label_count:
            raise SourceError(f"{images} has {count:,} images, but {labels} has {label_count:,} labels. Replace both.")
        return Schema(
            name=FashionMnist.name,
            split=split,
            count=count,
            shape=SHAPE,
            dtype="uint8",
            classes=CLASSES,
            licence=LICENCE,
            origin="local" if self.deviation else "official",
        )

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        """See RawData.samples."""
        count = self.schema(split).count
        labels = self._path(split, "labels-idx1")
        with _open(labels) as file:
            _count(file, labels, _LABELS_MAGIC, ())
            y = np.frombuffer(_read(file, count, labels), np.uint8).astype(np.int64)
            _refuse_more(file, labels)
        if y.max() >= len(CLASSES):
            raise _damaged(labels, f"it has label {y.max()}, above {len(CLASSES) - 1}")
        images = self._path(split, "images-idx3")
        with _open(images) as file:
            _count(file, images, _IMAGES_MAGIC, SHAPE[1:])
            for start in range(0, count, _BLOCK_IMAGES):
                part = y[start : start + _BLOCK_IMAGES].copy()
                pixels = _read(file, len(part) * int(np.prod(SHAPE)), images)
                yield SampleBlock(np.frombuffer(pixels, np.uint8).reshape(-1, *SHAPE).copy(), part)
            _refuse_more(file, images)

    def _path(self, split: Split, kind: str) -> Path:
        if split not in _PREFIXES:
            raise SourceError(f"{FashionMnist.name} has no split {split!r}, only {', '.join(_PREFIXES)}.")
        return self._files[f"{_PREFIXES[split]}-{kind}-ubyte"]


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file, gzipped or not, and turn what is wrong with it into a SourceError."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _damaged(path, "it is no whole gzip file") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error


def _count(file: io.BufferedIOBase, path: Path, magic: bytes, shape: tuple[int, ...]) -> int:
    """Read the header and return the number of samples."""
    header = _read(file, 8 + 4 * len(shape), path)
    dims = tuple(int(size) for size in np.frombuffer(header, ">u4")[1:])
    if header[:4] != magic or dims[1:] != shape:
        raise _damaged(path, f"its header does not tell of {'x'.join(['N', *map(str, shape)])} unsigned bytes")
    if not 0 < dims[0] <= _MAX_COUNT:
        raise _damaged(path, f"its header tells of {dims[0]:,} samples")
    return dims[0]


def _read(file: io.BufferedIOBase, size: int, path: Path) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise _damaged(path, "it ends early")
    return data


def _refuse_more(file: io.BufferedIOBase, path: Path) -> None:
    # Reading on also checks the sum at the end of a gzip file.
    if file.read(1):
        raise _damaged(path, "it goes on after its last sample")


def _damaged(path: Path, reason: str) -> SourceError:
    return SourceError(f"{path} is damaged: {reason}. Replace it with a fresh copy.")
