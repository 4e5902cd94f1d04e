"""Works as a picture: bars of a metric in SVG, which code hosts show in documents, in light and dark.

Text is told as text, and lengths are true: every bar begins at zero.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.comparisons.ranking import rank
from bench.contracts.errors import BenchError
from bench.records.bottleneck import common_ceiling_s
from bench.records.facets import cache_words
from bench.records.groups import Group, Work
from bench.records.metrics import METRICS, significant
from bench.report.distinctions import distinctions
from bench.report.labels import DataSets, Methods
from bench.report.tables import caches_text

_WIDTH, _MARGIN, _ROW, _BAR, _LINE, _GAP = 860, 16, 24, 14, 18, 22
_LINE_CHARACTERS = 130
_CHARACTER = 6.9
_VALUE_WIDTH = 150
_WHISKER = ("halo", "whisker")

_STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px } .quiet { fill: #59636e; font-size: 12px }
.bar { fill: #0072b2 } .best { fill: #009e73 }
.whisker { stroke: #1f2328; stroke-width: 1.2 } .halo { stroke: #ffffff; stroke-width: 3 }
.ceiling { stroke: #d55e00; stroke-width: 1.5; stroke-dasharray: 4 3 } .axis { stroke: #d1d9e0 }
.back { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .quiet { fill: #9198a1 } .bar { fill: #56b4e9 } .best { fill: #2ec48c }
  .whisker { stroke: #f0f6fc } .halo { stroke: #0d1117 } .axis { stroke: #3d444d } .back { fill: #0d1117 }
}"""


class ChartError(BenchError):
    """A metric of which there is no picture."""


@dataclass(frozen=True, slots=True)
class _Bar:
    """One method: its value, the interval or the spread, and whether it was shown to be the best."""

    label: str
    value: float
    low: float
    high: float
    best: bool


@dataclass(frozen=True, slots=True)
class _Panel:
    """One work: a heading, what else tells it from others, bars, and where the ceiling lies."""

    title: str
    notes: list[str]
    bars: list[_Bar]
    ceiling: float | None
    controls: int

    @property
    def head(self) -> int:
        """How far below the panel's top its bars begin."""
        return 16 + _LINE * (1 + len(self.notes))

    @property
    def longest(self) -> float:
        """What the whole width stands for."""
        return max([*(max(bar.value, bar.high) for bar in self.bars), self.ceiling or 0.0])


def require_drawable(metric: str) -> None:
    """Raise ChartError for what is no metric."""
    if metric not in METRICS:
        raise ChartError(f"--metric {metric}: there is no such metric. Choose from: {', '.join(METRICS)}.")


def drawable(works: Sequence[Work], metric: str) -> list[Work]:
    """Return the works that have the metric, those with most methods first."""
    # Sorting is stable: works with as many methods stay in their order.
    having = [work for work in works if any(group.summary(metric) is not None for group in work.groups)]
    return sorted(having, key=lambda work: -len(work.groups))


def chart(works: Sequence[Work], metric: str, most: int = 6) -> str:
    """Return an SVG document with a panel for each work that has the metric, the first ``most`` of :func:`drawable`.

    Whiskers are the 95 % interval of the median over six runs or more, else the lowest and the highest. A bar is
    marked as the best only where that was shown, see :mod:`bench.comparisons.ranking`. Runs that repeat a method as a
    control are left out of bars, so that each has the runs of its blocks, as in a comparison. The dashed line is the
    ceiling: the same training from batches in memory.
    """
    chosen = drawable(works, metric)[:most]
    records = [record for work in chosen for record in work.records]
    methods, datasets = Methods(records), DataSets(records)
    panels = [_panel(work, metric, methods, datasets) for work in chosen]
    names = [f"{p.title} {_facts_text(w)} {cache_words(w.first)}" for p, w in zip(panels, chosen, strict=True)]
    for panel, words in zip(panels, distinctions(chosen, names), strict=True):
        panel.notes.extend(textwrap.wrap(", ".join(words), _LINE_CHARACTERS))
    longest = max((len(bar.label) for panel in panels for bar in panel.bars), default=0)
    left = _MARGIN + min(340, longest * _CHARACTER) + 8
    top = _MARGIN
    body = []
    for panel in panels:
        body.append(_drawn(panel, METRICS[metric].unit, METRICS[metric].digits, left, top))
        top += panel.head + _ROW * len(panel.bars) + _GAP
    legend = textwrap.wrap(_legend(panels), _LINE_CHARACTERS)
    height = top + 2 + _LINE * len(legend)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img" aria-label="{_quoted(_summary(panels, metric))}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="back" width="{_WIDTH}" height="{height}" rx="6"/>',
            *body,
            *(_quiet(line, top + 6 + _LINE * number) for number, line in enumerate(legend)),
            "</svg>",
            "",
        ]
    )


def _legend(panels: Sequence[_Panel]) -> str:
    text = (
        "Bars: median. Whiskers: 95 % interval of the median, or lowest…highest of fewer than six runs. "
        "Green: shown to be the best."
    )
    if any(panel.ceiling is not None for panel in panels):
        text += " Dashed: the ceiling, the same training from batches in memory; a bar short of it is noise."
    if controls := sum(panel.controls for panel in panels):
        text += (
            f" {controls} {'run that repeats' if controls == 1 else 'runs that repeat'} a method as a control left out."
        )
    if len({panel.longest for panel in panels}) > 1:
        text += " Each panel has a scale of its own."
    return text


def _facts_text(work: Work) -> str:
    first = work.first
    count = f"{first.data.count:,} samples, " if first.data else ""
    return f"{count}batch {first.spec.batch_size}, {first.device or first.spec.device}"


def _panel(work: Work, metric: str, methods: Methods, datasets: DataSets) -> _Panel:
    ranking = rank(work, metric)
    best = ranking.best if ranking.shown else None
    bars = [_bar(group, metric, methods, best=group is best) for group in ranking.groups]
    # A ranking goes by blocks where those say otherwise than the medians.
    sign = -1 if METRICS[metric].better == "higher" else 1
    bars.sort(key=lambda bar: (not bar.best, sign * bar.value))
    first = work.first
    training = "loading alone" if first.spec.model == "none" else f"training {first.spec.model}"
    runs = sorted({len(group.counted) for group in work.groups})
    often = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    often += " run each" if runs == [1] else " runs each"
    note = f"{_facts_text(work)}, cache {caches_text(work.records)}, {often}"
    title = f"{datasets.label(first)}, {training}: {METRICS[metric].label}, {METRICS[metric].unit}"
    ceiling = common_ceiling_s(work.records) if metric == "epoch_s" else None
    controls = sum(len(group.records) - len(group.counted) for group in work.groups)
    return _Panel(title, [note], bars, ceiling, controls)


def _bar(group: Group, metric: str, methods: Methods, *, best: bool) -> _Bar:
    summary, interval = group.summary(metric), group.interval(metric)
    assert summary is not None  # noqa: S101  # only groups that have it are ranked
    low, high = (summary.low, summary.high) if interval is None else (interval.low, interval.high)
    return _Bar(methods.label(group.first), summary.median, low, high, best)


def _drawn(panel: _Panel, unit: str, digits: int, left: float, top: float) -> str:
    longest = panel.longest
    room = _WIDTH - _MARGIN - _VALUE_WIDTH - left

    def x(value: float) -> float:
        return left + (room * max(0.0, value) / longest if longest > 0 and math.isfinite(longest) else 0.0)

    lines = [
        f'<text class="title" x="{_MARGIN}" y="{top + 14:.0f}">{escape(panel.title)}</text>',
        *(_quiet(note, top + 32 + _LINE * number) for number, note in enumerate(panel.notes)),
    ]
    y = top + panel.head
    for bar in panel.bars:
        middle = y + _BAR / 2
        lines += [
            f'<text x="{left - 8:.1f}" y="{middle + 4.5:.1f}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{"best" if bar.best else "bar"}" x="{left:.1f}" y="{y:.1f}" '
            f'width="{x(bar.value) - left:.1f}" height="{_BAR}" rx="2"/>',
            *(f'<path class="{kind}" d="M{x(bar.low):.1f} {middle:.1f}H{x(bar.high):.1f}"/>' for kind in _WHISKER),
            f'<text class="quiet" x="{max(x(bar.high), x(bar.value)) + 6:.1f}" y="{middle + 4.5:.1f}">'
            f"{escape(significant(bar.value, digits))} {escape(unit)}</text>",
        ]
        y += _ROW
    lines.append(f'<path class="axis" d="M{left:.1f} {top + panel.head - 6}V{y:.1f}"/>')
    if panel.ceiling is not None:
        at = x(panel.ceiling)
        lines += [
            f'<path class="ceiling" d="M{at:.1f} {top + panel.head - 6}V{y:.1f}"/>',
            f'<text class="quiet" x="{at + 4:.1f}" y="{y + 8:.1f}">ceiling</text>',
        ]
    return "\n".join(lines)


def _quiet(text: str, y: float) -> str:
    return f'<text class="quiet" x="{_MARGIN}" y="{y:.0f}">{escape(text)}</text>'


def _summary(panels: Sequence[_Panel], metric: str) -> str:
    digits = METRICS[metric].digits
    told = []
    for panel in panels:
        values = ", ".join(f"{bar.label} {significant(bar.value, digits)}" for bar in panel.bars)
        told.append(f"{panel.title}, {', '.join(panel.notes)}: {values}.")
    return " ".join(told)


def _quoted(text: str) -> str:
    return escape(text, {'"': "&quot;"})
