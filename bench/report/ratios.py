"""How values compare with a baseline, a method or the ceiling: tested within blocks, or plain and marked as such."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.comparisons.comparable import comparable_metric
from bench.comparisons.comparison import NO_DIFFERENCE, Contrast, compare
from bench.comparisons.ranking import EXACT_METRICS
from bench.comparisons.shared import cell_name, shared_runs
from bench.contracts.errors import BenchError
from bench.records.comparability import LOADING_FIELDS
from bench.records.facets import used_options, word
from bench.records.groups import Group, Work, same_work
from bench.records.metrics import IMPOSSIBLE_SHARE, METRICS, significant
from bench.records.record import RunRecord
from bench.report.labels import Methods, order
from bench.stats import Interval

CEILING = "ceiling"
BASELINE = "baseline"
IMPOSSIBLE = (
    "epochs seemed faster than the ceiling, which no format can be: the machine was disturbed while one of them ran"
)


class PivotError(BenchError):
    """A table that cannot be made as it was asked for."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A value relative to that of the baseline: a ratio, or where ``points`` is set a difference in the unit.

    ``interval`` is of runs in the same blocks, which makes it ``tested``; what does not vary needs no test.
    ``verdict`` is what the comparison says, ``doubt`` why it shows no difference, ``reason`` why there is no value.
    """

    value: float | None = None
    points: bool = False
    interval: Interval | None = None
    tested: bool = False
    verdict: str | None = None
    doubt: str | None = None
    reason: str | None = None

    @property
    def text(self) -> str:
        """The ratio with its interval; ``~`` marks one that is not tested."""
        if self.value is None:
            return "n/a"
        if self.verdict == BASELINE:
            return "0" if self.points else "1"
        if self.points:
            return f"~{significant(self.value, 3)}" if self.value <= 0 else f"~+{significant(self.value, 3)}"
        digits = decimals(self.value, self.interval)
        if self.interval is not None:
            span = f" [{self.interval.low:,.{digits}f}, {self.interval.high:,.{digits}f}]"
            return f"{'' if self.tested else '~'}{self.value:,.{digits}f}x{span}"
        return f"{'' if self.tested else '~'}{self.value:,.{digits}f}x"


def require_baseline(baseline: str, metrics: Sequence[str], records: Sequence[RunRecord], methods: Methods) -> None:
    """Raise PivotError where a baseline makes no sense for the metrics, or is no method of the records."""
    if baseline == CEILING:
        if set(metrics) != {"epoch_s"}:
            raise PivotError("--baseline ceiling goes with --metric epoch_s alone: the ceiling is an epoch's time.")
        return
    if not any(_is_method(record, baseline, methods) for record in records):
        known = ", ".join(sorted({methods.label(record) for record in records}, key=order))
        raise PivotError(f"--baseline {baseline}: there is no such method. Choose {CEILING} or one of: {known}.")


def ratios(groups: Sequence[Group], metric: str, baseline: str, methods: Methods) -> dict[int, Ratio]:
    """Return the ratio of each group to the baseline of its work, by the group's id. Raises PivotError."""
    if baseline == CEILING:
        return {id(group): _to_ceiling(group) for group in groups}
    found: dict[int, Ratio] = {}
    for work in same_work(groups):
        own = _chosen(work, baseline, methods)
        contrasts = Contrasts(work, metric)
        for group in work.groups:
            if not own:
                found[id(group)] = Ratio(
                    reason=f"the baseline {baseline} was not measured under the same circumstances"
                )
            elif group is own[0]:
                points = is_difference(metric)
                found[id(group)] = Ratio(0.0 if points else 1.0, points, tested=True, verdict=BASELINE)
            else:
                found[id(group)] = _to_group(group, own[0], metric, contrasts)
    return found


def _chosen(work: Work, baseline: str, methods: Methods) -> list[Group]:
    """Return the group that a baseline names, if any; what a table calls a method is that one, whatever else fits."""
    fitting = [group for group in work.groups if _is_method(group.first, baseline, methods)]
    labels = [methods.label(group.first) for group in fitting]
    if labels.count(baseline) == 1:
        return [fitting[labels.index(baseline)]]
    if len(fitting) < 2:
        return fitting
    own = next((label for label in labels if labels.count(label) == 1), "")
    quoted = f'"{own}"' if " " in own else own
    hint = f" Say which by more of its words, such as {quoted}." if own else ""
    raise PivotError(f"--baseline {baseline} fits {len(fitting)} methods: {'; '.join(labels)}.{hint}")


def _is_method(record: RunRecord, name: str, methods: Methods) -> bool:
    """Whether all words of a name fit a method: ``zarr``, ``zarr[mapped] chunk=16``, or what a table calls it."""
    if name == methods.label(record):
        return True
    spec, used = record.spec, used_options(record)
    words = {spec.backend, _named_reader(record), f"workers={spec.workers}"}
    for options in (used, spec.options):
        words |= {f"{key}={word(value)}" for key, value in options.items()}
    return bool(name.split()) and set(name.split()) <= words


def _named_reader(record: RunRecord) -> str:
    return f"{record.spec.backend}[{word(used_options(record).get('reader'))}]"


def _to_ceiling(group: Group) -> Ratio:
    over = group.summary("over_ceiling")
    if over is None:
        return Ratio(reason="the ceiling was not measured")
    if impossible(group, "over_ceiling"):
        return Ratio(reason=IMPOSSIBLE)
    interval = group.interval("over_ceiling")
    if interval is not None:
        interval = Interval(1 + interval.low / 100, 1 + interval.high / 100, interval.coverage)
    return Ratio(1 + over.median / 100, interval=interval, tested=interval is not None)


def _to_group(group: Group, baseline: Group, metric: str, contrasts: Contrasts) -> Ratio:
    above, below = group.summary(metric), baseline.summary(metric)
    if above is None or below is None:
        return Ratio(reason=f"{METRICS[metric].label} is unknown of one of the two")
    if impossible(baseline, metric):
        return Ratio(reason=f"baseline: {IMPOSSIBLE}")
    if is_difference(metric):
        return Ratio(above.median - below.median, points=True)
    contrast = contrasts.between(group, baseline)
    if contrast is not None and contrast.ratio is not None:
        doubt = None
        if contrast.verdict == NO_DIFFERENCE:
            doubt = NO_DIFFERENCE + (f": {contrast.reason}" if contrast.reason else "")
        return Ratio(contrast.ratio, interval=contrast.interval, tested=True, verdict=contrast.verdict, doubt=doubt)
    if above.median <= 0 or below.median <= 0:
        return Ratio(reason="a value of zero or less has no ratio")
    return Ratio(above.median / below.median, tested=metric in EXACT_METRICS)


def impossible(group: Group, metric: str) -> bool:
    """Whether a value over the ceiling cannot be."""
    summary = group.summary(metric) if metric == "over_ceiling" else None
    return summary is not None and summary.median < -IMPOSSIBLE_SHARE


def is_difference(metric: str) -> bool:
    """Whether a metric is compared by differences: the ratio of two percentages or temperatures says little."""
    unit = METRICS[metric].unit
    return unit.startswith("%") or unit == "°C"


class Contrasts:
    """The contrasts of a work's groups with one of them, within the campaigns that they took part in."""

    def __init__(self, work: Work, metric: str) -> None:
        self._work, self._metric = work, metric
        self._known: dict[str, dict[str, Contrast]] = {}

    def between(self, group: Group, baseline: Group) -> Contrast | None:
        """Return the contrast within the newest campaign of both; None where there is none, or nothing to be had."""
        shared = shared_runs(baseline, (group, baseline))
        if not shared:
            return None
        (campaign,) = {record.campaign.id for runs in shared.values() for record in runs if record.campaign}
        if campaign not in self._known:
            self._known[campaign] = self._within(campaign, cell_name(shared[baseline]))
        return self._known[campaign].get(cell_name(shared[group]))

    def _within(self, campaign: str, baseline: str) -> dict[str, Contrast]:
        runs = [record for record in self._work.records if record.campaign and record.campaign.id == campaign]
        try:
            comparable_metric(self._metric)
            compared = compare(runs, self._metric, baseline, own=LOADING_FIELDS)
        except BenchError:
            # Nothing can be tested; plain ratios remain, and are marked as such.
            return {}
        return {contrast.cell: contrast for contrast in compared.contrasts}


def decimals(ratio: float, interval: Interval | None) -> int:
    """Return with how many decimals to write a ratio and its interval.

    They are 2, or up to 4 where the interval is too narrow for them, or an end of it would seem to be 1 and is not. The
    smallest of the numbers has two significant digits, up to 6 decimals: 4 of 10,000 read calls are not 0.00 of them.
    """
    found, smallest = 2, ratio
    if interval is not None:
        width, smallest = interval.high - interval.low, min(ratio, interval.low)
        found = min(4, max(2, -math.floor(math.log10(width)))) if width > 0 else 2
        while found < 4 and 1.0 in {round(end, found) for end in (interval.low, interval.high) if end != 1}:
            found += 1
    return max(found, min(6, 1 - math.floor(math.log10(smallest)))) if smallest > 0 else found
