"""Records as rows and columns of choice: values, ratios to a baseline, and which best one was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.records.facets import Facet
from bench.records.groups import Group
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.report.arrange import Arrangement, Axes, Sheet, arrange
from bench.report.cells import Cell, Judged, cell_of, judge, missing_cell
from bench.report.labels import Key
from bench.report.ratios import PivotError, ratios, require_baseline


@dataclass(frozen=True, slots=True)
class Filled:
    """A sheet with its values by row, column and metric, and what was judged of each metric."""

    sheet: Sheet
    cells: dict[tuple[Key, Key, str], Cell]
    judged: dict[str, Judged]


@dataclass(frozen=True, slots=True)
class Pivot:
    """All that a table is made of: sheets with most groups first, and what was asked for."""

    arrangement: Arrangement
    metrics: tuple[str, ...]
    baseline: str | None
    sheets: tuple[Filled, ...]

    @property
    def groups(self) -> list[Group]:
        """All groups of all sheets."""
        return [group for filled in self.sheets for group in filled.sheet.groups]

    @property
    def common_n(self) -> int | None:
        """The number of values of all cells that have several, None where it differs."""
        summaries = [cell.summary for filled in self.sheets for cell in filled.cells.values()]
        counts = {summary.n for summary in summaries if summary is not None and summary.n > 1}
        return counts.pop() if len(counts) == 1 else None

    def alone(self, filled: Filled) -> bool:
        """Whether a sheet holds but one group, while others hold several: not worth a table of its own."""
        return len(self.sheets) > 1 and _lone(filled) and not all(_lone(other) for other in self.sheets)


def _lone(filled: Filled) -> bool:
    return len(filled.sheet.cells) == 1 and not filled.sheet.failures


def make_pivot(
    records: Sequence[RunRecord],
    rows: Sequence[Facet],
    columns: Sequence[Facet],
    metrics: Sequence[str],
    baseline: str | None = None,
) -> Pivot:
    """Arrange records and compute all values. Raises PivotError."""
    _require_axes(rows, columns)
    for key in metrics:
        if key not in METRICS:
            raise PivotError(f"--metric {key}: there is no such metric. Choose from: {', '.join(METRICS)}.")
        if metrics.count(key) > 1:
            raise PivotError(f"--metric {key} is given twice. Once is enough.")
    if not any(record.status == "ok" for record in records):
        raise PivotError(
            f"None of the {len(records)} runs chosen gave a result. `bench list runs` shows what became of them."
        )
    arrangement = arrange(records, Axes(tuple(rows), tuple(columns)))
    if baseline is not None:
        firsts = [group.first for sheet in arrangement.sheets for group in sheet.groups]
        require_baseline(baseline, metrics, firsts, arrangement.methods)
    filled = tuple(_fill(sheet, arrangement, metrics, baseline) for sheet in arrangement.sheets)
    return Pivot(arrangement, tuple(metrics), baseline, filled)


def _require_axes(rows: Sequence[Facet], columns: Sequence[Facet]) -> None:
    names = [facet.name for facet in (*rows, *columns)]
    if not rows or not columns:
        raise PivotError("A table needs --rows and --columns. For example: --rows method --columns dataset.")
    for name in names:
        if names.count(name) > 1:
            raise PivotError(f"{name} cannot be both a row and a column. Choose another for one of them.")
    if "status" in names:
        raise PivotError("status is no row or column: cells hold finished runs. Use --where status=failed, or --each.")


def _fill(sheet: Sheet, arrangement: Arrangement, metrics: Sequence[str], baseline: str | None) -> Filled:
    cells: dict[tuple[Key, Key, str], Cell] = {}
    judged: dict[str, Judged] = {}
    for metric in metrics:
        found = judged[metric] = judge(sheet.groups, metric)
        relative = ratios(sheet.groups, metric, baseline, arrangement.methods) if baseline is not None else {}
        for row in sheet.rows:
            for column in sheet.columns:
                failures = sheet.failures.get((row, column), [])
                group = sheet.cells.get((row, column))
                if group is None:
                    cells[row, column, metric] = missing_cell(failures)
                    continue
                cell = cell_of(group, metric, failures)
                cell = replace(cell, best=cell.summary is not None and found.is_best(group))
                cells[row, column, metric] = replace(cell, ratio=relative.get(id(group)))
    return Filled(sheet, cells, judged)
