"""What one process at a time may do, among all that share a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .source import Progress

_AT_ONCE_S = 0.2


@contextmanager
def held(path: Path, work: str, progress: Progress) -> Iterator[None]:
    """Hold the lock file ``path`` for some ``work``; say so where another process has it. Raises OSError."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_AT_ONCE_S)
    except Timeout:
        progress.note(f"Waiting: another process is {work}.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
