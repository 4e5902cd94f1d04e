"""What a run's own times say of its storage: the waiting for data, and the distance to the ceiling."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.metrics import IMPOSSIBLE_SHARE, METRICS
from bench.records.record import EpochInfo, RunRecord
from bench.stats import summarise

NEGLIGIBLE_SHARE = 2.0
"""Percent over the ceiling, or of waiting, below which storage does not hold a training back: timing is no finer."""


def only_waits(record: RunRecord) -> bool:
    """Whether loading costs nothing but waiting: without workers on the CPU, where it and computing take turns."""
    return record.spec.workers == 0 and record.device == "cpu"


def shares_cpu(record: RunRecord) -> bool:
    """Whether workers take CPU time from the training, which the waiting does not show and the ceiling does."""
    return record.spec.workers > 0 and record.device == "cpu"


def possible_over(records: Sequence[RunRecord]) -> float | None:
    """Return the percent over the ceiling of equal runs; None where that is unknown, or impossible by noise."""
    over = METRICS["over_ceiling"].over(records)
    return None if over is None or over.median < -IMPOSSIBLE_SHARE else over.median


def held_back(records: Sequence[RunRecord]) -> bool | None:
    """Return whether storage holds the training of equal runs back; None where that cannot be told.

    It does where the waiting is not negligible. It does not where neither that nor the distance to the ceiling says so.
    Where the distance alone does, storage slowed down the computing, unless the two took turns: then it may have been
    the machine. Where workers share the CPU, nothing can be told without the ceiling.
    """
    wait, over = METRICS["wait_share"].over(records), possible_over(records)
    if wait is None:
        return None
    if wait.median >= NEGLIGIBLE_SHARE:
        return True
    if over is None:
        return None if shares_cpu(records[-1]) else False
    if over < NEGLIGIBLE_SHARE:
        return False
    return None if only_waits(records[-1]) else True


def common_ceiling_s(records: Sequence[RunRecord]) -> float | None:
    """Return the ceiling of all runs of a work, the median of theirs: training from memory knows no format."""
    found = summarise([record.ideal.epoch_s for record in records if record.ideal is not None])
    return None if found is None else found.median


def gain_share(records: Sequence[RunRecord]) -> float | None:
    """Return by what percent of its length storage could shorten an epoch of equal runs at most; None where unknown.

    That is the waiting or, where loading and computing do not merely take turns, the distance to the ceiling if that is
    more: as a share of the epoch, not of the ceiling.
    """
    wait, over = METRICS["wait_share"].over(records), possible_over(records)
    shares = [wait.median] if wait is not None else []
    if over is not None and not only_waits(records[-1]):
        shares.append(share_of_epoch(over))
    return max(shares, default=None)


def share_of_epoch(over: float) -> float:
    """Return what an epoch takes over the ceiling as percent of the epoch; ``over`` is percent of the ceiling."""
    return 100 * over / (100 + over)


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
