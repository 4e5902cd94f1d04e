"""Digests of samples: the proof that every store delivers the same bytes.

Each sample has an xxh3-64 hash over its index, its label and its bytes; the digest
of a split is the xxh3-128 of all of them in order. Keeping the list lets a mismatch
name the first wrong index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from bench.contracts.source import SampleBlock

Hashes = NDArray[np.uint64]


def sample_hashes(indices: NDArray[np.int64], x: NDArray[Any], y: NDArray[np.int64]) -> Hashes:
    """Return one hash per sample; ``x`` is ``(n, ...)``, ``indices`` and ``y`` are ``(n,)``."""
    count = len(indices)
    rows = np.ascontiguousarray(x).reshape(count, -1).view(np.uint8)
    heads = np.stack([indices, y], axis=1).astype("<i8").tobytes()
    hashes = np.empty(count, dtype=np.uint64)
    for i in range(count):
        state = xxhash.xxh3_64(heads[16 * i : 16 * i + 16])
        state.update(rows[i])
        hashes[i] = state.intdigest()
    return hashes


def split_digest(hashes: Hashes) -> str:
    """Return the digest of a split as 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(hashes.astype("<u8").tobytes())


class HashTap:
    """Passes sample blocks through and hashes them on the way."""

    def __init__(self, samples: Iterable[SampleBlock]) -> None:
        self._samples = samples
        self._parts: list[Hashes] = []
        self.count = 0

    def __iter__(self) -> Iterator[SampleBlock]:
        for block in self._samples:
            indices = np.arange(self.count, self.count + len(block.y), dtype=np.int64)
            self._parts.append(sample_hashes(indices, block.x, block.y))
            self.count += len(block.y)
            yield block

    @property
    def hashes(self) -> Hashes:
        """Hashes of everything that has passed so far."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.uint64)


def first_difference(expected: Hashes, found: Hashes) -> int | None:
    """Return the first index at which two lists differ (also by length), or None."""
    common = min(len(expected), len(found))
    wrong = np.flatnonzero(expected[:common] != found[:common])
    if len(wrong):
        return int(wrong[0])
    return None if len(expected) == len(found) else common
