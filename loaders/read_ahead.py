"""Reading the files of a mapping into memory, in order, while its rows are used in any order.

A shuffled epoch that faults its pages in one by one waits for the storage at each, and each fault that reads around
itself is in the way of the others. A batch of scattered rows needs nearly all of the file before it is complete, so it
is served soonest where one thread reads the file in order, and the others wait until what they need has arrived.

A long file is read as files usually are: the kernel then reads ahead in large folios, which storage served two to three
times as fast as the single pages that it takes when told what will be needed (posix_fadvise(2), WILLNEED). Short files
are asked for in that way, all at once, as there is nothing to read ahead in each. What has arrived is entered into the
page table by the same thread (madvise(2), MADV_POPULATE_READ), which spares the others most of their faults.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

_PIECE_BYTES = 1 << 20
_LONG_BYTES = 8 << 20
_EVERYTHING = sys.maxsize
_PAUSE_S = 0.0005
_LOOKED_AT = 64
_SHARE_OF_MEMORY = 0.5
_POPULATE_READ = 22
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


class ReadAhead:
    """Files of which the first ``sizes[i]`` bytes are mapped as ``mapped[i]``, which lie behind each other."""

    def __init__(self, files: Sequence[Path], sizes: Sequence[int], mapped: Sequence[NDArray[np.uint8]]) -> None:
        self._files = files
        self._sizes = sizes
        # Held here, so that a thread under way keeps them mapped.
        self._mapped = mapped
        self._total_bytes = sum(sizes)
        self._pages = _some_pages(sizes, mapped)
        self._thread: threading.Thread | None = None
        self._front = _EVERYTHING

    def begin(self) -> None:
        """Start reading in a thread, unless all is in memory already, or would not fit there.

        Whether it is, some pages tell: looking at all of them would take longer than an epoch of small samples.
        """
        if not hasattr(os, "posix_fadvise") or all(map(_in_memory, self._pages)):
            return
        if self._thread is not None and self._thread.is_alive():
            return
        if self._total_bytes > _SHARE_OF_MEMORY * _memory_bytes():
            return
        self._front = 0
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        """Whether there may be something to wait for."""
        return self._front != _EVERYTHING

    def wait_until(self, address: int) -> None:
        """Wait until all that lies before ``address`` has arrived, as far as it is being read."""
        # To ask again and again takes less than to be told of each of many files.
        while self._front < address:
            time.sleep(_PAUSE_S)

    def _read(self) -> None:
        try:
            # A file that cannot be read any more is the reader's to report.
            with suppress(OSError):
                for path, size in zip(self._files, self._sizes, strict=True):
                    if size < _LONG_BYTES:
                        _ask_for(path, size)
                for path, memory, size in zip(self._files, self._mapped, self._sizes, strict=True):
                    for end in _brought(path, memory, size):
                        self._front = memory.ctypes.data + end
        finally:
            self._front = _EVERYTHING


def _memory_bytes() -> int:
    """Return how much memory there is to be had: what is available, within the limits on this process (cgroups(7), v2).

    What a group has read from files counts against its limit, so more than that would only push itself out again.
    """
    amounts = [psutil.virtual_memory().available]
    with suppress(OSError):
        for line in _OWN_GROUP.read_text().splitlines():
            if line.startswith("0::/"):
                group = _GROUPS / line.removeprefix("0::/")
                for one in (group, *group.parents[: len(group.parts) - len(_GROUPS.parts)]):
                    with suppress(OSError, ValueError):  # no such file in the root, "max" where there is no limit
                        amounts.append(int((one / "memory.max").read_text()))
    return min(amounts)


def _ask_for(path: Path, size: int) -> None:
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_WILLNEED)


def _brought(path: Path, memory: NDArray[np.uint8], size: int) -> Iterator[int]:
    """Bring a mapped file into memory; yield how much of it is there."""
    if size < _LONG_BYTES:
        _enter(memory, 0, size)
        yield size
        return
    with path.open("rb", buffering=0) as file:
        unused = bytearray(_PIECE_BYTES)
        for offset in range(0, size, _PIECE_BYTES):
            file.readinto(unused)
            end = min(offset + _PIECE_BYTES, size)
            _enter(memory, offset, end)
            yield end


def _enter(memory: NDArray[np.uint8], begin: int, end: int) -> None:
    # Where Linux does not know this, before 5.14, the others have to fault the pages in.
    _LIBC.madvise(memory.ctypes.data + begin, end - begin, _POPULATE_READ)


def _some_pages(sizes: Sequence[int], mapped: Sequence[NDArray[np.uint8]]) -> list[int]:
    """Return addresses of pages, evenly spread over all files."""
    holding = [(memory.ctypes.data, size) for memory, size in zip(mapped, sizes, strict=True) if size]
    if not holding:
        return []
    each = -(-_LOOKED_AT // len(holding))
    step = max(1, len(holding) // _LOOKED_AT)
    return [
        begin + size * number // each // mmap.PAGESIZE * mmap.PAGESIZE
        for begin, size in holding[::step]
        for number in range(each)
    ]


def _in_memory(address: int) -> bool:
    found = ctypes.c_ubyte()
    return _LIBC.mincore(address, 1, ctypes.byref(found)) == 0 and bool(found.value & 1)


_LIBC = ctypes.CDLL(None)
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
