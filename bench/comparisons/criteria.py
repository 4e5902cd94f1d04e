"""The order of groups by several criteria: each orders what those before it left tied, by what was shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bench.comparisons.comparison import NO_DIFFERENCE, Contrast
from bench.comparisons.ranking import Ranking, rank
from bench.comparisons.tradeoffs import BY_CONTROL, TOLERANCES, Noise, noise
from bench.records.bottleneck import held_back
from bench.records.groups import Group, Work
from bench.stats import blocks_needed


@dataclass(frozen=True, slots=True)
class Step:
    """How a criterion divided groups: ``tied`` are the best and what was not told apart from it, by value.

    ``shown`` is whether the best was shown to be better than each other one, ``reason`` why not. Of those in ``worse``,
    the ``seems`` were not shown to be: their runs could not show anything, but they differ by more than the noise.
    """

    metric: str
    tied: tuple[Group, ...]
    worse: tuple[Group, ...]
    shown: bool
    reason: str | None
    seems: tuple[Group, ...] = ()


def order(groups: Sequence[Group], criteria: Sequence[str], free: Collection[Group]) -> tuple[list[Group], list[Step]]:
    """Return the groups in order, and how it came about: each criterion orders what those before it left tied."""
    if len(groups) < 2 or not criteria:
        return list(groups), []
    step = _step(groups, criteria[0], free)
    if not step.tied:
        # Nobody has the metric, so it decides nothing.
        found, steps = order(groups, criteria[1:], free)
        return found, [step, *steps]
    found, steps = order(step.tied, criteria[1:], free)
    unknown = [group for group in groups if group not in step.tied and group not in step.worse]
    return [*found, *step.worse, *unknown], [step, *steps]


def _step(groups: Sequence[Group], metric: str, free: Collection[Group]) -> Step:
    if metric == "storage_read_mb" and not all(_verified_cold(group) for group in groups):
        return Step(metric, (), (), shown=False, reason="the page cache was not shown to be cold, so it hides them")
    if metric in TOLERANCES:
        return _by_rule(groups, metric)
    ranking = rank(Work(tuple(groups)), metric)
    if ranking.best is None:
        return Step(metric, (), (), shown=False, reason="it was not measured")
    seems = _seem_worse(ranking, metric, free if metric == "epoch_s" else ())
    equal = set(ranking.no_worse()) - seems
    if metric == "epoch_s" and equal & set(free):
        equal |= set(free)
    tied = tuple(group for group in ranking.groups if group in equal)
    worse = tuple(group for group in ranking.groups if group not in equal)
    shown = ranking.shown and len(tied) == 1
    reason = "the others are as fast as training from memory, too" if ranking.shown and not shown else ranking.reason
    return Step(metric, tied, worse, shown, reason, tuple(group for group in worse if group in seems))


def _seem_worse(ranking: Ranking, metric: str, free: Collection[Group]) -> set[Group]:
    """Return the groups that runs could not show to be worse than the best, but that differ by more than noise.

    Runs can show something if they are paired, enough, and the noise of equal runs is known. Where the best is as fast
    as training from memory, what storage holds back seems worse, too.
    """
    best = ranking.groups[0]
    held = {group for group in ranking.groups if held_back(group.counted)} if best in free else set()
    floor = noise(ranking.groups, metric)
    value = median(best, metric) or 0.0
    seems = set()
    for group in ranking.groups[1:]:
        contrast = ranking.contrasts.get(group)
        if contrast is not None and (contrast.verdict != NO_DIFFERENCE or _could_show(contrast, ranking, floor)):
            continue
        own = median(group, metric)
        low, high = sorted((value, own if own is not None else value))
        if high > floor.reach(low) or group in held:
            seems.add(group)
    return seems


def _could_show(contrast: Contrast, ranking: Ranking, floor: Noise) -> bool:
    return contrast.n >= blocks_needed(len(ranking.contrasts)) and floor.source == BY_CONTROL


def _verified_cold(group: Group) -> bool:
    return all(r.cache.asked == "cold" and r.cache.achieved == "verified" for r in group.records)


def _by_rule(groups: Sequence[Group], metric: str) -> Step:
    known = [(value, group) for group in groups if (value := median(group, metric)) is not None]
    known.sort(key=lambda item: item[0])
    if not known:
        return Step(metric, (), (), shown=False, reason="it was not measured")
    most = noise(groups, metric).reach(known[0][0])
    tied = tuple(group for value, group in known if value <= most)
    worse = tuple(group for value, group in known if value > most)
    single = len(tied) == 1 and bool(worse)
    # A preparation is timed once: a difference is seen, and not shown.
    shown = single and metric != "prepare_s"
    reason = "it was timed once for each" if single and not shown else None if shown else "others are about equal"
    return Step(metric, tied, worse, shown, reason)


def median(group: Group, metric: str) -> float | None:
    """Return the median of a metric over the runs of a group, None where it is unknown."""
    summary = group.summary(metric)
    return None if summary is None else summary.median
