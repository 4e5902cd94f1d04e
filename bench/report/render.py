"""Tables in the syntax of a terminal or of Markdown; what stands out is bold, or has a star where nothing can be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from bench.report.marked import HEADING, is_strong, mark_of
from bench.report.tables import Table


def terminal(table: Table, *, width: int, colour: bool) -> str:
    """Return the table for a terminal of ``width`` columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    def cell(row: int, column: int, text: str) -> Text:
        mark = mark_of(table, row, column)
        strong = is_strong(table, row, column)
        shown = f"* {text}" if strong and not colour else text
        return Text(shown + (f" ({mark})" if mark else ""), style="bold" if strong else "")

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None)
    drawn = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(table.columns):
        drawn.add_column(
            cell(HEADING, number, heading), justify="left" if number < table.text_columns else "right", overflow="fold"
        )
    for number, row in enumerate(table.rows):
        drawn.add_row(*(cell(number, column, text) for column, text in enumerate(row)))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def markdown(table: Table) -> str:
    """Return the table as GitHub-flavoured Markdown, with its notes as paragraphs."""
    rule = ["---" if number < table.text_columns else "--:" for number in range(len(table.columns))]
    rows = [_row(table, number, row) for number, row in enumerate(table.rows)]
    lines = [_row(table, HEADING, table.columns), "|" + "|".join(rule) + "|", *rows]
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in table.notes)


def markdown_all(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return several tables as Markdown, each below its title, with the notes of all of them as a list at the end."""
    safe = [replace(table, notes=[_markdown_text(note) for note in table.notes]) for table in tables]
    parts = [f"**{_markdown_text(table.title)}**\n\n{markdown(table)}" for table in safe]
    return "\n".join([*parts, "".join(f"- {_markdown_text(note)}\n" for note in notes)])


def _row(table: Table, number: int, cells: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown_cell(table, number, column, cell) for column, cell in enumerate(cells)) + " |"


def _markdown_cell(table: Table, row: int, column: int, cell: str) -> str:
    text = cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
    if is_strong(table, row, column):
        text = f"**{text}**"
    mark = mark_of(table, row, column)
    return f"{text} <sup>{mark}</sup>" if mark else text


def _markdown_text(text: str) -> str:
    """Return running text in which nothing is taken for markup."""
    escaped = "".join(f"\\{sign}" if sign in "\\*_[]|" else sign for sign in text.replace("\n", " "))
    # A tilde strikes out, a bracket opens a tag: neither has an escape that all renderers know.
    return escaped.replace("<", "&lt;").replace("~", "&#126;")
