"""What one way of storing costs against another: Pareto set, a balanced choice, and when a preparation has repaid."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.comparisons.comparison import NO_DIFFERENCE, Contrast, compare
from bench.comparisons.shared import cell_name, shared_runs
from bench.contracts.errors import BenchError
from bench.records.comparability import LOADING_FIELDS
from bench.records.groups import Group
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.stats import Interval, median_interval, summarise

PARETO_METRICS = ("epoch_s", "store_mb", "peak_pss_mb", "prepare_s")

TOLERANCES = {"store_mb": 0.01, "files": 9.0, "prepare_s": 0.2, "storage_read_mb": 0.1, "read_calls": 1.0}
"""By what share of the best a value may be worse and still counts as equal, where a test of runs would not tell.

Nobody changes a format for 1 % of the disk; up to ten times as many files are about as many; a preparation is timed
once, so its noise is unknown; counters hardly vary between runs, and what they are here for are orders of magnitude.
"""

AS_GOOD_AS_NONE = {"prepare_s": 1.0, "storage_read_mb": 1.0, "read_calls": 100.0}
"""Differences that count for nothing, whatever their share: who waits a second once, or what libraries read anyway."""

UNKNOWN_NOISE = 0.2
"""What is taken for the noise floor where no run was repeated: more than equal runs of a quiet machine differ by."""

BY_CONTROL = "by the control"
BY_RULE = "by rule"


@dataclass(frozen=True, slots=True)
class Noise:
    """By what share, and by how much beside it, values may differ and still count as equal; and how that is known."""

    share: float
    source: str
    slack: float = 0.0

    def reach(self, value: float) -> float:
        """Return the largest value that counts as equal to a smaller one."""
        return value * (1 + self.share) + self.slack


@dataclass(frozen=True, slots=True)
class BreakEven:
    """After how many epochs the ``faster`` of two has repaid what its preparation takes more.

    ``extra_prepare_s`` is not above 0 where it is ahead from the start, and ``epochs`` is 0 then. ``saved_s`` is the
    median of the differences between epochs within blocks, ``interval`` its 95 % interval; ``earliest`` and ``latest``
    follow from that, None where the preparation may never be repaid.
    """

    faster: Group
    slower: Group
    extra_prepare_s: float
    saved_s: float
    interval: Interval
    epochs: int
    earliest: int
    latest: int | None


def noise(groups: Sequence[Group], metric: str) -> Noise:
    """Return by how much values of a metric differ without a reason, by the best that is known of it."""
    if metric in TOLERANCES:
        return Noise(TOLERANCES[metric], BY_RULE, AS_GOOD_AS_NONE.get(metric, 0.0))
    for group in groups:
        runs = shared_runs(group, groups)
        try:
            floor = compare([r for of in runs.values() for r in of], metric, own=LOADING_FIELDS).noise_floor
        except BenchError:
            # No campaign, no control, no value: the spread tells something, then.
            continue
        if floor is not None:
            return Noise(floor, BY_CONTROL)
    spreads = [spread for group in groups if (spread := _spread(group, metric)) is not None]
    if spreads:
        return Noise(max(spreads), "by the spread of equal runs")
    return Noise(UNKNOWN_NOISE, "assumed, as no run was repeated")


def _spread(group: Group, metric: str) -> float | None:
    """Return how far the ends of the median's interval are apart, as a share; of fewer than six runs, the range."""
    found, interval = summarise(group.values(metric)), group.interval(metric)
    if found is None or found.n < 2:
        return None
    low, high = (interval.low, interval.high) if interval is not None else (found.low, found.high)
    return high / low - 1 if low > 0 else None


def values(group: Group, equal: Collection[Group] = (), metrics: Sequence[str] = PARETO_METRICS) -> list[float] | None:
    """Return the medians of a group, None where one is unknown.

    Epochs of the groups in ``equal`` are as good as the shortest among them.
    """
    found = []
    for metric in metrics:
        members = equal if metric == "epoch_s" and group in equal else (group,)
        medians = [summary.median for member in members if (summary := member.summary(metric)) is not None]
        if not medians:
            return None
        found.append(min(medians))
    return found


def pareto(groups: Sequence[Group], floors: Mapping[str, Noise], equal: Collection[Group] = ()) -> list[Group]:
    """Return the groups to which no other one is preferable, of those that have all of ``PARETO_METRICS``.

    One is preferable to another if it is better in one metric by more than the noise, and in none worse by more than
    that. Such preferences can go round in a circle; the members of a circle are all in or all out.
    """
    known = [(group, found) for group in groups if (found := values(group, equal)) is not None]
    noises = [floors[metric] for metric in PARETO_METRICS]
    count = range(len(known))
    beats = [[_preferable(known[a][1], known[b][1], noises) for b in count] for a in count]
    for middle in count:
        for a in count:
            for b in count:
                beats[a][b] = beats[a][b] or (beats[a][middle] and beats[middle][b])
    return [known[b][0] for b in count if all(beats[b][a] or not beats[a][b] for a in count)]


def _preferable(one: Sequence[float], other: Sequence[float], noises: Sequence[Noise]) -> bool:
    triples = list(zip(one, other, noises, strict=True))
    return all(a <= noise.reach(b) for a, b, noise in triples) and any(noise.reach(a) < b for a, b, noise in triples)


def balance(groups: Sequence[Group], epochs: int, equal: Collection[Group] = ()) -> dict[Group, float]:
    """Return by what factor each group is behind the best of each of three, multiplied: the less, the better balanced.

    The three are the time of a training (preparation and ``epochs`` epochs), the store, and the peak RAM. Factors know
    no units, and in a product each weighs the same: twice the disk is as bad as twice the time. Groups of which one
    of the values is unknown are left out.
    """
    costs = {}
    for group in groups:
        if (found := values(group, equal)) is not None:
            epoch_s, store_mb, peak_mb, prepare_s = found
            costs[group] = (prepare_s + epochs * epoch_s, store_mb, peak_mb)
    if not costs:
        return {}
    best = [min(column) for column in zip(*costs.values(), strict=True)]
    return {
        group: math.prod(cost / least if least > 0 else 1.0 for cost, least in zip(own, best, strict=True))
        for group, own in costs.items()
    }


def epoch_contrasts(group: Group, groups: Sequence[Group]) -> dict[Group, Contrast]:
    """Return the contrast of each other group's epoch with that of ``group``, where they ran in the same blocks.

    All of them are adjusted for their number together. Empty where nothing can be compared.
    """
    runs = shared_runs(group, groups)
    if not runs:
        return {}
    names = {member: cell_name(records) for member, records in runs.items()}
    try:
        compared = compare(
            [r for of in runs.values() for r in of], "epoch_s", baseline=names[group], own=LOADING_FIELDS
        )
    except BenchError:
        return {}
    return {member: contrast for member, name in names.items() if (contrast := compared.with_baseline(name))}


def break_evens(group: Group, contrasts: Mapping[Group, Contrast]) -> list[BreakEven]:
    """Return the break-even points of a group with each of others where a difference between epochs was shown.

    ``contrasts`` are those of the others with the group, see :func:`epoch_contrasts`.
    """
    found = []
    for other, contrast in contrasts.items():
        if contrast.verdict == NO_DIFFERENCE:
            continue
        pair = (group, other) if contrast.verdict == "slower" else (other, group)
        if (point := _break_even(*pair)) is not None:
            found.append(point)
    return found


def _break_even(faster: Group, slower: Group) -> BreakEven | None:
    prepared = faster.summary("prepare_s"), slower.summary("prepare_s")
    saved = _saved_by_block_s(faster, slower)
    middle, interval = summarise(saved), median_interval(saved)
    if prepared[0] is None or prepared[1] is None or middle is None or interval is None or middle.median <= 0:
        return None
    extra_s = prepared[0].median - prepared[1].median

    def after(saved_s: float) -> int:
        return max(0, math.ceil(extra_s / saved_s))

    return BreakEven(
        faster,
        slower,
        extra_s,
        middle.median,
        interval,
        after(middle.median),
        after(interval.high),
        # Where it may be slower in truth, only a lead from the start is safe, and not for ever.
        after(interval.low) if interval.low > 0 else None,
    )


def _saved_by_block_s(faster: Group, slower: Group) -> list[float]:
    one, other = (_by_block(group, shared_runs(faster, (faster, slower))) for group in (faster, slower))
    return [other[block] - one[block] for block in sorted(one.keys() & other.keys())]


def _by_block(group: Group, runs: Mapping[Group, Sequence[RunRecord]]) -> dict[int, float]:
    found = {}
    # Where a block was done again, the last run counts, as in comparisons.
    for record in sorted(runs.get(group, ()), key=lambda record: record.started_at):
        summary = METRICS["epoch_s"].of(record)
        if summary is not None and record.campaign is not None and not record.campaign.control:
            found[record.campaign.block] = summary.median
    return found
