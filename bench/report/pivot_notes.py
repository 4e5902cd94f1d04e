"""What stands below pivot tables: how to read them, and what all of their runs have in common."""

from __future__ import annotations

from collections import Counter

from bench.comparisons.ranking import EXACT_METRICS
from bench.records.facets import cache_words
from bench.records.record import RunRecord
from bench.report.cells import failure_text
from bench.report.in_common import data_notes, doubt_notes, machine_notes, synthetic_notes, work_notes
from bench.report.lossy import lossy_note
from bench.report.pivot import Pivot
from bench.report.pivot_tables import Marks
from bench.report.ratios import CEILING


def pivot_notes(pivot: Pivot, marks: Marks) -> list[str]:
    """Return notes for all tables of a pivot together, the most important first."""
    firsts = [group.first for group in pivot.groups]
    lossy = lossy_note((pivot.arrangement.methods.label(record), record) for record in firsts)
    notes = synthetic_notes(firsts) + ([lossy] if lossy else []) + marks.notes() + _reading(pivot) + _best(pivot)
    notes += [*_sheets(pivot), f"The same in all rows: {pivot.arrangement.methods.common()}."]
    notes += work_notes(firsts, {facet.name for facet in pivot.arrangement.axes.facets})
    notes += _caches(firsts) + _torn(pivot) + data_notes(firsts, pivot.arrangement.data_sets) + machine_notes(firsts)
    notes += _revisions(pivot)
    notes += doubt_notes(group.records for group in pivot.groups)
    return notes + _left_out(pivot)


def _reading(pivot: Pivot) -> list[str]:
    cells = [cell for filled in pivot.sheets for cell in filled.cells.values() if cell.summary is not None]
    several = [cell for cell in cells if cell.summary and cell.summary.n > 1]
    notes = []
    if several:
        n = pivot.common_n
        parts = ["Median"]
        if any(cell.interval for cell in several):
            parts.append("[95 % interval of the median over runs in fresh processes, given from 6 runs on]")
        if any(not cell.interval for cell in several):
            parts.append("(lowest…highest: of the counted epochs of a single run, or of the medians of several runs)")
        counted = f"{n} values each" if n else "n is the number of values"
        notes.append(f"{' '.join(parts)}; {counted}.")
    runs = sorted({len(group.counted) for group in pivot.groups})
    span = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    in_cells = sum(len(group.counted) for group in pivot.groups)
    controls = sum(len(group.records) for group in pivot.groups) - in_cells
    repeat = "run that repeats" if controls == 1 else "runs that repeat"
    repeated = f"; {controls} {repeat} a method as a control left out" if controls else ""
    notes.append(f"Runs per cell: {span}, {in_cells} in all{repeated}.")
    if pivot.baseline is not None:
        notes.append(_ratio_note(pivot))
    return notes


def _ratio_note(pivot: Pivot) -> str:
    if pivot.baseline == CEILING:
        return (
            "Ratio to the ceiling: time of an epoch relative to training from memory in the same run; in brackets the "
            "95 % interval over runs. ~: fewer than 6 runs, so there is none."
        )
    return (
        f"Ratio to {pivot.baseline}: median of the ratios within blocks [95 % bootstrap interval over blocks] where "
        "both ran in the same comparison. ~: not tested, plain ratio of the medians, or difference where the unit is a "
        "percentage or a temperature: whatever else changed between the runs is in it, too."
    )


def _best(pivot: Pivot) -> list[str]:
    notes = []
    if any(judged.best for filled in pivot.sheets for judged in filled.judged.values()):
        metrics = [metric for filled in pivot.sheets for metric, judged in filled.judged.items() if judged.best]
        tested = (
            " That was tested with runs in the same randomised blocks, whatever the medians over all runs may say: "
            "sign-flip test adjusted by Holm, p below 0.05, an interval of the ratio that excludes 1, and a ratio "
            "beyond what equal runs differ by."
        )
        notes.append(
            "Bold (* in plain text): shown to be better than every other method of the same data and circumstances "
            "that has a value." + ("" if set(metrics) <= set(EXACT_METRICS) else tested)
        )
    return notes


def _sheets(pivot: Pivot) -> list[str]:
    if len(pivot.sheets) < 2:
        return []
    names = dict.fromkeys(name for filled in pivot.sheets for name in filled.sheet.differs)
    differ = f" They differ in: {', '.join(names)}." if names else ""
    return [
        "Runs of different circumstances stand in tables of their own: values of different tables are not to be "
        f"compared.{differ} --where chooses among them."
    ]


def _caches(firsts: list[RunRecord]) -> list[str]:
    states = dict.fromkeys(cache_words(record) for record in firsts)
    return [f"Page cache (asked for: achieved): {'; '.join(states)}."]


def _torn(pivot: Pivot) -> list[str]:
    """Which methods of one comparison stand apart from themselves, as the cache was achieved in some runs only."""
    runs = [record for group in pivot.groups for record in group.records if record.campaign is not None]
    achieved: dict[tuple[str, str], Counter[str]] = {}
    names: dict[tuple[str, str], str] = {}
    for record in runs:
        key = (record.campaign.id if record.campaign else "", record.spec_id)
        achieved.setdefault(key, Counter())[record.cache.achieved or "unknown"] += 1
        names.setdefault(key, f"{pivot.arrangement.methods.label(record)}, {record.spec.cache}")
    found = [
        f"{names[key]}: {', '.join(f'{state} in {n} of {counted.total()} runs' for state, n in counted.items())}"
        for key, counted in achieved.items()
        if len(counted) > 1
    ]
    if not found:
        return []
    return [
        "MIXED CACHE STATES: of the same comparison, some runs stand apart from others of the same method, because the "
        f"page cache was achieved in some alone ({'; '.join(found)}). They are not one result, and never averaged."
    ]


def _revisions(pivot: Pivot) -> list[str]:
    known = {record.environment.get("git_revision") for group in pivot.groups for record in group.records}
    if len(known) < 2:
        return []
    names = ", ".join(sorted(str(revision)[:10] if revision else "an unknown one" for revision in known))
    return [f"Made by {len(known)} revisions of bench, whose readers may differ: {names}."]


def _left_out(pivot: Pivot) -> list[str]:
    unplaced = pivot.arrangement.unplaced
    if not unplaced:
        return []
    runs = "1 run" if len(unplaced) == 1 else f"{len(unplaced)} runs"
    return [f"{runs} without a result left out, of work that no other run finished. The last {failure_text(unplaced)}."]
