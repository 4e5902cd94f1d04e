"""Which cell of a campaign is faster: ratios within blocks, an exact test, and what equal runs differ by.

Runs are reduced to one value each, since the epochs of one process are not independent. Whatever changes slowly on
a machine falls on both runs of a block, so it cancels in their ratio.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from bench.comparisons.campaign import control_name
from bench.comparisons.comparable import ComparisonError, comparable_metric
from bench.records.comparability import LOADING_FIELDS, Difference, differences, require_comparable
from bench.records.metrics import Metric
from bench.records.record import CampaignInfo, RunRecord
from bench.stats import Interval, blocks_needed, bootstrap_interval, holm, median_interval, sign_flip_p, summarise

ALPHA = 0.05
CONFIDENCE = 0.95

Pairs = Literal["baseline", "all"]
Verdict = Literal["faster", "slower", "lower", "higher", "no difference shown"]
"""``faster`` and ``slower`` are said of times and rates, ``lower`` and ``higher`` of anything else."""

NO_DIFFERENCE: Verdict = "no difference shown"

SPEED_UNITS = ("s", "ms", "samples/s", "MB/s")


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell measured: the median over its ``n`` runs, one a block, with the interval of that median.

    ``failed`` counts the blocks in which it gave no value; ``control`` marks the repetition of another cell.
    """

    name: str
    n: int
    failed: int
    median: float | None
    interval: Interval | None
    control: bool = False


@dataclass(frozen=True, slots=True)
class Contrast:
    """One cell against another, over the ``n`` blocks that have a ratio; ``dropped`` counts the others.

    Of these, ``zeros`` are those in which both gave a value, one of which is zero or less and so has no ratio.
    ``ratio`` is cell / baseline, the median of the ratios within blocks; ``interval`` that of the ratio; ``p`` of the
    sign-flip test, ``p_holm`` adjusted for all contrasts of the comparison. ``mean_ratio`` is the geometric mean, which
    that test is of. ``reason`` says why no difference was shown where that is not simply for want of one.
    """

    cell: str
    baseline: str
    n: int
    dropped: int
    zeros: int = 0
    ratio: float | None = None
    mean_ratio: float | None = None
    interval: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: Verdict = NO_DIFFERENCE
    reason: str | None = None

    def shows_better(self, metric: Metric) -> bool:
        """Whether ``cell`` was shown to be better than ``baseline`` in the metric that was compared."""
        return self.verdict in ("faster", "lower" if metric.better == "lower" else "higher")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The cells of a campaign, best first, and the contrasts between them.

    ``noise_floor`` is by how much equal runs may differ here: the end of the control's interval that is further
    from 1, as a share (0.03 is 3 %), None where the control has too few runs. ``runs`` are those that gave a result.
    """

    metric: Metric
    campaign: CampaignInfo
    baseline: str
    cells: tuple[Cell, ...]
    contrasts: tuple[Contrast, ...]
    control: Contrast | None
    noise_floor: float | None
    warnings: tuple[str, ...]
    runs: tuple[RunRecord, ...]

    def with_baseline(self, cell: str) -> Contrast | None:
        """Return the contrast of a cell with the baseline, None for the baseline itself."""
        return next((c for c in self.contrasts if (c.cell, c.baseline) == (cell, self.baseline)), None)


Values = Mapping[str, Mapping[int, float]]
"""By the name of a cell and the number of a block."""

Slots = Mapping[tuple[str, int], RunRecord]
"""Runs, by the same."""


def compare(
    records: Sequence[RunRecord],
    metric: str = "epoch_s",
    baseline: str | None = None,
    *,
    pairs: Pairs = "baseline",
    own: Collection[str] = LOADING_FIELDS,
    anyway: bool = False,
) -> Comparison:
    """Compare the cells of one campaign with ``baseline`` (the cell that has the control), or ``all`` pairs of them.

    A difference is claimed where Holm's p is below 0.05, the interval excludes 1, and the ratio exceeds the noise
    floor. Where a slot was run more than once, the run that started last counts. ``own`` are the fields of the spec
    in which cells may differ; ``anyway`` turns other differences into warnings.

    Raises:
        ComparisonError: not one campaign, an unknown metric or baseline, or nothing left to compare.
        IncomparableError: the runs differ in more than ``own``.
    """
    chosen = comparable_metric(metric)
    campaign = _campaign(records)
    slots = {(_name(r), _place(r).block): r for r in sorted(records, key=lambda r: r.started_at)}
    runs = tuple(record for record in slots.values() if record.status == "ok")
    found = _differences(runs, own)
    if not anyway:
        require_comparable(found)
    names = dict.fromkeys(name for name, _ in slots)
    values: Values = {name: _values(chosen, slots, name) for name in names}
    twins = list(dict.fromkeys(_place(r).cell for r in records if _place(r).control))
    twin = baseline if baseline in twins else next(iter(twins), None)
    cells = _cells(chosen, slots, campaign.blocks, values, set(map(control_name, twins)))
    baseline = known_baseline(baseline or twin, [cell.name for cell in cells if not cell.control])
    control = _contrast(control_name(twin), twin, values, campaign) if twin else None
    floor = _noise_floor(control)
    contrasts = [_contrast(a, b, values, campaign) for a, b in _pairs(cells, baseline, pairs)]
    if not any(contrast.n for contrast in [*contrasts, *([control] if control else [])]):
        raise ComparisonError(
            f"Nothing is left to compare: in no block of campaign {campaign.id} did {baseline} and another cell both "
            f"give a value of {metric} above zero. `bench list runs` shows what became of them."
        )
    return Comparison(
        chosen,
        campaign,
        baseline,
        cells,
        tuple(_judged(contrasts, floor, chosen)),
        _control_judged(control, chosen) if control else None,
        floor,
        tuple(_warnings(control, found)),
        runs,
    )


def _campaign(records: Sequence[RunRecord]) -> CampaignInfo:
    if not records:
        raise ComparisonError("There are no runs to compare. `bench compare` makes some.")
    if any(record.campaign is None for record in records):
        raise ComparisonError(
            "Runs that were not made in blocks cannot be paired, so drift of the machine would count as a difference. "
            "Use `bench compare` to run them again."
        )
    campaigns = {_place(record).id: _place(record) for record in records}
    if len(campaigns) > 1:
        raise ComparisonError(f"These runs are of {len(campaigns)} campaigns: {', '.join(campaigns)}. Choose one.")
    # A campaign can go on with more blocks than it began with.
    return max(map(_place, records), key=lambda place: place.blocks)


def _place(record: RunRecord) -> CampaignInfo:
    assert record.campaign is not None  # noqa: S101 - _campaign has refused others
    return record.campaign


def _name(record: RunRecord) -> str:
    place = _place(record)
    return control_name(place.cell) if place.control else place.cell


def _differences(runs: Sequence[RunRecord], own: Collection[str]) -> list[Difference]:
    found = differences(runs, own)
    known = {difference.name for difference in found}
    for cell in dict.fromkeys(_place(run).cell for run in runs):
        # One cell is one set of options, whatever cells may differ in.
        within = differences([run for run in runs if _place(run).cell == cell], own=())
        found += [replace(d, name=f"{d.name} of {cell}") for d in within if d.name not in known]
    return found


def _values(metric: Metric, slots: Slots, name: str) -> dict[int, float]:
    values = {}
    for (cell, block), record in slots.items():
        summary = metric.of(record) if cell == name and record.status == "ok" else None
        if summary is not None and math.isfinite(summary.median):
            values[block] = summary.median
    return values


def _cells(metric: Metric, slots: Slots, blocks: int, values: Values, controls: Collection[str]) -> tuple[Cell, ...]:
    cells = []
    for name, by_block in values.items():
        found = list(by_block.values())
        # By the metric itself: the median of an even number of rates is not the rate at the median time.
        summary = metric.over([slots[name, block] for block in by_block]) if found else None
        median, interval = summary.median if summary else None, median_interval(found, CONFIDENCE)
        cells.append(Cell(name, len(found), blocks - len(found), median, interval, name in controls))
    sign = -1 if metric.better == "higher" else 1
    cells.sort(key=lambda cell: (cell.median is None, sign * (cell.median or 0), cell.name))
    return tuple(cells)


def known_baseline(name: str | None, cells: Sequence[str]) -> str:
    """Return the name of a cell to compare with, if it is one of the ``cells``. Raises ComparisonError."""
    if name is not None and name in cells:
        return name
    problem = f"There is no cell {name!r}" if name else "These runs have no control, so no cell is the first"
    raise ComparisonError(f"{problem}. Choose as --baseline one of: {', '.join(cells)}.")


def _pairs(cells: Sequence[Cell], baseline: str, pairs: Pairs) -> list[tuple[str, str]]:
    others = [cell.name for cell in cells if not cell.control and cell.name != baseline]
    found = [(name, baseline) for name in others]
    return found + [(b, a) for a, b in combinations(others, 2)] if pairs == "all" else found


def _contrast(cell: str, baseline: str, values: Values, campaign: CampaignInfo) -> Contrast:
    above, below = values.get(cell, {}), values.get(baseline, {})
    both = above.keys() & below.keys()
    # Zero and less have no ratio.
    shared = sorted(block for block in both if above[block] > 0 and below[block] > 0)
    # On the log scale, so that exchanging cell and baseline inverts everything and changes nothing.
    logs = [math.log(above[block] / below[block]) for block in shared]
    summary = summarise(logs)
    contrast = Contrast(cell, baseline, len(shared), campaign.blocks - len(shared), len(both) - len(shared))
    if summary is None:
        return contrast
    import numpy as np

    interval = bootstrap_interval(logs, np.median, CONFIDENCE, campaign.seed)
    if interval is not None:
        interval = Interval(math.exp(interval.low), math.exp(interval.high), interval.coverage)
    p = sign_flip_p(logs, seed=campaign.seed)
    mean = math.exp(math.fsum(logs) / len(logs))
    return replace(contrast, ratio=math.exp(summary.median), mean_ratio=mean, interval=interval, p=p)


def _noise_floor(control: Contrast | None) -> float | None:
    # The reach of the interval, not the control's own ratio: with 8 blocks the latter hardly lowers the rate of false
    # claims, while the former brings it from about 5 % to 1 % (tests/benchmarks/power.py).
    if control is None or control.interval is None or control.n < blocks_needed(1, ALPHA):
        return None
    return max(_distance(control.interval.low), _distance(control.interval.high))


def _distance(ratio: float) -> float:
    return max(ratio, 1 / ratio) - 1


def _judged(contrasts: Sequence[Contrast], floor: float | None, metric: Metric) -> list[Contrast]:
    p_values = [contrast.p for contrast in contrasts if contrast.p is not None]
    adjusted = iter(holm(p_values))
    judged = []
    for contrast in contrasts:
        if contrast.ratio is None:
            why = "there is no block in which both gave a value" + (" above zero" if contrast.zeros else "")
            judged.append(replace(contrast, reason=why))
            continue
        p_holm = next(adjusted)
        reason = _why_not(contrast, contrast.ratio, p_holm, floor, len(p_values))
        shown = p_holm < ALPHA and reason is None
        verdict = _direction(contrast.ratio, metric) if shown else NO_DIFFERENCE
        judged.append(replace(contrast, p_holm=p_holm, verdict=verdict, reason=reason))
    return judged


def _why_not(contrast: Contrast, ratio: float, p_holm: float, floor: float | None, comparisons: int) -> str | None:
    needed = blocks_needed(comparisons, ALPHA)
    if p_holm >= ALPHA:
        if contrast.n >= needed:
            return None
        blocks = "1 block" if contrast.n == 1 else f"{contrast.n} blocks"
        among = "" if comparisons == 1 else f" among {comparisons} comparisons"
        return f"{blocks} cannot show any{among}, {needed} are needed"
    if not _excludes_1(contrast.interval):
        return "its interval includes 1"
    if floor is None:
        return f"the control has fewer than {blocks_needed(1, ALPHA)} blocks, so the noise of equal runs is unknown"
    if _distance(ratio) <= floor:
        return "it is within what equal runs differ by"
    if contrast.mean_ratio is not None and (contrast.mean_ratio < 1) != (ratio < 1):
        return "in a few blocks it is the other way, and by more"
    return None


def _control_judged(control: Contrast, metric: Metric) -> Contrast:
    verdict = _direction(control.ratio, metric) if control.ratio is not None and _differs(control) else NO_DIFFERENCE
    return replace(control, verdict=verdict)


def _differs(control: Contrast) -> bool:
    """Whether equal runs look different: by the same test and interval as any others, which few blocks cannot pass."""
    return control.p is not None and control.p < ALPHA and _excludes_1(control.interval)


def _excludes_1(interval: Interval | None) -> bool:
    return interval is not None and not interval.low <= 1 <= interval.high


def _direction(ratio: float, metric: Metric) -> Verdict:
    if metric.unit not in SPEED_UNITS:
        return "lower" if ratio < 1 else "higher"
    return "faster" if (ratio < 1) == (metric.better == "lower") else "slower"


def _warnings(control: Contrast | None, found: Sequence[Difference]) -> list[str]:
    warnings = []
    if control is not None and control.interval is not None and _differs(control):
        interval = f"{control.interval.low:.3f}…{control.interval.high:.3f}"
        warnings.append(
            f"The control differs from itself: {control.baseline}, run twice in every block, gave a ratio whose "
            f"interval {interval} excludes 1. Chance does that in about 1 of 20 campaigns; otherwise the noise of this "
            "machine is not what the test assumes. Do not trust small differences here, and repeat the comparison."
        )
    if found:
        warnings.append(f"Compared although the runs differ in: {', '.join(map(str, found))}.")
    return warnings
