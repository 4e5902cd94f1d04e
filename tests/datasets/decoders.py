"""What workers run in tests: importable, so that it travels by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from bench.contracts.source import SourceError
from bench.datasets.decoded import File


def text(item: File) -> np.ndarray:
    """Decode a file that holds numbers: one sample per number; words mean trouble."""
    content = Path(item.path).read_text()
    if content == "bad":
        raise SourceError("it is bad.")
    if content == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if content == "exit":
        os._exit(3)
    if content == "defect":
        raise KeyError("a defect")
    if content == "slow":
        time.sleep(60)
    return np.array([[float(value)] for value in content.split()], np.float32)


def process_id(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def square(number: int) -> int:
    return number * number


def large(number: int) -> np.ndarray:
    return np.full(1_000_000, number % 251, np.uint8)
