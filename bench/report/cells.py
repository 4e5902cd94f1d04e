"""What stands in a cell of a pivot table: a value with its interval, a ratio to a baseline, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from bench.comparisons.comparison import NO_DIFFERENCE
from bench.comparisons.ranking import Ranking, rank
from bench.records.groups import Group, Work, same_work
from bench.records.metrics import METRICS, Metric, significant
from bench.records.record import RunRecord
from bench.report.arrange import Arrangement
from bench.report.ratios import IMPOSSIBLE, Ratio, impossible
from bench.stats import Interval, Summary

_TELL_DATA = ("loading", "data")
_ALIKE = 0.05
"""By what share of the store's pages in memory runs may differ and still have found the same."""

NEVER = "never measured under these circumstances"


@dataclass(frozen=True, slots=True)
class Cell:
    """What a group measured of a metric. ``reason`` says why there is no value, ``doubt`` what to know of the value."""

    summary: Summary | None = None
    interval: Interval | None = None
    best: bool = False
    reason: str | None = None
    doubt: str | None = None
    ratio: Ratio | None = None

    def text(self, metric: Metric, *, show_n: bool) -> str:
        """Return the median with its interval in brackets, else with the lowest and highest in parentheses."""
        if self.summary is None:
            return "n/a"
        text = significant(self.summary.median, metric.digits)
        if self.summary.n < 2 or self.summary.low == self.summary.high:
            return text
        n = f"; n={self.summary.n}" if show_n else ""
        if self.interval is not None:
            low, high = (significant(end, metric.digits) for end in (self.interval.low, self.interval.high))
            return f"{text} [{low}, {high}{n}]"
        low, high = (significant(end, metric.digits) for end in (self.summary.low, self.summary.high))
        return f"{text} ({low}…{high}{n})"


def cell_of(group: Group, metric: str, failures: Sequence[RunRecord] = ()) -> Cell:
    """Return the value of a group; ``failures`` are runs in the same place that gave no result."""
    summary = group.summary(metric)
    if summary is None:
        return Cell(reason=f"{METRICS[metric].label}: {unknown_reason(group, metric)}")
    if impossible(group, metric):
        return Cell(reason=IMPOSSIBLE)
    doubts = []
    # Who stopped a run says nothing of it, and others were done since or before.
    if own := [record for record in failures if record.status != "interrupted"]:
        runs = len(own) + len(group.records)
        doubts.append(f"{len(own)} of {runs} runs gave no result: {failure_text(own)}")
    if unlike := _unlike_caches(group):
        doubts.append(unlike)
    # What is the same in all runs, because it was measured once for all of them, has no spread to make an interval of.
    interval = group.interval(metric) if summary.low < summary.high else None
    return Cell(summary, interval, doubt="; ".join(doubts) or None)


def _unlike_caches(group: Group) -> str | None:
    """Return what to know of runs that took the page cache as it was, which was not the same for all of them."""
    caches = [record.cache for record in group.records if record.cache.asked == "as-is"]
    found = [cache.resident_before for cache in caches if cache.resident_before is not None]
    if not found or max(found) - min(found) <= _ALIKE:
        return None
    return (
        f"before the epochs that count, {min(found):.0%} to {max(found):.0%} of the store were in memory, "
        "as the page cache was left as it was: use --cache warm or --cache cold"
    )


def unknown_reason(group: Group, metric: str) -> str:
    """Return why a finished run has no value of a metric."""
    if any(metric == name for name in ("ideal_s", "over_ceiling")) and group.first.ideal is None:
        return "the ceiling was not measured"
    if metric.startswith(("vram_", "gpu_")) and group.first.gpu is None:
        return "no GPU was used"
    if metric in {"loss", "accuracy"} and group.first.spec.model == "none":
        return "nothing was trained"
    if metric.startswith("wait_p"):
        return "too few batches for this percentile"
    known = len(group.values(metric))
    if known:
        return f"only {known} of {len(group.counted)} runs have it"
    return "this system does not tell, or the record is older than the metric"


def failure_text(failures: Sequence[RunRecord]) -> str:
    """Return what became of runs without a result, by the last of them, in a line."""
    last = failures[-1]
    message = " ".join(last.error.message.split()) if last.error else "no message"
    return f"{last.status}: {message}".rstrip(".")


def missing_cell(failures: Sequence[RunRecord]) -> Cell:
    """Return a cell that no finished run belongs to."""
    return Cell(reason=failure_text(failures) if failures else NEVER)


@dataclass(frozen=True, slots=True)
class Judged:
    """Which groups, by id, are shown to be the best of their work in a metric, and the rankings of works without.

    ``ranked`` are all works that have several groups, those with a best one too.
    """

    best: frozenset[int]
    undecided: tuple[tuple[Work, Ranking], ...]
    ranked: tuple[Work, ...] = ()

    def is_best(self, group: Group) -> bool:
        """Whether a group is to be marked."""
        return id(group) in self.best


def judge(groups: Sequence[Group], metric: str) -> Judged:
    """Rank the groups of each work, see :mod:`bench.comparisons.ranking`; works of one group have nothing to rank."""
    best, undecided, ranked = set(), [], []
    if METRICS[metric].better == "neither":
        return Judged(frozenset(), ())
    for work in same_work([group for group in groups if not impossible(group, metric)]):
        if len(work.groups) < 2:
            continue
        ranking = rank(work, metric)
        ranked.append(work)
        if ranking.shown and ranking.best is not None:
            best.add(id(ranking.best))
        elif len(ranking.groups) > 1:
            undecided.append((work, ranking))
    return Judged(frozenset(best), tuple(undecided), tuple(ranked))


def undecided_notes(judged: Mapping[str, Judged], arrangement: Arrangement) -> list[str]:
    """Return why no best value is marked in some works of a sheet, a sentence for each reason."""
    places: dict[str, dict[str, list[Place]]] = {}
    for metric, found in judged.items():
        for work, ranking in found.undecided:
            by_metric = places.setdefault(_why(ranking, arrangement), {})
            by_metric.setdefault(METRICS[metric].label.strip(), []).append(_place(work, arrangement))
    everywhere = {_place(work, arrangement) for found in judged.values() for work in found.ranked}
    return [
        f"No best value is marked in {_where(by_metric, everywhere, several=len(judged) > 1)}: {why}."
        for why, by_metric in places.items()
    ]


Place = tuple[str, str]
"""A data set, and what else of the rows and columns tells its runs from others."""


def _where(by_metric: Mapping[str, Sequence[Place]], everywhere: Set[Place], *, several: bool) -> str:
    """Return the metrics and places of a note, as short as they can be told."""
    parts = []
    for metric, places in by_metric.items():
        told = [_shortest(name, places, everywhere) for name in dict.fromkeys(name for name, _ in places)]
        if several:
            parts.append(metric if set(places) == everywhere else f"{metric} ({'; '.join(told)})")
        else:
            parts += told
    return "; ".join(parts)


def _place(work: Work, arrangement: Arrangement) -> Place:
    details = [facet.of(work.first) for facet in arrangement.axes.facets if facet.kind not in _TELL_DATA]
    return arrangement.data_sets.label(work.first), ", ".join(details)


def _shortest(name: str, places: Sequence[Place], everywhere: Set[Place]) -> str:
    details = list(dict.fromkeys(detail for other, detail in places if other == name))
    if len(details) == sum(other == name for other, _ in everywhere):
        return name
    return f"{name}, {' and '.join(details)}"


def _why(ranking: Ranking, arrangement: Arrangement) -> str:
    if ranking.reason != NO_DIFFERENCE:
        return (ranking.reason or NO_DIFFERENCE).rstrip(".")
    best, *others = [arrangement.methods.label(group.first) for group in ranking.no_worse()]
    return f"{best} seems best, and was not shown to differ from {' or '.join(others)}"
