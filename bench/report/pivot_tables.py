"""A pivot as tables with marks: a table for each sheet, lone groups together in a last one."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.report.arrange import Arrangement, Axes, Sheet, line_labels, needs_method
from bench.report.cells import Cell, undecided_notes
from bench.report.marked import HEADING, MarkedTable
from bench.report.pivot import Filled, Pivot
from bench.report.ratios import CEILING, is_difference

_SPEAK_FOR_THEMSELVES = {
    "method",
    "backend",
    "dataset",
    "model",
    "device",
    "machine",
    "cpu",
    "gpu",
    "campaign",
    "options",
}
_WORDS = {
    "cache asked": "page cache",
    "cache achieved": "achieved",
    "bench": "bench version",
    "freed memory kept": "freed memory kept",
}


@dataclass(slots=True)
class Marks:
    """Letters for notes, the same letter for the same note, over several tables."""

    letters: dict[str, str] = field(default_factory=dict)

    def of(self, note: str) -> str:
        """Return the letter of a note, a new one for a new note."""
        if note not in self.letters:
            number, letter = len(self.letters) + 1, ""
            while number:
                number, place = divmod(number - 1, 26)
                letter = string.ascii_lowercase[place] + letter
            self.letters[note] = letter
        return self.letters[note]

    def notes(self) -> list[str]:
        """Return the notes, each after its letter."""
        return [f"({letter}) {note[:1].upper()}{note[1:]}." for note, letter in self.letters.items()]


def pivot_tables(pivot: Pivot) -> tuple[list[MarkedTable], Marks]:
    """Return a table for each sheet, and the notes that their marks refer to; lone groups share the last table."""
    marks = Marks()
    show_n = pivot.common_n is None
    tables = [_table(filled, pivot, marks, show_n) for filled in pivot.sheets if not pivot.alone(filled)]
    alone = [filled for filled in pivot.sheets if pivot.alone(filled)]
    return ([*tables, _others(alone, pivot, marks, show_n)] if alone else tables), marks


def differs_text(differs: dict[str, str]) -> str:
    """Return facts by which a table, row or column differs from others, in words."""
    texts = [f"{_WORDS.get(name, name)} {value}" for name, value in differs.items()]
    asked, achieved = differs.get("cache asked"), differs.get("cache achieved")
    if achieved is not None:
        found = achieved.replace("not-achieved", "NOT achieved")
        # What asks for nothing achieves nothing.
        texts = [text for text in texts if not text.startswith(("page cache ", "achieved "))]
        state = asked if found == "none" else ", ".join(part for part in (asked, found) if part)
        texts.append(f"page cache {state or 'as-is'}")
    return ", ".join(texts)


@dataclass(slots=True)
class _Draft:
    """A table being made: rows so far, what stands out in them, and what carries a mark."""

    pivot: Pivot
    marks: Marks
    show_n: bool
    rows: list[list[str]] = field(default_factory=list)
    strong: set[tuple[int, int]] = field(default_factory=set)
    marked: dict[tuple[int, int], str] = field(default_factory=dict)

    def mark(self, row: int, column: int, note: str | None) -> None:
        """Let a place refer to a note, if there is one."""
        if note:
            self.marked[row, column] = self.marks.of(note)

    def add(self, texts: list[str], cell: Cell, metric: str) -> None:
        """Put a value, and its ratio where one was asked for, at the end of the row to come."""
        row = len(self.rows)
        if cell.best:
            self.strong.add((row, len(texts)))
        self.mark(row, len(texts), cell.reason or cell.doubt)
        texts.append(cell.text(METRICS[metric], show_n=self.show_n))
        if self.pivot.baseline is None:
            return
        ratio = None if cell.reason else cell.ratio
        self.mark(row, len(texts), ratio.reason or ratio.doubt if ratio is not None else None)
        texts.append("n/a" if ratio is None else ratio.text)


def _table(filled: Filled, pivot: Pivot, marks: Marks, show_n: bool) -> MarkedTable:
    arrangement, sheet = pivot.arrangement, filled.sheet
    axes, setup = arrangement.axes, arrangement.setup(sheet)
    draft = _Draft(pivot, marks, show_n)
    headings = _row_headings(axes)
    words = len(headings)
    for key, record in sheet.columns.items():
        for metric in pivot.metrics:
            draft.mark(HEADING, len(headings), differs_text(setup.get(key, {})))
            headings += _headings(column_label(record, arrangement), metric, pivot)
    for row, record in sheet.rows.items():
        texts = line_labels(record, axes.rows, axes, arrangement.methods, arrangement.data_sets)
        draft.mark(len(draft.rows), 0, differs_text(setup.get(row, {})))
        for column in sheet.columns:
            for metric in pivot.metrics:
                draft.add(texts, filled.cells[row, column, metric], metric)
        draft.rows.append(texts)
    notes = undecided_notes(filled.judged, arrangement)
    return _made(_title(sheet, pivot), headings, words, draft, notes)


def _made(title: str, headings: list[str], words: int, draft: _Draft, notes: list[str]) -> MarkedTable:
    strong = frozenset(draft.strong)
    return MarkedTable(title, headings, draft.rows, notes, words, strong=strong, marks=draft.marked)


def _row_headings(axes: Axes) -> list[str]:
    return [facet.name for facet in axes.rows] + (["method"] if needs_method(axes.rows, axes) else [])


def column_label(record: RunRecord, arrangement: Arrangement) -> str:
    """Return the heading of a column without its metric."""
    axes = arrangement.axes
    texts = line_labels(record, axes.columns, axes, arrangement.methods, arrangement.data_sets)
    names = [facet.name for facet in axes.columns] + (["method"] if needs_method(axes.columns, axes) else [])
    parts = [
        text if name in _SPEAK_FOR_THEMSELVES else f"{name.replace('_', ' ')} {text}"
        for name, text in zip(names, texts, strict=True)
    ]
    return ", ".join(part for part in parts if part)


def _quantity(metric: str) -> str:
    known = METRICS[metric]
    label = known.label.strip()
    return label if label == known.unit else f"{label}, {known.unit}"


def _headings(label: str, metric: str, pivot: Pivot, *, named: bool = False) -> list[str]:
    value = label if named or len(pivot.metrics) == 1 else f"{label}: {_quantity(metric)}"
    if pivot.baseline is None:
        return [value]
    kind = f"{'difference' if is_difference(metric) else 'ratio'} to {'the ' if pivot.baseline == CEILING else ''}"
    kind += pivot.baseline
    return [value, f"{value}: {kind}"]


def _title(sheet: Sheet, pivot: Pivot) -> str:
    axes = pivot.arrangement.axes
    named = " by ".join(" and ".join(f.name.replace("_", " ") for f in axis) for axis in (axes.rows, axes.columns))
    if len(pivot.metrics) == 1:
        named = f"{_quantity(pivot.metrics[0])}: {named}"
    title = f"{named[:1].upper()}{named[1:]}"
    if axes.of_kind("data") is None and sheet.groups:
        title += f", {pivot.arrangement.data_sets.label(sheet.groups[0].first)}"
    told = differs_text(_without_data(sheet.differs))
    return f"{title} ({told})" if told else title


def _without_data(differs: dict[str, str]) -> dict[str, str]:
    """Leave out facts that the name of the data set tells."""
    told = ("data", "samples", "split", "dtype", "shape", "dataset options", "limit")
    return {name: value for name, value in differs.items() if name not in told}


def _others(alone: Sequence[Filled], pivot: Pivot, marks: Marks, show_n: bool) -> MarkedTable:
    """Return a table of groups that have nothing of the same circumstances beside them."""
    arrangement = pivot.arrangement
    axes, data_sets = arrangement.axes, arrangement.data_sets
    draft = _Draft(pivot, marks, show_n)
    headings = [*_row_headings(axes), " and ".join(facet.name for facet in axes.columns), "circumstances"]
    words = len(headings)
    for metric in pivot.metrics:
        headings += _headings(_quantity(metric), metric, pivot, named=True)
    for filled in alone:
        ((row, column),) = filled.sheet.cells
        record = filled.sheet.groups[0].first
        texts = line_labels(record, axes.rows, axes, arrangement.methods, data_sets)
        texts += [column_label(record, arrangement), differs_text(_without_data(filled.sheet.differs))]
        if axes.of_kind("data") is None:
            texts[-1] = ", ".join(part for part in (data_sets.label(record), texts[-1]) if part)
        for metric in pivot.metrics:
            draft.add(texts, filled.cells[row, column, metric], metric)
        draft.rows.append(texts)
    return _made("Alone under their circumstances", headings, words, draft, [])
