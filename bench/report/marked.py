"""A table in which cells may stand out and carry marks of notes."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.report.tables import Table

HEADING = -1
"""The row of a mark that belongs to the heading of a column."""


@dataclass(frozen=True, slots=True)
class MarkedTable(Table):
    """A table whose ``strong`` cells stand out, and whose ``marks`` refer to notes, both by (row, column)."""

    strong: frozenset[tuple[int, int]] = frozenset()
    marks: dict[tuple[int, int], str] = field(default_factory=dict)


def is_strong(table: Table, row: int, column: int) -> bool:
    """Whether a cell is to stand out."""
    return isinstance(table, MarkedTable) and (row, column) in table.strong


def mark_of(table: Table, row: int, column: int) -> str:
    """Return the mark of a cell or, with row HEADING, of a heading; nothing where there is none."""
    return table.marks.get((row, column), "") if isinstance(table, MarkedTable) else ""
