"""A confusion matrix as a picture in SVG, in light and dark. Shades are shares of the samples of the true class."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from bench.report.confusion import Tested

_SIDE, _MARGIN, _FOOT = 720, 16, 62
_LEAST_WIDTH = 440
_SMALLEST, _LARGEST = 4, 44
"""Pixels of a cell, whatever the number of classes."""

_NUMBERED = 25
"""Pixels of a cell from which on its number fits in."""

_LINE, _CHARACTER, _NAME = 13, 6.6, 22
"""Pixels between names of classes and of a letter; letters of a name."""

_SHADES = 5

_TITLE_LINE, _TITLE_CHARACTER, _ABOUT_CHARACTER = 20, 9.8, 7.4
"""Pixels between lines above the picture, and of their letters where the system's font is a wide one (DejaVu Sans)."""

_STYLE = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px } .quiet { fill: #59636e } .number { font-size: 11px }
.cell { fill: #0072b2 } .strong { fill: #ffffff } .frame { fill: none; stroke: #afb8c1 } .back { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .quiet { fill: #9198a1 } .cell { fill: #56b4e9 } .middle, .strong { fill: #0d1117 }
  .frame { stroke: #59636e } .back { fill: #0d1117 }
}"""


def heat_map(found: Tested) -> str:
    """Return an SVG document: a row for each true class, a column for each predicted one.

    Cells hold numbers while there is room for them. Of many classes only some are named, evenly spaced; every cell
    says its classes and number where a pointer is held over it.
    """
    count = len(found.classes)
    cell = min(_LARGEST, max(_SMALLEST, _SIDE // max(1, count)))
    every = -(-_LINE // cell)
    named = range(0, count, every)
    names = [_shortened(name) for name in found.classes]
    space = _CHARACTER * max((len(names[place]) for place in named), default=0) + 8
    left, side = _MARGIN + 18 + space, cell * count
    width = max(left + side + _MARGIN, _LEAST_WIDTH)
    heading = [("title", line) for line in _wrapped(found.title, (width - 2 * _MARGIN) / _TITLE_CHARACTER)]
    heading += [("quiet", line) for line in _wrapped(found.about, (width - 2 * _MARGIN) / _ABOUT_CHARACTER)]
    head = 24 + _TITLE_LINE * len(heading)
    top = head + 16 + space
    height = top + side + _FOOT
    summary = f"Confusion matrix of {count} classes. {found.title}: {found.about}."
    body = [
        *_lines(heading),
        f'<text class="quiet" x="{left + side / 2:.0f}" y="{head + 8}" text-anchor="middle">predicted</text>',
        f'<text class="quiet" text-anchor="middle" transform="translate({_MARGIN + 10} {top + side / 2:.0f}) '
        'rotate(-90)">true</text>',
        *_names(names, named, cell, left, top),
        *_cells(found, cell, left, top),
        f'<rect class="frame" x="{left:.1f}" y="{top:.1f}" width="{side}" height="{side}"/>',
        *_legend(left, top + side + 18),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" role="img" aria-label="{_quoted(summary)}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="back" width="{width:.0f}" height="{height:.0f}" rx="6"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def _wrapped(text: str, letters: float) -> list[str]:
    return textwrap.wrap(text, int(letters), break_on_hyphens=False)


def _lines(heading: Sequence[tuple[str, str]]) -> Iterator[str]:
    for number, (kind, line) in enumerate(heading):
        yield f'<text class="{kind}" x="{_MARGIN}" y="{30 + _TITLE_LINE * number}">{escape(line)}</text>'


def _names(names: Sequence[str], named: range, cell: int, left: float, top: float) -> Iterator[str]:
    for place in named:
        middle = (place + 0.5) * cell
        text = escape(names[place])
        yield f'<text x="{left - 6:.1f}" y="{top + middle + 4:.1f}" text-anchor="end">{text}</text>'
        yield f'<text transform="translate({left + middle + 4:.1f} {top - 6:.1f}) rotate(-90)">{text}</text>'


def _cells(found: Tested, cell: int, left: float, top: float) -> Iterator[str]:
    for true, (row, total) in enumerate(zip(found.counts, found.totals, strict=True)):
        for predicted, count in enumerate(row):
            if not count:
                continue
            share = count / total
            x, y = left + predicted * cell, top + true * cell
            said = f"{found.classes[true]} taken for {found.classes[predicted]}: {count:,} ({share:.1%})"
            yield (
                f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{cell}" height="{cell}" '
                f'fill-opacity="{_opacity(share):.3f}"><title>{escape(said)}</title></rect>'
            )
            if cell >= _NUMBERED and len(str(count)) * 6.4 < cell:
                # Which of two colours is told from the cell's better differs between the themes.
                kind = "number strong" if share > 0.8 else "number middle" if share > 0.62 else "number"
                yield (
                    f'<text class="{kind}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" text-anchor="middle" '
                    f'pointer-events="none">{count}</text>'
                )


def _legend(left: float, y: float) -> Iterator[str]:
    for step in range(_SHADES + 1):
        share = step / _SHADES
        yield (
            f'<rect class="cell" x="{left + 26 * step:.1f}" y="{y:.1f}" width="26" height="10" '
            f'fill-opacity="{_opacity(share) if step else 0:.3f}"/>'
        )
    yield f'<rect class="frame" x="{left:.1f}" y="{y:.1f}" width="{26 * (_SHADES + 1)}" height="10"/>'
    yield f'<text class="quiet" x="{left:.1f}" y="{y + 26:.1f}">0 to 100 % of the samples of the true class</text>'


def _opacity(share: float) -> float:
    """Return how strong a cell is: one of a few samples must not vanish."""
    return 0.1 + 0.9 * share


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _quoted(text: str) -> str:
    return escape(text, {'"': "&quot;"})
