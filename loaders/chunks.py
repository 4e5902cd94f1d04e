"""Rows in encoded chunks: each chunk that a batch touches is decoded once, and the last ones used are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.reader import Indices

from .rows import row_bytes

CACHE_BYTES = 64 << 20
"""Decoded chunks that are kept: enough for a shuffle within some blocks, little beside a data set."""

Decode = Callable[[int, NDArray[np.uint8]], None]
"""Decode the chunk of this number into an array of a whole chunk's bytes. Called without a lock, by several threads."""


class ChunkedRows:
    """Rows of ``sample_bytes``, ``rows_per_chunk`` to a chunk; ``decode`` knows where chunks lie and what they hold.

    Memory stays within ``cache_bytes`` and one chunk for each thread that reads.
    """

    def __init__(self, decode: Decode, rows_per_chunk: int, sample_bytes: int, cache_bytes: int = CACHE_BYTES) -> None:
        self._decode = decode
        self._rows_per_chunk = rows_per_chunk
        self._sample_bytes = sample_bytes
        self._chunk_bytes = rows_per_chunk * sample_bytes
        self._most = cache_bytes // max(1, self._chunk_bytes)
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()
        self._own = threading.local()

    def begin(self) -> None:
        """See RowSource.begin."""

    def gather(self, indices: Indices, x: NDArray[Any]) -> None:
        """Copy rows into ``x`` ``(n, ...)``, C-contiguous, of ``row_bytes`` a sample."""
        out = row_bytes(x)
        if self._rows_per_chunk == 1:
            # Nothing of it is left over to be kept, but for a repeat.
            for row, chunk in zip(out, indices.tolist(), strict=True):
                self._decode(chunk, row)
            return
        chunks, within = np.divmod(indices, self._rows_per_chunk)
        order = np.argsort(chunks, kind="stable")
        touched, starts = np.unique(chunks[order], return_index=True)
        for chunk, places in zip(touched.tolist(), np.split(order, starts[1:]), strict=True):
            rows = self._decoded(chunk)
            if len(places) == 1:
                out[places[0]] = rows[within[places[0]]]
            else:
                out[places] = rows[within[places]]

    def _decoded(self, chunk: int) -> NDArray[np.uint8]:
        """Return a chunk's rows, to be used before the next is asked for by the same thread."""
        with self._lock:
            kept = self._kept.get(chunk)
            if kept is not None:
                self._kept.move_to_end(chunk)
                return kept
        rows = self._room()
        self._decode(chunk, rows.reshape(-1))
        if not self._most:
            return rows
        with self._lock:
            self._kept[chunk] = rows
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return rows

    def _room(self) -> NDArray[np.uint8]:
        if self._most:
            # Another thread may still read what is dropped, so its memory cannot be used again.
            return np.empty((self._rows_per_chunk, self._sample_bytes), np.uint8)
        if not hasattr(self._own, "room"):
            self._own.room = np.empty((self._rows_per_chunk, self._sample_bytes), np.uint8)
        room: NDArray[np.uint8] = self._own.room
        return room
