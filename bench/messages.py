"""What the runner and the measured process tell each other; light enough for both to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.record import Phase
from bench.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that the measured process needs."""

    spec: RunSpec
    root: Path
    hashes_path: Path
    shape: tuple[int, ...]
    dtype: str
    classes: int


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception, made fit to travel."""

    phase: Phase
    type: str
    message: str
    trace: str
