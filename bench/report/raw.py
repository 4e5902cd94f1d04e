"""A pivot as raw numbers for other programs: CSV with a line for each group, JSON with every fact of it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from bench.records.facets import FACETS
from bench.records.groups import Group
from bench.records.metrics import METRICS, Metric
from bench.records.record import RunRecord
from bench.report.cells import Cell, failure_text
from bench.report.pivot import Filled, Pivot
from bench.report.pivot_tables import differs_text

JSON_VERSION = 1
_VALUES = ("median", "lowest", "highest", "n", "interval_low", "interval_high")
_RATIOS = ("ratio", "ratio_low", "ratio_high", "difference", "ratio_tested", "ratio_verdict", "ratio_missing")


def to_csv(pivot: Pivot) -> str:
    """Return a line for each group, and for each failed run that stands for none, with all facts and numbers."""
    lines = [_flat(entry) for entry in _entries(pivot)]
    columns = dict.fromkeys(name for line in lines for name in line)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def to_json(pivot: Pivot, notes: Sequence[str]) -> str:
    """Return the pivot as JSON: what was asked, notes, and a list of cells with their facts and values."""
    axes = pivot.arrangement.axes
    content = {
        "version": JSON_VERSION,
        "rows": [facet.name for facet in axes.rows],
        "columns": [facet.name for facet in axes.columns],
        "baseline": pivot.baseline,
        "metrics": {
            key: {"label": m.label.strip(), "unit": m.unit, "better": m.better}
            for key, m in ((key, METRICS[key]) for key in pivot.metrics)
        },
        "notes": list(notes),
        "cells": list(_entries(pivot)),
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False, ensure_ascii=False)


def _entries(pivot: Pivot) -> list[dict[str, Any]]:
    entries = []
    for number, filled in enumerate(pivot.sheets, 1):
        for (row, column), group in filled.sheet.cells.items():
            failures = filled.sheet.failures.get((row, column), [])
            values = {key: _value(filled.cells[row, column, key]) for key in pivot.metrics}
            entries.append(_entry(number, filled, group.first, pivot) | _runs(group, failures) | {"values": values})
        for place, failures in filled.sheet.failures.items():
            if place not in filled.sheet.cells:
                entries.append(_entry(number, filled, failures[-1], pivot) | _failed(failures, pivot))
    entries += [_entry(None, None, record, pivot) | _failed([record], pivot) for record in pivot.arrangement.unplaced]
    return entries


def _entry(number: int | None, filled: Filled | None, record: RunRecord, pivot: Pivot) -> dict[str, Any]:
    """Return the place of an entry and every fact of its first run."""
    arrangement, spec = pivot.arrangement, record.spec
    facts = {name: facet.of(record) for name, facet in FACETS.items() if facet.name not in {"campaign", "revision"}}
    known = {name: getattr(spec, name) for name in ("workers", "batch_size", "epochs", "seed", "prefetch")}
    data = record.data
    return {
        "table": number,
        "circumstances": differs_text(filled.sheet.differs) if filled is not None else "",
        "method_label": arrangement.methods.label(record),
        "facts": facts
        | known
        | {"samples": data.count if data else None, "data_digest": data.digest if data else None}
        | {"data_option": spec.dataset_options, "option": record.store.options if record.store else spec.options}
        | {"option_asked": spec.options, "version": record.environment.get("libraries") or {}},
    }


def _runs(group: Group, failures: Sequence[RunRecord]) -> dict[str, Any]:
    campaigns = dict.fromkeys(record.campaign.id for record in group.records if record.campaign)
    revisions = dict.fromkeys(str(record.environment.get("git_revision")) for record in group.records)
    return {
        "runs": len(group.counted),
        "failed_runs": len(failures),
        "counted_epochs_per_run": len(group.first.measured()),
        "campaigns": list(campaigns),
        "revisions": list(revisions),
        "started_at": [record.started_at for record in group.counted],
        "warnings": sorted({warning.kind for record in group.records for warning in record.warnings}),
        "missing": failure_text(failures) if failures else None,
    }


def _failed(failures: Sequence[RunRecord], pivot: Pivot) -> dict[str, Any]:
    reason = failure_text(failures)
    values = {key: _value(Cell(reason=reason)) for key in pivot.metrics}
    return {"runs": 0, "failed_runs": len(failures), "missing": reason, "values": values}


def _value(cell: Cell) -> dict[str, Any]:
    summary, interval, ratio = cell.summary, cell.interval, cell.ratio
    value: dict[str, Any] = dict.fromkeys(_VALUES)
    if summary is not None:
        value |= {"median": summary.median, "lowest": summary.low, "highest": summary.high, "n": summary.n}
    if interval is not None:
        value |= {"interval_low": interval.low, "interval_high": interval.high}
    value |= {"best_shown": cell.best, "missing": cell.reason}
    if ratio is not None:
        value |= dict.fromkeys(_RATIOS)
        value |= {"difference" if ratio.points else "ratio": ratio.value}
        value |= {"ratio_tested": ratio.tested, "ratio_verdict": ratio.verdict, "ratio_missing": ratio.reason}
        if ratio.interval is not None:
            value |= {"ratio_low": ratio.interval.low, "ratio_high": ratio.interval.high}
    return value


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry as one line: nested names joined by dots, the unit of a number behind its name."""
    line: dict[str, Any] = {}
    for name, value in entry.items():
        if name == "facts":
            for fact, known in value.items():
                line |= {f"{fact}.{k}": v for k, v in known.items()} if isinstance(known, dict) else {fact: known}
        elif name == "values":
            for key, parts in value.items():
                line |= {_column(METRICS[key], part): number for part, number in parts.items()}
        else:
            line[name] = " ".join(map(str, value)) if isinstance(value, list) else value
    return {name: "" if value is None else value for name, value in line.items()}


def _column(metric: Metric, part: str) -> str:
    """Return a heading such as ``epoch_s.median [s]``; what is no quantity of the metric has no unit."""
    return (
        f"{metric.key}.{part} [{metric.unit}]" if part in {*_VALUES, "difference"} - {"n"} else f"{metric.key}.{part}"
    )


def _finite(value: Any) -> Any:
    """Return JSON-able content in which numbers that JSON lacks are words, as in records."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value
