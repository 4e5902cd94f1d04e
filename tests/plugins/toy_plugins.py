"""Plug-ins as an outsider would write them: one small data set, one backend, and its misbehaving variants."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from bench.contracts.backend import Backend, BackendError, Capabilities, require_empty
from bench.contracts.options import Options
from bench.contracts.reader import Indices, Reader
from bench.contracts.source import (
    DataSource,
    OwnData,
    Progress,
    RawData,
    SampleBlock,
    Schema,
    Skipped,
    SourceError,
    SourceUnavailableError,
    Split,
)

COUNT = 300


def toy_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Samples whose class can be read off them, so that a network learns."""
    rng = np.random.default_rng(7)
    y = rng.integers(0, 3, COUNT)
    x = rng.integers(0, 60, (COUNT, 3, 8, 8), dtype=np.uint8)
    x[np.arange(COUNT), y] += 150
    return x, y


class ToyData(RawData):
    def fingerprint(self) -> str:
        return "toys-1"

    def schema(self, split: Split) -> Schema:
        return Schema("toys", split, COUNT, (3, 8, 8), "uint8", ("a", "b", "c"), "none", "synthetic")

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        x, y = toy_arrays()
        for start in range(0, COUNT, 70):
            yield SampleBlock(x[start : start + 70], y[start : start + 70])


class Toys(DataSource):
    name = "toys"
    splits = ("train",)

    def locate(self, path: Path, *, official_only: bool) -> RawData | None:
        return None

    def fetch(self, cache: Path, progress: Progress) -> RawData:
        raise SourceUnavailableError("toys cannot be downloaded.")

    def imitate(self) -> RawData:
        return ToyData()


class CostlyOptions(Options):
    size: int = Field(8, ge=1, le=64, description="pixels a side")
    offset: float = Field(0.0, description="added to every value")
    skip_bad: bool = Field(False, description="leave out the bad file")


class CostlyData(RawData):
    """Float samples that count how often they were decoded, in a file of the folder they come from."""

    costly = True

    def __init__(self, folder: Path, options: CostlyOptions) -> None:
        self._folder, self._options = folder, options
        self._skipped: tuple[Skipped, ...] = ()

    def fingerprint(self) -> str:
        return f"costly {self._options!r} {[p.stat().st_mtime_ns for p in sorted(self._folder.glob('*.txt'))]}"

    def schema(self, split: Split) -> Schema:
        shape = (1, self._options.size, self._options.size)
        return Schema("costly-toys", split, 99, shape, "float32", ("a", "b"), "none", "local", exact=False)

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        with (self._folder / "decoded.log").open("a") as log:
            log.write(f"{split}\n")
        (self._folder / "pause").exists() and time.sleep(30)
        if not self._options.skip_bad and (self._folder / "bad.txt").exists():
            raise SourceError("bad.txt cannot be used: it is bad. Remove it, or use --skip-bad.")
        self._skipped = (Skipped("bad.txt", "it is bad"),) if (self._folder / "bad.txt").exists() else ()
        size = self._options.size
        for block in range(4):
            rng = np.random.default_rng(block)
            x = rng.normal(self._options.offset, 3.0, (10, 1, size, size)).astype(np.float32)
            yield SampleBlock(x, np.arange(10) % 2)

    def has(self, split: Split) -> bool:
        return split == "train"

    def skipped(self, split: Split) -> tuple[Skipped, ...]:
        return self._skipped


class CostlyToys(OwnData):
    name = "costly-toys"
    splits = ("train", "val")
    options_type = CostlyOptions

    def locate(self, path: Path, *, official_only: bool) -> RawData | None:
        return CostlyData(path, self.options) if (path / "here.txt").exists() else None


class ToyReader(Reader):
    def __init__(self, root: Path) -> None:
        try:
            self._x, self._y = np.load(root / "x.npy"), np.load(root / "y.npy")
        except (OSError, ValueError) as error:
            raise BackendError(f"{root} is not a toy store.") from error
        super().__init__(len(self._y), self._x.shape[1:], self._x.dtype)

    def read_into(self, indices: Indices, x, y) -> None:
        x.numpy()[:] = self._x[indices]
        y.numpy()[:] = self._y[indices]


class ToyBackend(Backend[Options]):
    name = "toy"
    options_type = Options
    reader = ToyReader

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        require_empty(root)
        blocks = list(samples)
        np.save(root / "x.npy", np.concatenate([b.x for b in blocks]))
        np.save(root / "y.npy", np.concatenate([b.y for b in blocks]))

    def open(self, root: Path) -> Reader:
        return self.reader(root)


class CrashReader(ToyReader):
    """Dies as a bug in native code does, but only under a shuffle, so not during verification."""

    def read_into(self, indices: Indices, x, y) -> None:
        if list(indices) != sorted(indices):
            os.kill(os.getpid(), signal.SIGSEGV)
        super().read_into(indices, x, y)


class CrashBackend(ToyBackend):
    name = "toy-crash"
    reader = CrashReader


class FullDiskBackend(ToyBackend):
    name = "toy-full"

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        (root / "half.bin").write_bytes(b"half a store")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(root / "half.bin"))


class SlowReader(ToyReader):
    def read_into(self, indices: Indices, x, y) -> None:
        if list(indices) != sorted(indices):
            time.sleep(0.3)
        super().read_into(indices, x, y)


class SlowBackend(ToyBackend):
    name = "toy-slow"
    reader = SlowReader


class SlowWriteBackend(ToyBackend):
    name = "toy-slow-write"

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        (root / "begun").touch()
        time.sleep(float(os.environ.get("TOY_WRITE_S", "0")))
        (root / "begun").unlink()
        super().write(samples, schema, root)


class WrongByteReader(ToyReader):
    def read_into(self, indices: Indices, x, y) -> None:
        super().read_into(indices, x, y)
        x[np.flatnonzero(indices == 123), 0, 0, 0] ^= 1


class WrongByteBackend(ToyBackend):
    name = "toy-wrong"
    reader = WrongByteReader


class WrongLaterReader(ToyReader):
    """Right while it is read in order, as verification does, wrong under a shuffle."""

    def read_into(self, indices: Indices, x, y) -> None:
        super().read_into(indices, x, y)
        if list(indices) != sorted(indices):
            x[0, 0, 0, 0] ^= 1


class WrongLaterBackend(ToyBackend):
    name = "toy-wrong-later"
    reader = WrongLaterReader


class RaisingReader(ToyReader):
    def read_into(self, indices: Indices, x, y) -> None:
        if list(indices) != sorted(indices):
            raise BackendError("toy store: sample 5 cannot be read.")
        super().read_into(indices, x, y)


class RaisingBackend(ToyBackend):
    name = "toy-raises"
    reader = RaisingReader


class UnsupportedBackend(ToyBackend):
    name = "toy-unsupported"
    capabilities = Capabilities(thread_workers=False)

    def unsupported(self, schema: Schema) -> str | None:
        return "it only holds words."


class CrashWriteBackend(ToyBackend):
    name = "toy-crash-write"

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        (root / "half.bin").write_bytes(b"half a store")
        os.kill(os.getpid(), signal.SIGSEGV)


class DefectBackend(ToyBackend):
    name = "toy-defect"

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        (root / "half.bin").write_bytes(b"half a store")
        raise ZeroDivisionError("division by zero")
