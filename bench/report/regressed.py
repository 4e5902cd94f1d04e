"""What became worse since a baseline: as a table, as sentences, and as a summary for a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.comparisons.comparison import ALPHA
from bench.records.metrics import significant
from bench.records.record import RunRecord
from bench.regressions.baseline import Baseline, Measured
from bench.regressions.drifted import Circumstances
from bench.regressions.held import MEMORY_EFFECT
from bench.regressions.regression import Finding
from bench.regressions.yardsticks import AS_MEASURED
from bench.report import render
from bench.report.tables import Table, data_label, machine_text, work_text

_DISTURBANCES = frozenset({"cpu-speed", "cpu-steal", "other-processes", "stood-still"})

SUMMARY_BEGINS = "### bench regress"
"""The first words of every summary."""


@dataclass(frozen=True, slots=True)
class Regressed:
    """All that a rerun of a baseline found. ``effect`` is the least slow-down that counts."""

    baseline: Baseline
    now: tuple[Measured, ...]
    findings: tuple[Finding, ...]
    around: Circumstances
    failed: Mapping[str, str]
    """Cells with runs that gave no result, and why the first of them did not."""

    effect: float

    @property
    def worse(self) -> tuple[Finding, ...]:
        """The regressions."""
        return tuple(finding for finding in self.findings if finding.worse)


def regressed_table(found: Regressed) -> Table:
    """Return one row per metric and cell, with how to read it as notes."""
    columns = ["cell", "metric", "baseline", "today", "unit", "ratio", "p (Holm)", "held", "verdict"]
    rows = [_row(finding) for finding in found.findings]
    first = found.baseline.runs[0].record
    title = f"Since baseline {found.baseline.name} of {found.baseline.made_at[:10]}: {data_label(first)}"
    return Table(title, columns, rows, _notes(found), text_columns=2)


def sentences(found: Regressed) -> list[str]:
    """Return the result in words: every regression, every improvement, or that none was shown."""
    texts = [_sentence(finding) for finding in found.findings if finding.worse]
    if not texts:
        texts = [f"No regression was shown against {found.baseline.name}."]
    texts += [_sentence(finding) for finding in found.findings if finding.verdict in ("faster", "less")]
    unheld = dict.fromkeys(
        f"{finding.metric.label}: {finding.reason}"
        for finding in found.findings
        if finding.verdict == "not held" and finding.reason != found.around.times_not_held
    )
    if found.around.times_not_held:
        texts.append(f"Times were NOT held: {found.around.times_not_held}.{'' if unheld else ' Counters were.'}")
    if unheld:
        texts.append(f"Not held: {'; '.join(unheld)}.")
    texts += [f"{cell} gave no result in {_failed_share(found, cell)}: {why}" for cell, why in found.failed.items()]
    return texts + _disturbed(found)


def _disturbed(found: Regressed) -> list[str]:
    """What to know of runs that shared their processors: they wait for them, whatever the code does."""
    told = []
    for side, runs in (("the baseline", found.baseline.runs), ("today", found.now)):
        marked = [run for run in runs if any(warning.kind in _DISTURBANCES for warning in run.record.warnings)]
        if 2 * len(marked) > len(runs):
            told.append(f"{len(marked)} of {len(runs)} runs of {side}")
    if not told:
        return []
    return [
        f"Other work disturbed the machine in {' and '.join(told)}: what is said of times may come from that, and what "
        "is not said may be hidden by it. Measure again on a quiet machine."
    ]


def _failed_share(found: Regressed, cell: str) -> str:
    states = [run.record.status for run in found.now if run.cell == cell]
    return f"{sum(state != 'ok' for state in states)} of {len(states)} runs"


def summary(found: Regressed) -> str:
    """Return Markdown for a pull request: the verdict as a heading, the sentences, the table folded away."""
    worse = len({(finding.cell, finding.metric.key) for finding in found.worse})
    heading = "no regression shown" if not worse else f"{worse} regression{'s' if worse > 1 else ''}"
    table = render.markdown(regressed_table(found))
    lines = [f"{SUMMARY_BEGINS} {found.baseline.name}: {heading}", ""]
    lines += [f"- {sentence}" for sentence in sentences(found)]
    lines += ["", "<details><summary>All metrics</summary>", "", table, "</details>", ""]
    return "\n".join(lines)


def _row(finding: Finding) -> list[str]:
    ratio = "" if finding.ratio is None else f"{finding.ratio:.3f}"
    if finding.interval is not None:
        ratio += f" ({finding.interval.low:.3f}…{finding.interval.high:.3f})"
    by_ratio = "ratio" if finding.ratio is not None else "ranks" if finding.p is not None else ""
    held = "exactly" if finding.held_exactly else finding.by or by_ratio
    return [
        finding.cell,
        finding.metric.label,
        _value(finding, finding.before, finding.n[0]),
        _value(finding, finding.now, finding.n[1]),
        finding.metric.unit,
        ratio,
        "" if finding.p_holm is None else significant(finding.p_holm, 2),
        f"per {held}" if held in ("copy", "decode", "loop") else held,
        finding.verdict + (f" ({finding.reason})" if finding.reason and finding.verdict != "not held" else ""),
    ]


def _value(finding: Finding, value: float | None, n: int) -> str:
    if value is None:
        return "n/a"
    if finding.held_exactly:
        # All digits: it is exact.
        return f"{value:,.6f}".rstrip("0").rstrip(".")
    return f"{significant(value, finding.metric.digits)} (n={n})"


def _sentence(finding: Finding) -> str:
    what = f"{finding.cell}: {finding.metric.label}"
    if finding.held_exactly:
        values = (
            f"{_value(finding, finding.now, 0)} {finding.metric.unit} instead of {_value(finding, finding.before, 0)}"
        )
        return f"{what} is {finding.verdict}: {values}, held exactly."
    p = significant(finding.p_holm or 0.0, 2)
    if finding.ratio is None:
        before, now = (significant(value or 0.0, finding.metric.digits) for value in (finding.before, finding.now))
        return f"{what} is {finding.verdict}: {now} {finding.metric.unit} instead of {before} (p = {p} after Holm)."
    interval = finding.interval
    span = f"{interval.low:.3f}…{interval.high:.3f}" if interval else "unknown"
    per = "" if finding.by is None else f" {finding.by}" if finding.by == AS_MEASURED else f" per {finding.by}"
    return f"{what} is {finding.verdict}: {finding.ratio:.3f} times{per} (95 % interval {span}, p = {p} after Holm)."


def _notes(found: Regressed) -> list[str]:
    around, first = found.around, found.baseline.runs[0].record
    notes = [f"WARNING: times were not held: {around.times_not_held}."] if around.times_not_held else []
    speeds = ", ".join(f"{task} {factor:.3f}" for task, factor in around.speeds.items())
    notes.append(f"The machine's speed, time today over then in fixed tasks before and after each run: {speeds}.")
    dropped = [task for task in around.speeds if task not in around.tasks]
    notes += [f"Not used, as what does them has another version: {', '.join(dropped)}."] if dropped else []
    if around.versions:
        notes.append(f"Differs since then, and may be the cause: {', '.join(map(str, around.versions))}.")
    tested = sum(finding.p is not None for finding in found.findings)
    notes.append(
        "Values: medians of runs, one fresh process each. Ratio: today over the baseline, by the calibration that "
        "explains runs of one day best, or as measured (95 % bootstrap interval). p: exact rank-sum test, the largest "
        f"over all calibrations in question, adjusted by Holm for {tested} findings. Slower or more is said only where "
        f"p is below {ALPHA}, the interval excludes 1, and the ratio exceeds {found.effect:.0%} (times; "
        f"{MEMORY_EFFECT:.0%} for amounts) and what equal runs differed by, under each calibration in question, or, "
        f"where the other cells took as long as then within {found.effect:.0%}, as measured and beside them. Counters "
        "that are equal in equal runs are held exactly. Where one day has nothing but zero, p alone decides. No change "
        "shown does not mean that there is none."
    )
    floors = [f.floor for f in found.findings if f.floor is not None and f.metric.key == "epoch_s"]
    if floors:
        notes.append(f"Equal runs of one day differed by up to {max(floors):.1%} in their epochs.")
    notes.append(f"Work: {work_text(first)}.")
    notes.append(f"Measured on: {machine_text(_last(found.now) or first)}.")
    return notes


def _last(runs: Sequence[Measured]) -> RunRecord | None:
    return next((run.record for run in reversed(runs) if run.record.status == "ok"), None)
