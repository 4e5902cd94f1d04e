"""An epoch out of a store that is not in memory, and reading its files in order for comparison."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure.page_cache import PageCache

_PIECE_BYTES = 1 << 20


def sequential_s(root: Path) -> float:
    """Read all files of a store from storage, each from its beginning to its end; return seconds."""
    _evict(root)
    buffer = bytearray(_PIECE_BYTES)
    started = time.perf_counter()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        file = os.open(path, os.O_RDONLY)
        while os.readv(file, [buffer]):
            pass
        os.close(file)
    return time.perf_counter() - started


def epoch_s(root: Path, opened: Callable[[], Callable[[], float]]) -> float:
    """Return the seconds of an epoch, from storage.

    ``opened`` opens the store and returns what takes them: what a process has mapped cannot be evicted, so it must not
    be open before.
    """
    _evict(root)
    return opened()()


def _evict(root: Path) -> None:
    brought = PageCache(root).bring("cold")
    if brought.achieved != "verified":
        sys.exit(f"{root}: cannot be had cold here: {brought.reason}")
