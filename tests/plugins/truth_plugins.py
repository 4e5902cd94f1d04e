"""Instrumented plug-ins: each does a known thing and keeps an account of its own, which the harness must agree with.

A reader acts only on batches that are out of order: so in epochs, which are shuffled, and not while a store is
verified. What it did goes into ``<log>/acts-<pid>-<thread>.jsonl``, one line per batch, padded with zeros.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from bench.contracts.backend import Backend, BackendError
from bench.contracts.options import Options
from bench.contracts.reader import Indices, PerProcess, Reader
from bench.contracts.source import (
    DataSource,
    Progress,
    RawData,
    SampleBlock,
    Schema,
    SourceUnavailableError,
    Split,
)

SIDE = 128
"""Of a sample, which then takes four pages: reading it reads nothing of its neighbours."""

EXTRA_BYTES = 8 * 2**20
LOG_BYTES = 2**20
TOUCHED_BYTES = 300 * 2**20
OOM_CAP_BYTES = 8 * 2**30
BAD = 77
"""The sample that is delivered wrong; never the last one of a store."""

if multiprocessing.current_process().name.startswith("SpawnProcess"):
    # A loader worker that takes long to import what it needs.
    time.sleep(float(os.environ.get("TRUTH_IMPORT_S", "0")))


class TruthOptions(Options):
    count: int = Field(3200, ge=100, description="samples")
    side: int = Field(SIDE, ge=8, description="pixels of a side")


class TruthData(RawData):
    def __init__(self, options: TruthOptions) -> None:
        self._count, self._shape = options.count, (1, options.side, options.side)

    def fingerprint(self) -> str:
        return f"truth-1 {self._count} {self._shape}"

    def schema(self, split: Split) -> Schema:
        return Schema("truth", split, self._count, self._shape, "uint8", ("a", "b", "c"), "none", "synthetic")

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        for start in range(0, self._count, 400):
            indices = np.arange(start, min(start + 400, self._count))
            x = np.random.default_rng(start).integers(0, 256, (len(indices), *self._shape), dtype=np.uint8)
            yield SampleBlock(x, indices % 3)


class TruthSet(DataSource):
    name = "truth"
    splits = ("train",)
    options_type = TruthOptions

    def locate(self, path: Path, *, official_only: bool) -> RawData | None:
        return None

    def fetch(self, cache: Path, progress: Progress) -> RawData:
        raise SourceUnavailableError("truth cannot be downloaded.")

    def imitate(self) -> RawData:
        return TruthData(self.options)


@cache
def _log(folder: str, pid: int, thread: int) -> mmap.mmap:
    path = Path(folder) / f"acts-{pid}-{thread}.jsonl"
    path.write_bytes(bytes(LOG_BYTES))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), LOG_BYTES)


def note(folder: str, **facts: object) -> None:
    """Keep facts as one line, without a system call: this is in the harness's time, but not in our own account."""
    if not folder:
        return
    facts |= {"at": time.monotonic(), "pid": os.getpid(), "process_cpu_s": time.process_time()}
    line = json.dumps(facts)
    _log(folder, os.getpid(), threading.get_ident()).write(f"{line}\n".encode())


def burn(cpu_s: float) -> None:
    until = time.thread_time() + cpu_s
    while time.thread_time() < until:
        pass


class Rows:
    """The file of samples, opened for preads and as a mapping, both without any reading ahead."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        self.mapping = mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ)
        self.mapping.madvise(mmap.MADV_RANDOM)

    def __del__(self) -> None:
        self._file.close()

    def pread(self, index: int, row: np.ndarray) -> None:
        os.preadv(self._file.fileno(), [row], index * row.nbytes)

    def copy(self, index: int, row: np.ndarray) -> None:
        found = self.mapping[index * row.nbytes : (index + 1) * row.nbytes]
        row[:] = np.frombuffer(found, np.uint8).reshape(row.shape)


class TruthReader(Reader):
    """Delivers what was written, by preads; a subclass says what else it does in ``act``."""

    def __init__(self, root: Path, options: TruthReadOptions) -> None:
        try:
            self._y = np.load(root / "labels.npy")
        except (OSError, ValueError) as error:
            raise BackendError(f"{root} is not a truth store.") from error
        side = math.isqrt((root / "rows.bin").stat().st_size // len(self._y))
        self.root = root
        self.options = options
        self.rows = PerProcess(partial(Rows, root / "rows.bin"))
        super().__init__(len(self._y), (1, side, side), np.dtype(np.uint8))

    def read_into(self, indices: Indices, x, y) -> None:
        began_s, cpu_began_s = time.perf_counter(), time.thread_time()
        acting = list(indices) != sorted(indices)
        facts = self.act(indices) if acting else {}
        y.numpy()[:] = self._y[indices]
        self.read(indices, x.numpy())
        held_s, cpu_s = time.perf_counter() - began_s, time.thread_time() - cpu_began_s
        if acting:
            note(self.options.log, held_s=held_s, cpu_s=cpu_s, **facts)

    def act(self, indices: Indices) -> dict[str, object]:
        """Do what this reader is for; return facts about it."""
        return {}

    def read(self, indices: Indices, x: np.ndarray) -> None:
        for row, index in zip(x, indices, strict=True):
            self.rows().pread(int(index), row)


class TruthReadOptions(Options):
    log: str = Field("", description="folder for the plug-in's own account")
    ms: float = Field(0.0, ge=0, description="how long, in ms")
    how: str = Field("", description="which of the things that it can do")
    only_second: bool = Field(False, description="burn CPU time in the second epoch alone")


class TruthBackend(Backend[TruthReadOptions]):
    options_type = TruthReadOptions
    read_options = frozenset(TruthReadOptions.model_fields)
    reader: type[TruthReader] = TruthReader

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        labels = []
        with (root / "rows.bin").open("wb") as rows:
            for block in samples:
                rows.write(block.x.tobytes())
                labels.append(block.y)
        np.save(root / "labels.npy", np.concatenate(labels))

    def open(self, root: Path) -> Reader:
        return self.reader(root, self.options)


class SleepingReader(TruthReader):
    """Sleeps in every batch."""

    def act(self, indices: Indices) -> dict[str, object]:
        began_s = time.perf_counter()
        time.sleep(self.options.ms / 1000)
        return {"slept_s": time.perf_counter() - began_s}


class SleepingBackend(TruthBackend):
    name = "truth-sleeps"
    reader = SleepingReader


class ReadingReader(TruthReader):
    """Reads by ``pread``, through a mapping (``map``), or half by each (``both``), and burns CPU time.

    All but the second epoch are idle where ``only_second`` says so: then a run is compared with itself.
    """

    _epochs = 0

    def begin(self, order: Indices) -> None:
        self._epochs += 1

    @property
    def burns(self) -> bool:
        return self._epochs == 2 or not self.options.only_second

    def act(self, indices: Indices) -> dict[str, object]:
        if self.burns:
            burn(self.options.ms / 1000)
        return {}

    def read(self, indices: Indices, x: np.ndarray) -> None:
        rows = self.rows()
        for row, index in zip(x, indices, strict=True):
            called = self.options.how == "pread" or (self.options.how == "both" and index % 2 == 0)
            (rows.pread if called else rows.copy)(int(index), row)


class ReadingBackend(TruthBackend):
    name = "truth-reads"
    reader = ReadingReader


class TouchingReader(TruthReader):
    """Touches memory of one kind for ``ms`` once per epoch."""

    def act(self, indices: Indices) -> dict[str, object]:
        if 0 not in indices:
            return {}
        before = pss_before()
        with self._touched():
            time.sleep(self.options.ms / 1000)
        return {"pss_before": before}

    def _touched(self) -> mmap.mmap:
        if self.options.how == "file":
            path = Path(self.options.log) / "big.bin"
            path.touch()
            os.truncate(path, TOUCHED_BYTES)
            with path.open("rb") as file:
                block = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            block[:: mmap.PAGESIZE]
            return block
        kind = mmap.MAP_PRIVATE if self.options.how == "anonymous" else mmap.MAP_SHARED
        block = mmap.mmap(-1, TOUCHED_BYTES, flags=kind | mmap.MAP_ANONYMOUS)
        block[:: mmap.PAGESIZE] = bytes(TOUCHED_BYTES // mmap.PAGESIZE)
        return block


def pss_before() -> dict[str, int]:
    """Return the PSS of the run's processes in bytes, as the kernel tells it: in all, and its parts."""
    in_worker = multiprocessing.current_process().name == "bench-loader"
    pids = [os.getpid(), os.getppid()] if in_worker else [os.getpid()]
    found: Counter[str] = Counter()
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss"):
                found[line.split(":")[0]] += int(line.split()[1]) * 1024
    return found


class TouchingBackend(TruthBackend):
    name = "truth-touches"
    reader = TouchingReader


class ChildReader(ReadingReader):
    """Once per epoch a child process reads another file of the store, or burns CPU time, and is waited for."""

    def act(self, indices: Indices) -> dict[str, object]:
        if 0 in indices:
            reads = ["dd", f"if={self.root / 'extra.bin'}", "of=/dev/null", "bs=64K"]
            cpu_s = self.options.ms / 1000 if self.burns else 0.05
            loop = f"import time\nwhile time.process_time() < {cpu_s}: pass"
            burns = [sys.executable, "-S", "-c", loop]
            subprocess.run(burns if self.options.how == "burn" else reads, check=True, stderr=subprocess.DEVNULL)
        return {}


class ChildBackend(TruthBackend):
    name = "truth-child"
    reader = ChildReader

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        super().write(samples, schema, root)
        (root / "extra.bin").write_bytes(os.urandom(EXTRA_BYTES))


_KEPT: list[mmap.mmap] = []


class PinningReader(TruthReader):
    """Keeps a touched mapping of the store for ever."""

    def act(self, indices: Indices) -> dict[str, object]:
        if not _KEPT:
            _KEPT.append(self.rows().mapping)
        return {}

    def read(self, indices: Indices, x: np.ndarray) -> None:
        for row, index in zip(x, indices, strict=True):
            self.rows().copy(int(index), row)


class PinningBackend(TruthBackend):
    name = "truth-pins"
    reader = PinningReader


class DyingReader(TruthReader):
    """Hangs, crashes, exhausts the memory or raises at the batch that holds sample 0."""

    def act(self, indices: Indices) -> dict[str, object]:
        if 0 in indices:
            {"hang": hang, "crash": crash, "exhaust": exhaust, "raise": fail}[self.options.how]()
        return {}


def hang() -> None:
    time.sleep(3600)


def crash() -> None:
    ctypes.string_at(0)


def exhaust() -> None:
    # Whoever else is in the same control group is to survive.
    Path("/proc/self/oom_score_adj").write_text("1000")
    held = []
    for _ in range(0, OOM_CAP_BYTES, TOUCHED_BYTES):
        held.append(mmap.mmap(-1, TOUCHED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        np.frombuffer(held[-1], np.uint8)[:: mmap.PAGESIZE] = 1


def fail() -> None:
    raise ValueError("the decoder gave up on sample 0")


class DyingBackend(TruthBackend):
    name = "truth-dies"
    reader = DyingReader


Wrong = Literal["byte", "label", "dropped", "extra"]


class WrongReader(TruthReader):
    """Delivers the bad sample wrong, but only out of order: what verification reads is right."""

    def act(self, indices: Indices) -> dict[str, object]:
        return {"batch": [int(index) for index in indices]}

    def __getitems__(self, indices):
        x, y = super().__getitems__(indices)
        places = np.flatnonzero(np.asarray(indices) == BAD)
        if list(indices) == sorted(indices) or not len(places):
            return x, y
        place = int(places[0])
        match self.options.how:
            case "byte":
                x[place, 0, 0, 0] ^= 1
            case "label":
                y[place] = (y[place] + 1) % 3
            case "dropped":
                kept = [row for row in range(len(y)) if row != place]
                x, y = x[kept], y[kept]
            case "extra":
                kept = sorted([*range(len(y)), place])
                x, y = x[kept], y[kept]
        return x, y


class WrongBackend(TruthBackend):
    name = "truth-wrong"
    reader = WrongReader


class WrongWriteOptions(TruthReadOptions):
    wrong: Wrong | None = Field(None, description="what the store holds wrong")


class WrongStoreBackend(TruthBackend):
    """Writes a store in which the bad sample is wrong."""

    name = "truth-wrong-store"
    options_type = WrongWriteOptions

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        super().write(samples, schema, root)
        if self.options.wrong is not None:
            damage(root, self.options.wrong)


def damage(root: Path, how: Wrong) -> None:
    """Make the bad sample of a store wrong: what it holds, its label, or that it is there exactly once."""
    labels = np.load(root / "labels.npy")
    rows = np.fromfile(root / "rows.bin", np.uint8).reshape(len(labels), -1)
    if how == "byte":
        rows[BAD, 5] ^= 1
    elif how == "label":
        labels[[BAD, BAD + 1]] = labels[[BAD + 1, BAD]]
    elif how == "dropped":
        rows, labels = np.delete(rows, BAD, 0), np.delete(labels, BAD)
    else:
        rows, labels = np.insert(rows, BAD, rows[BAD], 0), np.insert(labels, BAD, labels[BAD])
    rows.tofile(root / "rows.bin")
    np.save(root / "labels.npy", labels)
