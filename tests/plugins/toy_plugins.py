"""Plug-ins as an outsider would write them: one small data set, one backend, and its misbehaving variants."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bench.contracts.backend import Backend, BackendError, Capabilities, Options, require_empty
from bench.contracts.reader import Indices, Reader
from bench.contracts.source import (
    DataSource,
    Progress,
    RawData,
    SampleBlock,
    Schema,
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
