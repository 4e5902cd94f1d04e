"""Tables in the syntax of a terminal or of Markdown."""

from __future__ import annotations

import io

from bench.report.tables import Table


def terminal(table: Table, *, width: int, colour: bool) -> str:
    """Return the table for a terminal of ``width`` columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None)
    drawn = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(table.columns):
        drawn.add_column(Text(heading), justify="left" if number < table.text_columns else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def markdown(table: Table) -> str:
    """Return the table as GitHub-flavoured Markdown, with its notes as paragraphs."""
    rule = ["---" if number < table.text_columns else "--:" for number in range(len(table.columns))]
    lines = [_row(table.columns), "|" + "|".join(rule) + "|", *(_row(row) for row in table.rows)]
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in table.notes)


def _row(cells: list[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for cell in cells)
    return "| " + " | ".join(escaped) + " |"
