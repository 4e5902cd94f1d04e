r"""Tables in LaTeX: needs ``\usepackage{booktabs}`` and nothing else; compiles with pdflatex, xelatex and lualatex."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from bench.report.marked import HEADING, is_strong, mark_of
from bench.report.tables import Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\`{}",
    '"': "''",
    "…": r"\ldots{}",
    "\u2013": "--",
    "\u2014": "---",
    "°": r"\ensuremath{^\circ}",
    "\u00d7": r"\ensuremath{\times}",
    "µ": r"\ensuremath{\mu}",
    "±": r"\ensuremath{\pm}",
    "ß": r"\ss{}",
    "\u00a0": "~",
}

LONG_WORDS = 40
"""More characters than that are set in several lines."""

_BRACKET = re.compile(r" (?=[(\[])|(?<=:) ")
_LIGATURE = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)")
"""Where fonts would make one sign of two, as a dash of the two hyphens of a flag."""

_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u0327": "c"}


def latex(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return tables as floats, each with its title as caption, and the notes of all of them as a paragraph."""
    parts = ["% Needs \\usepackage{booktabs} in the preamble.", *(_float(table) for table in tables)]
    if notes:
        lines = "\\\\\n".join(escape(note) for note in notes)
        parts.append("\\par\\medskip\\noindent{\\footnotesize\\sloppy\n" + lines + "\\par}")
    return "\n".join(parts) + "\n"


def _float(table: Table) -> str:
    columns = "".join(_column(table, number) for number in range(len(table.columns)))
    lines = ["\\begin{table}[htbp]", "\\centering", f"\\caption{{{escape(table.title)}}}"]
    lines += ["\\footnotesize\\setlength{\\tabcolsep}{3pt}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    lines += [_row(table, HEADING, table.columns), "\\midrule"]
    lines += [_row(table, number, row) for number, row in enumerate(table.rows)]
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par\\smallskip {escape(note)}\\par" for note in table.notes]
    return "\n".join([*lines, "\\end{table}"])


def _column(table: Table, number: int) -> str:
    """Return the kind of a column: numbers, words, or words that need several lines."""
    if number >= table.text_columns:
        return "r"
    longest = max((len(row[number]) for row in table.rows), default=0)
    return "l" if longest <= LONG_WORDS else "p{0.3\\linewidth}"


def _row(table: Table, number: int, cells: Sequence[str]) -> str:
    # The empty group keeps a cell that begins with a bracket from being taken for an option of the \\ before it.
    return "{}" + " & ".join(_cell(table, number, column, cell) for column, cell in enumerate(cells)) + r" \\"


def _cell(table: Table, row: int, column: int, cell: str) -> str:
    # What stands in brackets behind a number goes below it, and so do a method's options: side by side, few columns
    # would fit a page.
    words = column < table.text_columns
    parts = cell.split(" ", 1) if words and column == 0 else [cell] if words else _BRACKET.split(cell)
    lines = [escape(part) for part in parts]
    if is_strong(table, row, column):
        lines = [f"\\textbf{{{line}}}" for line in lines]
    if mark := mark_of(table, row, column):
        lines[0] += f"\\textsuperscript{{{escape(mark)}}}"
    if len(lines) == 1:
        return lines[0]
    small = "".join(f"\\\\{{\\scriptsize {line}}}" for line in lines[1:])
    return f"\\begin{{tabular}}[t]{{@{{}}{'l' if words else 'r'}@{{}}}}{lines[0]}{small}\\end{{tabular}}"


def escape(text: str) -> str:
    """Return a text that LaTeX prints as it is; a character that its standard fonts lack is named by its number."""
    # Each piece apart: what stands for a dash or a quotation mark is to be one.
    pieces = _LIGATURE.split(" ".join(text.split()))
    return "{}".join("".join(map(_character, piece)) for piece in pieces)


def _character(sign: str) -> str:
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    if " " <= sign <= "~":
        return sign
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) == 2 and parts[1] in _ACCENTS and parts[0].isascii() and parts[0].isalpha():
        # An accent takes the place of the dot.
        base = f"\\{parts[0]}" if parts[0] in "ij" else parts[0]
        return f"\\{_ACCENTS[parts[1]]}{{{base}}}"
    return f"\\texttt{{U+{ord(sign):04X}}}"
