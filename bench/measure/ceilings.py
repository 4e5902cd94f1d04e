"""Raw speeds of this machine that no storage format can beat: storage, memory, the way to the GPU.

Storage is read past the page cache, one request at a time, as a loader without workers does. The device may do more
with many requests at once.
"""

from __future__ import annotations

import mmap
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.contracts.errors import BenchError
from bench.measure.storage_device import nearest_existing, storage_facts

if TYPE_CHECKING:
    import torch

MIB = 2**20
FILE_BYTES = 256 * MIB
SEQUENTIAL_BYTES = MIB
RANDOM_BYTES = (4 * 1024, 64 * 1024)
PASS_LIMIT_S = 3.0
"""A slow device is read for this long per pass, and written twice as long, however little that is."""

HOST_CACHE_RATIO = 1.3
"""A second pass that is faster than the first by more than this was served from a cache beyond this system."""

_COPIES = 5
_SPARE_BYTES = 64 * MIB

Method = Literal["O_DIRECT", "evicted", "memory"]


class CeilingError(BenchError):
    """The storage cannot be measured here."""


@dataclass(frozen=True, slots=True)
class ReadSpeed:
    """Reads of one size."""

    block_bytes: int
    reads: int
    duration_s: float

    @property
    def mb_per_s(self) -> float:
        """Megabytes (10^6) per second."""
        return self.reads_per_s * self.block_bytes / 1e6

    @property
    def reads_per_s(self) -> float:
        """Reads per second."""
        return self.reads / self.duration_s


@dataclass(frozen=True, slots=True)
class StorageCeiling:
    """What the storage below a folder delivers.

    ``method`` says how the page cache was kept out: by O_DIRECT, by evicting the file before each pass, or, for a
    file system in memory, not at all. ``sequential`` holds two passes over the same bytes.
    """

    method: Method
    file_bytes: int
    sequential: tuple[ReadSpeed, ReadSpeed]
    random: tuple[ReadSpeed, ...]

    @property
    def host_cache_suspected(self) -> bool:
        """Whether the second pass was so much faster that something else than the device must have answered."""
        first, second = self.sequential
        return self.method != "memory" and second.mb_per_s > HOST_CACHE_RATIO * first.mb_per_s

    def facts(self) -> dict[str, Any]:
        """Return all values with their speeds as plain data."""
        return {
            "method": self.method,
            "file_bytes": self.file_bytes,
            "sequential": [_speed_facts(speed) for speed in self.sequential],
            "random": [_speed_facts(speed) for speed in self.random],
            "host_cache_suspected": self.host_cache_suspected,
        }


@dataclass(frozen=True, slots=True)
class CopyCeiling:
    """Speeds of copying in GB (10^9 bytes) per second, each byte counted once; None where there is no CUDA device."""

    memory_gb_per_s: float
    pinned_gb_per_s: float | None
    pageable_gb_per_s: float | None
    reason: str | None

    def facts(self) -> dict[str, Any]:
        """Return all values as plain data."""
        return asdict(self)


def storage(folder: Path, *, file_bytes: int = FILE_BYTES, limit_s: float = PASS_LIMIT_S) -> StorageCeiling:
    """Measure the storage that holds ``folder`` with a file that has no name and so is gone whatever happens.

    A folder that does not exist is not created: its nearest existing parent lies on the same storage.

    Raises:
        CeilingError: There is no room for the file, or it cannot be written or read.
    """
    place = nearest_existing(folder)
    place = place if place.is_dir() else place.parent
    facts = storage_facts(place)
    if facts["free_bytes"] < file_bytes + _SPARE_BYTES:
        raise CeilingError(
            f"{place} has {facts['free_bytes'] / 1e6:,.0f} MB free, and measuring it takes "
            f"{(file_bytes + _SPARE_BYTES) / 1e6:,.0f} MB: make room, or choose another --data-dir."
        )
    try:
        with _file(place) as (written, direct):
            size = _fill(written, file_bytes, 2 * limit_s)
            if facts["memory"]:
                return _read_all(written, "memory", size, limit_s)
            if direct is not None and _readable(direct):
                return _read_all(direct, "O_DIRECT", size, limit_s)
            return _read_all(written, "evicted", size, limit_s)
    except OSError as error:
        raise CeilingError(
            f"{place} cannot be measured ({error.strerror}): choose a --data-dir that you may write to."
        ) from error


def copies(size_bytes: int = FILE_BYTES) -> CopyCeiling:
    """Measure copying within memory by torch, with the threads it has, and to the first CUDA device if there is one.

    Takes twice ``size_bytes`` of memory.
    """
    import torch

    source = torch.ones(size_bytes, dtype=torch.uint8)
    target = torch.empty_like(source)
    memory_s = _median_copy_s(target, source)
    del target
    if not torch.cuda.is_available():
        reason = "torch was built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        return CopyCeiling(size_bytes / memory_s / 1e9, None, None, reason)
    on_device = torch.empty(size_bytes, dtype=torch.uint8, device="cuda:0")
    pageable_s = _median_upload_s(on_device, source)
    pinned_s = _median_upload_s(on_device, source.pin_memory())
    return CopyCeiling(size_bytes / memory_s / 1e9, size_bytes / pinned_s / 1e9, size_bytes / pageable_s / 1e9, None)


@contextmanager
def _file(folder: Path) -> Iterator[tuple[int, int | None]]:
    """Open a new file for writing, and again for reading past the page cache where that is offered; unlink it."""
    descriptors = []
    written, name = tempfile.mkstemp(prefix=".bench-ceiling-", dir=folder)
    descriptors.append(written)
    try:
        try:
            direct = os.open(name, os.O_RDONLY | os.O_DIRECT)
            descriptors.append(direct)
        except OSError:
            direct = None
        finally:
            Path(name).unlink()
        yield written, direct
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _fill(descriptor: int, size: int, limit_s: float) -> int:
    """Write random bytes, which no file system can compress, and return how many."""
    started = time.monotonic()
    count = 0
    while count < size and (count == 0 or time.monotonic() - started < limit_s):
        for _ in range(16):
            if count < size:
                count += os.write(descriptor, os.urandom(min(MIB, size - count)))
        # Bit by bit: what waits to be written would otherwise take its time after the limit.
        os.fdatasync(descriptor)
    os.fsync(descriptor)
    return count


def _readable(direct: int) -> bool:
    """Return whether O_DIRECT holds what opening with it promised: some file systems refuse only the reads."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as buffer:
            return os.preadv(direct, [buffer], 0) == mmap.PAGESIZE
    except OSError:
        return False


def _read_all(descriptor: int, method: Method, size: int, limit_s: float) -> StorageCeiling:
    blocks = range(0, size - SEQUENTIAL_BYTES + 1, SEQUENTIAL_BYTES)
    first = _read(descriptor, method, blocks, SEQUENTIAL_BYTES, limit_s)
    second = _read(descriptor, method, blocks[: first.reads], SEQUENTIAL_BYTES, limit_s)
    random_speeds = []
    for block_bytes in RANDOM_BYTES:
        offsets = list(range(0, size - block_bytes + 1, block_bytes))
        random.Random(block_bytes).shuffle(offsets)  # noqa: S311  # an order, not a secret
        random_speeds.append(_read(descriptor, method, offsets, block_bytes, limit_s))
    return StorageCeiling(method, size, (first, second), tuple(random_speeds))


def _read(descriptor: int, method: Method, offsets: Sequence[int], block_bytes: int, limit_s: float) -> ReadSpeed:
    """Read blocks in the given order until there are no more or the time is over; at least one."""
    if method == "evicted":
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        sequential = block_bytes == SEQUENTIAL_BYTES
        # Readahead would otherwise fetch more than random reads ask for.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL if sequential else os.POSIX_FADV_RANDOM)
    # O_DIRECT wants memory at the start of a page.
    with mmap.mmap(-1, block_bytes) as buffer:
        count = 0
        started = now = time.perf_counter()
        for offset in offsets:
            if os.preadv(descriptor, [buffer], offset) != block_bytes:
                raise OSError(0, "a read came back short")
            count += 1
            now = time.perf_counter()
            if now - started > limit_s:
                break
    return ReadSpeed(block_bytes, count, now - started)


def _speed_facts(speed: ReadSpeed) -> dict[str, Any]:
    return {**asdict(speed), "mb_per_s": speed.mb_per_s, "reads_per_s": speed.reads_per_s}


def _median_copy_s(target: torch.Tensor, source: torch.Tensor) -> float:
    durations = []
    # The first copy also gets the memory from the system.
    target.copy_(source)
    for _ in range(_COPIES):
        started = time.perf_counter()
        target.copy_(source)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def _median_upload_s(target: torch.Tensor, source: torch.Tensor) -> float:
    """Return the seconds of a copy to a CUDA device by its own events, recorded on the stream that copies."""
    import torch

    with torch.cuda.device(target.device):
        target.copy_(source)
        return statistics.median(_upload_s(target, source) for _ in range(_COPIES))


def _upload_s(target: torch.Tensor, source: torch.Tensor) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    target.copy_(source, non_blocking=source.is_pinned())
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000
