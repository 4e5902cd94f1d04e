"""Reading the files of a mapping into memory, in order, while its rows are used in any order.

A shuffled epoch that faults its pages in one by one waits for the storage at each, and each fault that reads around
itself is in the way of the others. A batch of scattered rows needs nearly all of the file before it is complete, so an
epoch is over soonest where one thread goes through the files in order, and batches wait until their rows have arrived.
Encoded chunks are not waited for: decoding what is there goes on meanwhile.

The thread enters pages into the page table (madvise(2), MADV_POPULATE_READ), which reads what is not in memory, and
spares the others their faults. The kernel then reads a long file in few large pieces, which storage serves faster than
the single pages that it takes when told what will be needed (posix_fadvise(2), WILLNEED). Short files are asked for in
that way first, all at once: there is little to read ahead in each.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

_PIECE_BYTES = 1 << 20
_LONG_BYTES = 8 << 20
_EVERYTHING = sys.maxsize
_PAUSE_S = 0.0005
_PATIENCE_S = 30.0
_LOOKED_AT = 64
_SHARE_OF_MEMORY = 0.5
_POPULATE_READ = 22
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


class ReadAhead:
    """Files of which the first ``sizes[i]`` bytes are mapped as ``mapped[i]``, which lie behind each other."""

    def __init__(self, files: Sequence[Path], sizes: Sequence[int], mapped: Sequence[NDArray[np.uint8]]) -> None:
        self._files = [_File(*parts) for parts in zip(files, sizes, mapped, strict=True)]
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
        # Without a reference to this: who goes away while files are read ends that, too.
        arguments = (self._files, weakref.ref(self))
        self._thread = threading.Thread(target=_read, args=arguments, name="read-ahead", daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        """Whether there may be something to wait for."""
        return self._front != _EVERYTHING

    def wait_until(self, address: int) -> None:
        """Wait until all that lies before ``address`` has arrived, as far as it is being read.

        For half a minute at most, so that slow storage is not taken for a run that hangs.
        """
        give_up_at = time.monotonic() + _PATIENCE_S
        # To ask again and again takes less than to be told of each of many files.
        while self._front < address and self._thread is not None and self._thread.is_alive():
            time.sleep(_PAUSE_S)
            if time.monotonic() > give_up_at:
                return

    def move_to(self, address: int) -> None:
        """Note that all that lies before ``address`` has arrived."""
        self._front = address


class _File(NamedTuple):
    path: Path
    size: int
    memory: NDArray[np.uint8]


def _read(files: Sequence[_File], reader: Callable[[], ReadAhead | None]) -> None:
    """Read files until nobody is left who wants them. One that cannot be opened any more is the reader's to report."""
    try:
        # Linux before 5.14 does not know how to. An empty file has no page to try it on.
        tried = next((file for file in files if file.size), None)
        enters = tried is not None and _entered(tried, 0, 1)
        for file in files:
            if file.size < _LONG_BYTES or not enters:
                with suppress(OSError), file.path.open("rb", buffering=0) as opened:
                    os.posix_fadvise(opened.fileno(), 0, file.size, os.POSIX_FADV_WILLNEED)
        if not enters:
            return
        for file in files:
            for offset in range(0, file.size, _PIECE_BYTES):
                end = min(offset + _PIECE_BYTES, file.size)
                if not _entered(file, offset, end) or not _told(reader, file.memory.ctypes.data + end):
                    return
    finally:
        _told(reader, _EVERYTHING)


def _entered(file: _File, begin: int, end: int) -> bool:
    return bool(_LIBC.madvise(file.memory.ctypes.data + begin, end - begin, _POPULATE_READ) == 0)


def _told(reader: Callable[[], ReadAhead | None], address: int) -> bool:
    ahead = reader()
    if ahead is not None:
        ahead.move_to(address)
    return ahead is not None


def _memory_bytes() -> int:
    """Return how much memory there is to be had: what is available, within the limits on this process (cgroups(7), v2).

    What a group has read from files counts against its limit, so more than that would only push itself out again.
    """
    amounts = [psutil.virtual_memory().available]
    with suppress(OSError, ValueError):
        lines = _OWN_GROUP.read_text().splitlines()
        group = next((_GROUPS / line.removeprefix("0::/") for line in lines if line.startswith("0::/")), _GROUPS)
        for one in (group, *group.parents):
            with suppress(OSError, ValueError):  # no such file above, "max" where there is no limit
                amounts.append(int((one / "memory.max").read_text()))
    return min(amounts)


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
