"""A comparison as a table and as sentences."""

from __future__ import annotations

import statistics

from bench.comparisons.comparison import ALPHA, NO_DIFFERENCE, SPEED_UNITS, Cell, Comparison, Contrast, Verdict
from bench.records.bottleneck import possible_over
from bench.records.metrics import Metric, significant
from bench.report.in_common import data_notes, doubt_notes, machine_notes, synthetic_notes, work_notes
from bench.report.labels import DataSets, Methods
from bench.report.lossy import lossy_note
from bench.report.ratios import decimals
from bench.report.tables import Table, data_label, shuffle_text
from bench.stats import Interval


def compared_table(comparison: Comparison) -> Table:
    """Return one row per cell, best first and the control last, with how to read it, and any warning, as notes."""
    metric = comparison.metric
    columns = [
        "backend",
        f"{metric.label}, {metric.unit}",
        f"ratio to {comparison.baseline}",
        "p (Holm)",
        "verdict",
    ]
    rows = [_row(cell, comparison) for cell in comparison.cells if not cell.control]
    rows += [_control_row(cell, comparison.control, metric) for cell in comparison.cells if cell.control]
    data = ", ".join(dict.fromkeys(data_label(run) for run in comparison.runs))
    return Table(f"Compared on {data}: {metric.label}", columns, rows, _notes(comparison))


def sentences(comparison: Comparison) -> list[str]:
    """Return what the comparison says of each pair, a sentence each; of a single cell, how far equal runs differ."""
    if not comparison.contrasts:
        return [f"{comparison.baseline} has nothing to be compared with. {_floor(comparison)}{_within(comparison)}"]
    return [*(_sentence(contrast, comparison) for contrast in comparison.contrasts), *_ceiling(comparison)]


def _row(cell: Cell, comparison: Comparison) -> list[str]:
    if cell.name == comparison.baseline:
        return [cell.name, _value(cell, comparison.metric), "1", "", "baseline"]
    contrast = comparison.with_baseline(cell.name)
    return [cell.name, _value(cell, comparison.metric), *_judgement(contrast, contrast.p_holm if contrast else None)]


def _control_row(cell: Cell, control: Contrast | None, metric: Metric) -> list[str]:
    ratio, p, verdict = _judgement(control, control.p if control else None)
    own = f"{ratio} of {control.baseline}" if control and control.ratio is not None else ratio
    return [f"control: {cell.name}", _value(cell, metric), own, f"{p} alone" if control and control.p else p, verdict]


def _judgement(contrast: Contrast | None, p: float | None) -> list[str]:
    if contrast is None or contrast.ratio is None:
        return ["n/a", "n/a", NO_DIFFERENCE]
    ratio = _number(contrast.ratio, contrast.interval)
    if contrast.interval is not None:
        ratio += f" ({_span(contrast.interval)})"
    return [ratio, "n/a" if p is None else significant(p, 2), contrast.verdict]


def _value(cell: Cell, metric: Metric) -> str:
    if cell.median is None:
        return f"n/a (n=0, {cell.failed} failed)"
    text = significant(cell.median, metric.digits)
    span = ""
    if cell.interval is not None:
        low, high = (significant(end, metric.digits) for end in (cell.interval.low, cell.interval.high))
        span = f"{low}…{high}, "
    return f"{text} ({span}n={cell.n})"


def _notes(comparison: Comparison) -> list[str]:
    campaign = comparison.campaign
    notes = [f"WARNING: {warning}" for warning in comparison.warnings]
    notes += synthetic_notes(comparison.runs)
    lossy = lossy_note((run.campaign.cell, run) for run in comparison.runs if run.campaign is not None)
    notes += [lossy] if lossy else []
    notes += [_how_to_read(comparison)]
    order = "each cell once and the control per block, in random order"
    notes.append(f"{_count(campaign.blocks, 'block')}, {order} (seed {campaign.seed}). {_floor(comparison)}")
    notes += _dropped(comparison)
    notes += [
        f"{contrast.cell} and {contrast.baseline}: {contrast.reason}."
        for contrast in comparison.contrasts
        if contrast.reason
    ]
    caches = dict.fromkeys(
        f"{run.cache.asked}" + ("" if run.cache.asked == "as-is" else f", {run.cache.achieved or 'unknown'}")
        for run in comparison.runs
    )
    notes.append(f"Page cache: {' or '.join(caches)}.")
    runs = comparison.runs
    orders = dict.fromkeys(shuffle_text(run) or "full" for run in runs)
    notes += [f"Order of samples: {' or '.join(orders)}."] if len(orders) > 1 else []
    notes += [f"The same in all cells: {Methods(runs).common()}."]
    notes += work_notes(runs) + data_notes(runs, DataSets(runs)) + machine_notes(runs)
    return notes + doubt_notes([runs])


def _how_to_read(comparison: Comparison) -> str:
    words = "Faster or slower" if comparison.metric.unit in SPEED_UNITS else "Lower or higher"
    comparisons = _count(len(comparison.contrasts), "comparison")
    return (
        "Value: median over the runs, one fresh process a block, each reduced to the median of its counted epochs "
        "(interval that covers the median at least 95 % of the time, from 6 runs on; n runs). Ratio: cell / "
        f"{comparison.baseline}, median of the ratios within blocks (95 % bootstrap interval over blocks, which is "
        "somewhat too narrow with few of them: with 8 it covers about 92 %). p: exact sign-flip test on the logarithms "
        f"of the ratios, adjusted by Holm for {comparisons}. {words} is said only where p is below {ALPHA}, the "
        "interval excludes 1, the ratio exceeds the noise floor, and their mean agrees; no difference shown "
        "does not mean that there is none."
    )


def _floor(comparison: Comparison) -> str:
    if comparison.noise_floor is None:
        return "The control has too few runs, so the noise floor is unknown and no difference can be shown."
    return f"Noise floor: {_equal_runs(comparison.noise_floor)}."


def _within(comparison: Comparison) -> str:
    """How far apart the two equal runs of a block were, for who has nothing else to compare."""
    by_block: dict[int, list[float]] = {}
    for run in comparison.runs:
        found = comparison.metric.of(run)
        if run.campaign is not None and found is not None and found.median > 0:
            by_block.setdefault(run.campaign.block, []).append(found.median)
    apart = [max(pair) / min(pair) - 1 for pair in by_block.values() if len(pair) > 1]
    if not apart:
        return ""
    middle = _percent(statistics.median(apart))
    return f" Two equal runs of a block were {middle} apart (median), at most {_percent(max(apart))}."


def _dropped(comparison: Comparison) -> list[str]:
    failed = [
        f"{cell.name} in {cell.failed} of {_count(comparison.campaign.blocks, 'block')}"
        for cell in comparison.cells
        if cell.failed
    ]
    notes = [f"No value, so the ratios leave these blocks out: {', '.join(failed)}."] if failed else []
    control = [comparison.control] if comparison.control else []
    return notes + [
        f"{contrast.cell} and {contrast.baseline}: {_zeros(contrast)}."
        for contrast in [*comparison.contrasts, *control]
        if contrast.zeros
    ]


def _zeros(contrast: Contrast) -> str:
    left = f"the ratio is of {_count(contrast.n, 'block')} alone" if contrast.n else "there is no ratio"
    return f"{left}, as one of the values is zero in {_count(contrast.zeros, 'block')}"


def _sentence(contrast: Contrast, comparison: Comparison) -> str:
    a, b, metric = contrast.cell, contrast.baseline, comparison.metric
    blocks = _count(contrast.n, "block")
    if contrast.ratio is None:
        return f"{a} and {b}: {contrast.verdict} ({contrast.reason})."
    ratio = _number(contrast.ratio, contrast.interval)
    span = _span(contrast.interval) if contrast.interval else "interval unknown"
    if contrast.verdict == NO_DIFFERENCE:
        floor = comparison.noise_floor
        why = [f"ratio {ratio}, {span}", "noise of equal runs unknown" if floor is None else _equal_runs(floor)]
        why += [contrast.reason] if contrast.reason else []
        why += [_zeros(contrast)] if contrast.zeros else []
        return f"{a} and {b}: {contrast.verdict} ({'; '.join(why)})."
    evidence = f"(95 % interval {span}, p = {significant(contrast.p_holm or 0, 2)} after Holm, {blocks}"
    evidence += f"; {_zeros(contrast)})" if contrast.zeros else ")"
    return f"{_claim(a, b, contrast.verdict, ratio, metric)} {evidence}."


def _ceiling(comparison: Comparison) -> list[str]:
    """How far each cell is from its own ceiling, where that is known and possible: one sentence or none."""
    texts = []
    for cell in comparison.cells:
        runs = [run for run in comparison.runs if run.campaign and run.campaign.cell == cell.name]
        own = [run for run in runs if run.campaign and not run.campaign.control]
        if not cell.control and own and (over := possible_over(own)) is not None:
            texts.append(f"{cell.name} {significant(over, 2)} %")
    if not texts:
        return []
    return [f"Over the ceiling, training from memory, an epoch took: {', '.join(texts)}."]


def _claim(cell: str, baseline: str, verdict: Verdict, ratio: str, metric: Metric) -> str:
    if verdict in ("faster", "slower"):
        return f"{cell} is {verdict} than {baseline}: {ratio} times its {metric.label}"
    return f"{cell} has a {verdict} value than {baseline} in {metric.label}: {ratio} times"


def _equal_runs(floor: float) -> str:
    return f"the median ratio of equal runs may be off by up to {_percent(floor)} here"


def _percent(share: float) -> str:
    return f"{significant(100 * share, 2 if share < 0.1 else 0)} %"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _span(interval: Interval) -> str:
    return f"{_number(interval.low, interval)}…{_number(interval.high, interval)}"


def _number(ratio: float, interval: Interval | None) -> str:
    return f"{ratio:,.{decimals(ratio, interval)}f}"
