"""What the page shows of metrics over time and revisions, where equal work was measured at several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.page.labels import unique
from bench.page.methods import number
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.regressions.history import Point, Trend, equal_work, spans, trends_of
from bench.regressions.segmentation import FEWEST
from bench.report.historic import changed_versions, series_name, step_sentences
from bench.report.tables import cache_text, machine_text, work_text
from bench.specs.spec import content_hash

FOLLOWED = ("epoch_s", "wait_share", "peak_pss_mb", "storage_read_mb", "read_calls", "prepare_s")

SERIES = 60
"""So many are shown, those of most points: looking for steps takes a while in each."""


def past(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return the series of equal work that were measured on several days, or by several revisions or versions.

    Each with the points of each followed metric, oldest first, and the steps in them; ``more`` counts those left out.
    """
    sets = [runs for runs in equal_work(records) if spans(runs, METRICS["epoch_s"])]
    sets.sort(key=len, reverse=True)
    shown = sets[:SERIES]
    names = [", ".join([series_name(runs[0]), runs[0].spec.model]) for runs in shown]
    labels = unique(names, [f"no. {place + 1}" for place in range(len(names))])
    trends = {key: trends_of(shown, METRICS[key]) for key in FOLLOWED}
    series = []
    for place, (runs, label) in enumerate(zip(shown, labels, strict=True)):
        record = runs[0]
        series.append(
            {
                "id": content_hash(label)[:10],
                "label": label,
                "about": f"{work_text(record)}; page cache {cache_text(record)}. First run on {machine_text(record)}.",
                "metrics": {key: _metric(found) for key in FOLLOWED if (found := trends[key][place]) is not None},
            }
        )
    return {"series": series, "more": len(sets) - len(shown)}


def _metric(trend: Trend) -> dict[str, Any]:
    before = [None, *trend.points]
    return {
        "points": [_point(earlier, point) for earlier, point in zip(before, trend.points, strict=False)],
        "steps": [[step.index, number(step.ratio), number(step.before), number(step.behind)] for step in trend.steps],
        "texts": step_sentences(trend) or [_no_step(trend)],
    }


def _point(earlier: Point | None, point: Point) -> dict[str, Any]:
    return {
        "at": point.at[:16].replace("T", " "),
        "v": number(point.value),
        "runs": point.runs,
        "revision": point.revision or "unknown",
        "changed": changed_versions(earlier, point) if earlier else "",
        "loop": None if point.canary_s is None else number(1e3 * point.canary_s),
    }


def _no_step(trend: Trend) -> str:
    if trend.enough:
        return "No step is shown."
    return f"Steps can be shown from {FEWEST} points on; here are {len(trend.points)}."
