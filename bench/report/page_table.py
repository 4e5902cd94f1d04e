"""Tables as an HTML page of their own: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.report.marked import HEADING, is_strong, mark_of
from bench.report.tables import Table

_STYLE = """\
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
.scroll { overflow-x: auto; margin: 1.5rem 0 }
table { border-collapse: collapse }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem }
th, td { padding: .25rem .8rem; text-align: left; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
thead th { border-top: 2px solid; border-bottom: 1px solid }
tbody tr:last-child > * { border-bottom: 2px solid }
tbody th { font-weight: normal }
.notes { font-size: .875rem }
sup { line-height: 0 }
"""


def html(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return tables as a page, each with its title as caption, and the notes of all of them below."""
    title = escape(tables[0].title) if tables else "bench"
    listed = "".join(f"<li>{escape(note)}</li>\n" for note in notes)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>\n{_STYLE}</style>\n</head>\n<body>\n{''.join(map(_table, tables))}"
        f'<ul class="notes">\n{listed}</ul>\n</body>\n</html>\n'
    )


def _table(table: Table) -> str:
    heading = "".join(_cell(table, HEADING, number, text) for number, text in enumerate(table.columns))
    rows = "".join(
        f"<tr>{''.join(_cell(table, number, column, text) for column, text in enumerate(row))}</tr>\n"
        for number, row in enumerate(table.rows)
    )
    return (
        f'<div class="scroll"><table>\n<caption>{escape(table.title)}</caption>\n'
        f"<thead><tr>{heading}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
        + "".join(f'<p class="notes">{escape(note)}</p>\n' for note in table.notes)
    )


def _cell(table: Table, row: int, column: int, text: str) -> str:
    shown = escape(text)
    if is_strong(table, row, column):
        shown = f"<strong>{shown}</strong>"
    if mark := mark_of(table, row, column):
        shown += f" <sup>{escape(mark)}</sup>"
    kind = "" if column < table.text_columns else ' class="number"'
    if row == HEADING:
        return f'<th scope="col"{kind}>{shown}</th>'
    return f'<th scope="row">{shown}</th>' if column == 0 and table.text_columns else f"<td{kind}>{shown}</td>"
