"""Reading the files of a mapping into memory, in order, while its rows are used in any order.

A shuffled epoch that faults its pages in one by one waits for the storage at each: it is served soonest when
everything is asked for at once, in the order of the file (posix_fadvise(2), WILLNEED). As it arrives it is entered into
the page table by the same thread (madvise(2), MADV_POPULATE_READ), which spares the others most of their faults.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

_PIECE_BYTES = 8 << 20
_LOOKED_AT = 64
_SHARE_OF_MEMORY = 0.5
_POPULATE_READ = 22


class ReadAhead:
    """Files of which the first ``sizes[i]`` bytes are mapped as ``mapped[i]``."""

    def __init__(self, files: Sequence[Path], sizes: Sequence[int], mapped: Sequence[NDArray[np.uint8]]) -> None:
        self._files = files
        self._sizes = sizes
        # Held here, so that a thread under way keeps them mapped.
        self._mapped = mapped
        self._total_bytes = sum(sizes)
        self._pages = _some_pages(sizes, mapped)
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start reading in a thread, unless all is in memory already, or would not fit there.

        Whether it is, some pages tell: looking at all of them would take longer than an epoch of small samples.
        """
        if not hasattr(os, "posix_fadvise") or all(map(_in_memory, self._pages)):
            return
        if self._thread is not None and self._thread.is_alive():
            return
        if self._total_bytes > _SHARE_OF_MEMORY * psutil.virtual_memory().available:
            return
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for path, size in zip(self._files, self._sizes, strict=True):
            # A file that cannot be opened any more is the reader's to report.
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    for offset in range(0, size, _PIECE_BYTES):
                        os.posix_fadvise(descriptor, offset, _PIECE_BYTES, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(descriptor)
        for memory, size in zip(self._mapped, self._sizes, strict=True):
            for offset in range(0, size, _PIECE_BYTES):
                piece_bytes = min(_PIECE_BYTES, size - offset)
                # Linux before 5.14 does not know this, and a file that has been cut off is the reader's to report.
                if _LIBC.madvise(memory.ctypes.data + offset, piece_bytes, _POPULATE_READ):
                    return


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
