"""Rows in encoded chunks: those that a batch touches are decoded side by side, and the last ones used are kept.

Decoded chunks lie in one array, so that a batch is one gather out of it, whatever the number of its chunks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.contracts.buffers import page_aligned
from bench.contracts.reader import Indices

from .rows import Rows, row_bytes

Bytes = NDArray[np.uint8]
T = TypeVar("T")

CACHE_BYTES = 64 << 20
"""Decoded chunks that are kept: enough for a shuffle within some blocks, little beside a data set."""

Decode = Callable[[int, Bytes], None]
"""Decode the chunk of this number into an array of a whole chunk's bytes. Called without a lock, by several threads."""

# Less decoded data than this is not worth waking another thread for.
_PARALLEL_BYTES = 128 << 10
# As many small chunks are begun at once that are merely read: taking the lock for each takes half as long as that.
_GROUP_BYTES = 256 << 10
# In this order: what is not yet decoded is less than what is.
_TO_DECODE, _UNDER_WAY, _DECODED = range(3)


class KeptChunks:
    """Rows of ``sample_bytes``, ``rows_per_chunk`` to each of ``chunks``; ``decode`` knows where they lie.

    Safe to use from several threads: a chunk that a batch is being made of keeps its place until that is done, one
    that several batches need is decoded by one of them, and chunks for which there is no place are decoded aside.
    Memory stays within ``cache_bytes`` and one chunk for each thread that decodes. Chunks of one row are decoded to
    where they belong, and not kept. ``side_by_side`` is whether the main thread has others help it: where decoding is
    no more than reading, they would only wait for each other.
    """

    def __init__(
        self,
        decode: Decode,
        chunks: int,
        rows_per_chunk: int,
        sample_bytes: int,
        cache_bytes: int = CACHE_BYTES,
        *,
        side_by_side: bool = True,
    ) -> None:
        import torch

        self._decode = decode
        self._rows_per_chunk = rows_per_chunk
        self._sample_bytes = sample_bytes
        self._chunk_bytes = rows_per_chunk * sample_bytes
        places = min(chunks, cache_bytes // max(1, self._chunk_bytes)) if rows_per_chunk > 1 else 0
        self._array = page_aligned((places, rows_per_chunk, sample_bytes), np.uint8)
        self._rows = Rows(self._array.reshape(places * rows_per_chunk, sample_bytes))
        self._place_of = np.full(chunks, -1, np.int64)
        self._chunk_in = np.full(places, -1, np.int64)
        self._state = np.full(places, _TO_DECODE, np.int8)
        self._users = np.zeros(places, np.int64)
        self._used_at = np.zeros(places, np.int64)
        self._batches = 0
        self._lock = threading.Lock()
        self._decoded = threading.Condition(self._lock)
        self._own = threading.local()
        self._group = 1 if side_by_side else max(1, _GROUP_BYTES // max(1, self._chunk_bytes))
        self._threads = torch.get_num_threads() if side_by_side else 1
        self._pool = ThreadPoolExecutor(max(1, self._threads - 1), thread_name_prefix="decode")

    def begin(self) -> None:
        """See RowSource.begin: forget what was decoded, so that every epoch does the same work."""
        with self._lock:
            idle = np.flatnonzero(self._users == 0)
            kept = self._chunk_in[idle]
            self._place_of[kept[kept >= 0]] = -1
            self._chunk_in[idle] = -1

    def gather(self, indices: Indices, x: NDArray[Any]) -> None:
        """Copy rows into ``x`` ``(n, ...)``, C-contiguous, of ``sample_bytes`` a row."""
        if not x.size:
            return
        out = row_bytes(x)
        if self._rows_per_chunk == 1:
            self._divide(lambda item: self._decode(*item), list(zip(indices.tolist(), out, strict=True)))
            return
        chunks, within = np.divmod(indices, self._rows_per_chunk)
        if (held := self._held_if_decoded(chunks)) is not None:
            try:
                self._rows.gather(held * self._rows_per_chunk + within, out)
            finally:
                with self._lock:
                    np.subtract.at(self._users, held, 1)
            return
        touched, of_touched = np.unique(chunks, return_inverse=True)
        places, coming = self._claimed(touched)
        held = places[places >= 0]
        try:
            self._bring(list(zip(touched[coming].tolist(), places[coming].tolist(), strict=True)))
            if len(held) == len(places):
                self._rows.gather(places[of_touched] * self._rows_per_chunk + within, out)
            else:
                self._gather_in_parts(touched, places, of_touched, within, out)
        finally:
            with self._lock:
                self._users[held] -= 1

    def _held_if_decoded(self, chunks: Indices) -> Indices | None:
        """Return the place of the chunk of each sample, held for it, if all are decoded: so most batches find them."""
        with self._lock:
            places = self._place_of.take(chunks)
            if places.min() < 0 or self._state.take(places).min() < _DECODED:
                return None
            self._batches += 1
            np.add.at(self._users, places, 1)
            self._used_at[places] = self._batches
            return places

    def _claimed(self, touched: Indices) -> tuple[Indices, Indices]:
        """Return the places of chunks, -1 where there is none, and which of them are still to be decoded to theirs.

        They are not given to other chunks until their users are fewer by one.
        """
        with self._lock:
            self._batches += 1
            places = self._place_of[touched]
            absent = np.flatnonzero(places < 0)
            kept = places[places >= 0]
            self._users[kept] += 1
            self._used_at[kept] = self._batches
            if len(absent):
                free = self._longest_unused(len(absent))
                absent = absent[: len(free)]
                forgotten = self._chunk_in[free]
                self._place_of[forgotten[forgotten >= 0]] = -1
                self._place_of[touched[absent]] = free
                self._chunk_in[free] = touched[absent]
                self._state[free] = _TO_DECODE
                self._users[free] += 1
                self._used_at[free] = self._batches
                places[absent] = free
            placed = np.flatnonzero(places >= 0)
            return places, placed[self._state[places[placed]] != _DECODED]

    def _longest_unused(self, count: int) -> Indices:
        free = np.flatnonzero(self._users == 0)
        if len(free) <= count:
            return free
        return free[np.argpartition(self._used_at[free], count)[:count]]

    def _bring(self, coming: list[tuple[int, int]]) -> None:
        """Have chunks decoded to their places: those here that no other thread has begun, and wait for the others."""
        while coming:
            groups = [coming[first : first + self._group] for first in range(0, len(coming), self._group)]
            self._divide(self._decode_unless_begun, groups, self._group)
            with self._lock:
                while any(self._state[place] == _UNDER_WAY for _, place in coming):
                    self._decoded.wait()
                # Where another thread failed, this one finds out why.
                coming = [item for item in coming if self._state[item[1]] == _TO_DECODE]

    def _decode_unless_begun(self, group: Sequence[tuple[int, int]]) -> None:
        with self._lock:
            own = [(chunk, place) for chunk, place in group if self._state[place] == _TO_DECODE]
            places = [place for _, place in own]
            self._state[places] = _UNDER_WAY
        done = 0
        try:
            for chunk, place in own:
                self._decode(chunk, self._array[place].reshape(-1))
                done += 1
        finally:
            with self._lock:
                self._state[places[:done]] = _DECODED
                self._state[places[done:]] = _TO_DECODE
                self._decoded.notify_all()

    def _gather_in_parts(
        self, touched: Indices, places: Indices, of_touched: Indices, within: Indices, out: Bytes
    ) -> None:
        placed = np.flatnonzero(places[of_touched] >= 0)
        out[placed] = self._array[places[of_touched[placed]], within[placed]]

        def decode_aside(number: int) -> None:
            if not hasattr(self._own, "rows"):
                self._own.rows = page_aligned((self._rows_per_chunk, self._sample_bytes), np.uint8)
            rows: Bytes = self._own.rows
            self._decode(int(touched[number]), rows.reshape(-1))
            wanted = np.flatnonzero(of_touched == number)
            out[wanted] = rows[within[wanted]]

        self._divide(decode_aside, np.flatnonzero(places < 0).tolist())

    def _divide(self, work: Callable[[T], None], items: Sequence[T], chunks_each: int = 1) -> None:
        """Do one work for each item: in the main thread on as many threads as torch has, in another on that alone."""
        threads = self._threads if threading.current_thread() is threading.main_thread() else 1
        if threads == 1 or len(items) == 1 or len(items) * chunks_each * self._chunk_bytes < _PARALLEL_BYTES:
            _work_through(work, items)
            return
        others = [self._pool.submit(_work_through, work, items[number::threads]) for number in range(1, threads)]
        try:
            _work_through(work, items[::threads])
        finally:
            # Nobody may write to the batch or the places once this returns.
            wait(others)
        for other in others:
            other.result()


def _work_through(work: Callable[[T], None], items: Sequence[T]) -> None:
    for item in items:
        work(item)
