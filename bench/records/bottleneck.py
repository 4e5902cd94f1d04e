"""What a run's own times say of its storage: the waiting for data, and the distance to the ceiling."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.record import EpochInfo, RunRecord
from bench.stats import summarise

NEGLIGIBLE_SHARE = 2.0
"""Percent over the ceiling, or of waiting, below which storage does not hold a training back: timing is no finer."""


def only_waits(record: RunRecord) -> bool:
    """Whether loading costs nothing but waiting: without workers on the CPU, where it and computing take turns."""
    return record.spec.workers == 0 and record.device == "cpu"


def computing_ratio(records: Sequence[RunRecord]) -> float | None:
    """Return how many times as long computing took as in the ceiling's run; None where the ceiling is unknown.

    Changing samples at random is part of it, as it is of the ceiling. Of several equal runs it is the median.
    """
    ratios = [ratio for record in records if (ratio := _computing_ratio(record)) is not None]
    summary = summarise(ratios) if len(ratios) == len(records) else None
    return None if summary is None else summary.median


def _computing_ratio(record: RunRecord) -> float | None:
    computing = summarise([_computing_s(epoch) for epoch in record.measured()])
    if computing is None or record.ideal is None:
        return None
    return computing.median / _computing_s(record.ideal)


def _computing_s(epoch: EpochInfo) -> float:
    return epoch.epoch_s - epoch.wait_s - epoch.copy_s
