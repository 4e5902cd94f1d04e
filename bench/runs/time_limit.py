"""Ending a run that takes too long, from where its progress is heard of."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.contracts.errors import BenchError
from bench.records.learned import EvaluationInfo
from bench.records.record import EpochInfo
from bench.runs.observer import RunProgress


class TimeLimitError(BenchError):
    """A run that took longer than it may."""


class Limited:
    """Progress of one run that passes everything on, and raises what ``over`` makes of ``limit_s`` after that time."""

    def __init__(self, progress: RunProgress, limit_s: float | None, over: Callable[[float], BenchError]) -> None:
        self._progress, self._over = progress, over
        self._limit_s = float("inf") if limit_s is None else limit_s
        self._end = time.monotonic() + self._limit_s

    def note(self, text: str) -> None:
        """Pass a message on."""
        self._progress.note(text)

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Begin a task."""
        self._require_time()
        self._progress.start(label, total, unit)

    def advance(self, count: int) -> None:
        """Pass on how far it is."""
        self._require_time()
        self._progress.advance(count)

    def epoch(self, info: EpochInfo) -> None:
        """Pass a finished epoch on."""
        self._require_time()
        self._progress.epoch(info)

    def evaluated(self, info: EvaluationInfo) -> None:
        """Pass an evaluation on."""
        self._require_time()
        self._progress.evaluated(info)

    def finish(self) -> None:
        """End the task."""
        self._progress.finish()

    def _require_time(self) -> None:
        if time.monotonic() > self._end:
            raise self._over(self._limit_s)


def over_time_limit(limit_s: float) -> TimeLimitError:
    """Return the error of a run that took longer than ``--time-limit``."""
    return TimeLimitError(f"The run was not done after {limit_s:.0f} s, which is its --time-limit.")
