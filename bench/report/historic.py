"""The history of a metric as a table, and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.records.metrics import Metric, significant
from bench.records.record import RunRecord
from bench.regressions.history import Point, Step, Trend
from bench.regressions.segmentation import EFFECT, FEWEST, SEGMENT
from bench.report.tables import Table, cache_text, data_label, machine_text, options_text, run_label, work_text

SAME_AS_LOOP = 0.05
"""A step that the fixed loop took as well, to within so much, is the machine's."""


def history_table(trend: Trend) -> Table:
    """Return one row per point, oldest first, with what changed and any step that begins there."""
    metric = trend.metric
    steps = {step.index: step for step in trend.steps}
    rows = []
    for number, point in enumerate(trend.points):
        changed = changed_versions(trend.points[number - 1], point) if number else ""
        rows.append(
            [
                point.at[:16].replace("T", " "),
                point.revision or "unknown",
                changed,
                str(point.runs),
                significant(point.value, metric.digits),
                "" if point.canary_s is None else significant(1e3 * point.canary_s, 3),
                _step_text(steps[number], metric) if number in steps else "",
            ]
        )
    title = f"{metric.label}, {metric.unit}: {series_name(trend.record)}"
    columns = ["when", "revision", "changed versions", "runs", metric.key, "fixed loop, ms", "step"]
    return Table(title, columns, rows, _notes(trend), text_columns=3)


def series_name(record: RunRecord) -> str:
    """Return what a series is of: backend, reader, options and data."""
    name = " ".join(part for part in (run_label(record), options_text(record)) if part)
    return f"{name} on {data_label(record)}"


def history_data(trends: Sequence[Trend]) -> list[dict[str, Any]]:
    """Return all trends as plain data, for JSON."""
    return [
        {
            "spec_id": trend.record.spec_id,
            "backend": trend.record.spec.backend,
            "options": trend.record.spec.options,
            "dataset": trend.record.spec.dataset,
            "metric": trend.metric.key,
            "unit": trend.metric.unit,
            "points": [asdict(point) for point in trend.points],
            "steps": [asdict(step) for step in trend.steps],
            "enough_points": trend.enough,
        }
        for trend in trends
    ]


def step_sentences(trend: Trend) -> list[str]:
    """Return a sentence for each step, with what changed there and whether the machine changed as much."""
    texts = []
    for step in trend.steps:
        at = trend.points[step.index].at[:10]
        cause = (
            f" There changed: {', '.join(step.changed)}." if step.changed else " No version is known to have changed."
        )
        machine = ""
        if step.canary_ratio is not None and abs(step.canary_ratio - 1) > SAME_AS_LOOP:
            machine = f" A fixed loop took {step.canary_ratio:.2f} times as long, so the machine may be the cause."
        label = f"{run_label(trend.record)}: {trend.metric.label}"
        texts.append(f"{label} from {at} on: {_step_text(step, trend.metric)}.{cause}{machine}")
    return texts


def _step_text(step: Step, metric: Metric) -> str:
    if step.ratio is None:
        before, behind = (significant(value, metric.digits) for value in (step.before, step.behind))
        change = f"from {before} to {behind}"
    else:
        change = f"{step.ratio:.3f} times"
    return f"{change} (p = {significant(step.p, 2)})"


def changed_versions(one: Point, other: Point) -> str:
    """Return the versions at the later of two points that are others than before; those of one alone are left out."""
    names = [n for n in other.versions if n in one.versions and one.versions[n] != other.versions[n]]
    return ", ".join(f"{name} {other.versions[name]}" for name in names)


def _notes(trend: Trend) -> list[str]:
    record = trend.record
    notes = [f"Work: {work_text(record)}; page cache {cache_text(record)}."]
    if not trend.enough:
        notes.append(f"Steps need {FEWEST} points; here are {len(trend.points)}.")
    else:
        notes.append(
            f"Step: ratio of medians behind and before, at least {SEGMENT} points and {EFFECT:.0%} each; binary "
            "segmentation with rank sums. p: by random orders over all places, in which neighbours are as alike as "
            f"they are here between steps, after Holm for {trend.tested} series. Taken for granted: noise that lasts "
            "from one point to the next, as in an AR(1) process, and does not drift."
        )
    notes.append(f"Measured on: {machine_text(record)} (the first run's versions).")
    return notes
