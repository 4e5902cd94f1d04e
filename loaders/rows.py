"""Rows of equal size that lie in files as they are, gathered through one read-only mapping.

A format that stores samples raw differs from the next only in where they lie. A backend finds that out once, when the
store is opened, and says it as pieces: so many consecutive rows from this byte of that file on. All files are mapped
behind each other into one range of addresses, each at a multiple of the page and of the row (mmap(2) with MAP_FIXED
over a reservation that takes no memory), so that in most stores every sample is a row of one large array, some rows of
which do not exist: a batch is then one gather of a library, whatever the number of files.

What a file claims is checked before it is mapped: reading past the end of a mapped file would kill the process.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import BackendError
from bench.contracts.reader import Indices

from .read_ahead import ReadAhead
from .store import damaged

Bytes = NDArray[np.uint8]

_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000
_FAILED = ctypes.c_void_p(-1).value
_MAX_ADDRESSES = 1 << 46
_SPARE_MAPS = 4096
# Below this a second core does not repay waking it; above, one fancy index costs more than a slice for each row.
_PARALLEL_BYTES = 128 << 10
_SLICE_BYTES = 64 << 10
_PATIENCE = 8
_TRIALS = 3
_MOST_PATIENCE = 4096


@dataclass(frozen=True, slots=True)
class Pieces:
    """Where rows lie: piece ``i`` holds rows ``i * rows_per_piece`` and on, behind each other in one file.

    ``file_of`` is the number of its file in ``files`` and ``offsets`` the byte at which it begins, both ``(pieces,)``
    int64. The last piece may be shorter than the others.
    """

    files: Sequence[Path]
    file_of: NDArray[np.int64]
    offsets: NDArray[np.int64]
    rows_per_piece: int

    @classmethod
    def contiguous(cls, path: Path, offset: int, count: int) -> Pieces:
        """Return the pieces of one file that holds all rows behind each other from ``offset`` on."""
        return cls([path], np.zeros(1, np.int64), np.array([offset], np.int64), max(1, count))


class Rows:
    """An array of bytes ``(count, row_bytes)`` in memory, in RAM or mapped, out of which rows are gathered."""

    def __init__(self, array: Bytes) -> None:
        import torch

        self._array = array
        self._tensor = torch.from_numpy(array)
        self._torch = torch
        # How many batches are still gathered on one core, how many it will be the next time, and how often in a row
        # several cores have been slower.
        self._alone = 1
        self._patience = _PATIENCE
        self._slower = 0
        self._alone_ns_per_byte = math.inf

    def gather(self, positions: Indices, x: Bytes) -> None:
        """Copy the rows at ``positions`` into ``x`` ``(n, row_bytes)``, without the GIL.

        On the calling thread alone; in the main thread, which has torch's threads at its service, on all of them as
        long as that is faster. Torch's threads wait for each other: beside other work on the cores they took 10 to 100
        times as long as one.
        """
        if (
            x.nbytes < _PARALLEL_BYTES
            or threading.current_thread() is not threading.main_thread()
            or self._torch.get_num_threads() == 1
        ):
            self._array.take(positions, axis=0, out=x, mode="clip")
            return
        started_ns = time.perf_counter_ns()
        if self._alone:
            self._array.take(positions, axis=0, out=x, mode="clip")
            self._alone -= 1
            self._alone_ns_per_byte = min(self._alone_ns_per_byte, (time.perf_counter_ns() - started_ns) / x.nbytes)
            return
        from_numpy = self._torch.from_numpy
        self._torch.index_select(self._tensor, 0, from_numpy(positions), out=from_numpy(x))
        if (time.perf_counter_ns() - started_ns) / x.nbytes <= self._alone_ns_per_byte:
            self._slower, self._patience = 0, _PATIENCE
            return
        # Once is nothing: threads that have slept take as long to wake as to gather.
        self._slower += 1
        if self._slower == _TRIALS:
            self._slower, self._alone = 0, self._patience
            self._patience = min(2 * self._patience, _MOST_PATIENCE)


def row_bytes(samples: NDArray[Any]) -> Bytes:
    """Return the bytes ``(n, row_bytes)`` of C-contiguous samples ``(n, ...)``."""
    return samples.reshape(len(samples), math.prod(samples.shape[1:])).view(np.uint8)


class MappedFiles:
    """The beginnings of files, mapped read-only behind each other: file ``i`` from ``bytes[i * spacing]`` on.

    Args:
        files: Their paths.
        sizes: How many bytes of each, ``(files,)`` int64.
        spacing: A multiple of the page; the least that fits if not given.

    Raises:
        BackendError: A file is missing or ends too early, or there are too many files to be mapped.
    """

    def __init__(self, files: Sequence[Path], sizes: NDArray[np.int64], spacing: int | None = None) -> None:
        self.spacing = spacing or _up_to(int(sizes.max(initial=0)), mmap.ALLOCATIONGRANULARITY)
        self.bytes = _mapped(files, sizes, self.spacing)
        mapped = [self.bytes[n * self.spacing :] for n in range(len(sizes))]
        self._ahead = ReadAhead(files, sizes.tolist(), mapped)

    def begin(self) -> None:
        """Have read from storage what is not in memory: all of it is about to be needed."""
        self._ahead.begin()

    @property
    def being_read(self) -> bool:
        """Whether they are still being read from storage since ``begin``."""
        return self._ahead.under_way

    def wait_until(self, end: int) -> None:
        """Wait until ``bytes[:end]`` have been read, if they are being read."""
        self._ahead.wait_until(self.bytes.ctypes.data + end)


class MappedRows:
    """The rows of a store, by number.

    Args:
        pieces: Where they lie.
        count: How many there are.
        row_bytes: Size of each.

    Raises:
        BackendError: A file is missing or ends before its last row, or there are too many files to be mapped.
    """

    def __init__(self, pieces: Pieces, count: int, row_bytes: int) -> None:
        self.row_bytes = row_bytes
        sizes = _needed_bytes(pieces, count, row_bytes)
        granule = math.lcm(mmap.ALLOCATIONGRANULARITY, row_bytes or 1)
        longest = int(sizes.max(initial=0))
        spacing = _up_to(longest, granule)
        if len(sizes) * spacing > _MAX_ADDRESSES or _maps(sizes, spacing) > _allowed():
            spacing = _up_to(longest, mmap.ALLOCATIONGRANULARITY)
        self._files = MappedFiles(pieces.files, sizes, spacing)
        self._bytes = self._files.bytes
        begins = pieces.file_of * spacing + pieces.offsets
        self._shift = shift = int(begins[0]) % row_bytes if len(begins) and row_bytes else 0
        within = np.arange(pieces.rows_per_piece, dtype=np.int64)
        if row_bytes and np.all(begins % row_bytes == shift):
            positions = ((begins // row_bytes)[:, None] + within).reshape(-1)[:count]
            rows = (len(self._bytes) - shift) // row_bytes
            self._rows: Rows | None = Rows(self._bytes[shift : shift + rows * row_bytes].reshape(rows, row_bytes))
        else:
            positions = (begins[:, None] + within * row_bytes).reshape(-1)[:count]
            self._rows = None
        # In most files the rows are in order: then there is nothing to look up.
        self._first = int(positions[0]) if count else 0
        ordered = self._rows is not None and bool(np.array_equal(positions, np.arange(count) + self._first))
        self._positions = None if ordered else positions

    def begin(self) -> None:
        """Have read from storage what is not in memory: every row is about to be needed."""
        self._files.begin()

    def gather(self, indices: Indices, x: NDArray[Any]) -> None:
        """Copy rows into ``x`` ``(n, ...)``, C-contiguous, of ``row_bytes`` a sample."""
        if not x.size:
            return
        out = row_bytes(x)
        if self._positions is not None:
            positions = np.take(self._positions, indices)
        else:
            positions = indices + self._first if self._first else indices
        if self._files.being_read:
            last = int(positions.max())
            begin = last if self._rows is None else self._shift + last * self.row_bytes
            self._files.wait_until(begin + self.row_bytes)
        if self._rows is not None:
            self._rows.gather(positions, out)
        elif self.row_bytes < _SLICE_BYTES:
            self._gather_small(positions, out)
        else:
            for row, begin in zip(out, positions.tolist(), strict=True):
                row[:] = self._bytes[begin : begin + self.row_bytes]

    def _gather_small(self, begins: Indices, out: Bytes) -> None:
        # Rows that overlap, one beginning at each byte: an index of them is a gather from anywhere.
        kind = np.dtype((np.void, self.row_bytes))
        count = len(self._bytes) - self.row_bytes + 1
        anywhere: NDArray[Any] = np.ndarray((count,), kind, self._bytes, strides=(1,))
        out.view(kind)[:, 0] = anywhere[begins]


def _needed_bytes(pieces: Pieces, count: int, row_bytes: int) -> NDArray[np.int64]:
    """Return how much of each file has to be there. Raises BackendError where the numbers make no sense."""
    if len(pieces.offsets) * pieces.rows_per_piece < count:
        raise BackendError(f"{pieces.files[0]}: fewer rows are to be found than the {count} that there should be.")
    rows = np.full(len(pieces.offsets), pieces.rows_per_piece, np.int64)
    if len(rows):
        rows[-1] = count - pieces.rows_per_piece * (len(rows) - 1)
    needed = np.zeros(len(pieces.files), np.int64)
    np.maximum.at(needed, pieces.file_of, pieces.offsets + rows * row_bytes)
    if len(pieces.offsets) and int(pieces.offsets.min()) < 0:
        raise damaged(pieces.files[0], "rows begin before the file does")
    return needed


def _up_to(size: int, granule: int) -> int:
    return max(1, -(-size // granule)) * granule


class _Addresses:
    """A range of addresses; the arrays that NumPy makes of it keep it alive."""

    def __init__(self, address: int, size: int, owner: object) -> None:
        self.owner = owner
        # Told to be writable, for torch warns of read-only arrays; the pages are not.
        self.__array_interface__ = {"version": 3, "data": (address, False), "shape": (size,), "typestr": "|u1"}


class _Reservation:
    """Addresses without memory, over which files are mapped; given back with this object."""

    def __init__(self, size: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self.address = _mmap(None, size, 0, flags, -1)
        # Not at the end of the process, when arrays may still be in use.
        weakref.finalize(self, _LIBC.munmap, self.address, size).atexit = False

    def map(self, descriptor: int, size: int, offset: int) -> None:
        _mmap(self.address + offset, size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, descriptor)


def _mapped(files: Sequence[Path], sizes: NDArray[np.int64], spacing: int) -> Bytes:
    """Map the first ``sizes[i]`` bytes of file ``i`` at ``i * spacing``."""
    if len(files) > 1 and not hasattr(os, "memfd_create"):
        raise BackendError(f"{files[0].parent}: many files are mapped as one only on Linux. Use reader=library.")
    maps, allowed = _maps(sizes, spacing), _allowed()
    if maps > allowed:
        raise BackendError(
            f"{files[0].parent}: {len(files):,} files take {maps:,} mappings, more than the {allowed:,} that the "
            "system leaves this process. Store more samples in a file, use reader=library, or raise vm.max_map_count."
        )
    owner: object = None
    address = 0
    for number, (path, size) in enumerate(zip(files, sizes.tolist(), strict=True)):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise damaged(path, error.strerror) from error
        try:
            there = os.fstat(descriptor).st_size
            if there < size:
                raise damaged(path, f"ends after {there} bytes, where {size} are needed")
            if not size:
                continue
            if len(files) == 1:
                owner = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
                address = np.frombuffer(owner, np.uint8).ctypes.data
            else:
                owner = owner or _Reservation(len(files) * spacing)
                assert isinstance(owner, _Reservation)  # noqa: S101  # for the type checker
                address = owner.address
                owner.map(descriptor, size, number * spacing)
        except OSError as error:
            raise damaged(path, f"cannot be mapped: {error.strerror}") from error
        finally:
            os.close(descriptor)
    if owner is None:
        return np.empty(0, np.uint8)
    total = int(sizes[0]) if len(files) == 1 else len(files) * spacing
    return np.asarray(_Addresses(address, total, owner))


def _maps(sizes: NDArray[np.int64], spacing: int) -> int:
    """Return how many mappings files take: one each, and one for the gap behind each that does not fill its space."""
    pages = mmap.ALLOCATIONGRANULARITY
    return len(sizes) + int(np.count_nonzero(-(-sizes // pages) * pages < spacing))


def _allowed() -> int:
    """Return how many more mappings this process may have, less some to spare."""
    try:
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
        taken = Path("/proc/self/maps").read_bytes().count(b"\n")
    except (OSError, ValueError):
        most, taken = 65530, 0
    return most - taken - _SPARE_MAPS


def _mmap(address: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
    found = _LIBC.mmap(address, size, protection, flags, descriptor, 0)
    if found == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(found)


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
