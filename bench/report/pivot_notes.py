"""What stands below pivot tables: how to read them, and what all of their runs have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bench.comparisons.ranking import EXACT_METRICS
from bench.records.facets import cache_words
from bench.records.record import RunRecord
from bench.report.cells import failure_text
from bench.report.lossy import lossy_note
from bench.report.pivot import Pivot
from bench.report.pivot_tables import Marks
from bench.report.protocol import protocol_parts
from bench.report.ratios import CEILING
from bench.report.tables import machine_text, sample_text
from bench.specs import augmentation

_SWITCHES = ("amp", "compile", "channels_last", "deterministic")


def pivot_notes(pivot: Pivot, marks: Marks) -> list[str]:
    """Return notes for all tables of a pivot together, the most important first."""
    firsts = [group.first for group in pivot.groups]
    lossy = lossy_note((pivot.arrangement.methods.label(record), record) for record in firsts)
    notes = _synthetic(firsts) + ([lossy] if lossy else []) + marks.notes() + _reading(pivot) + _best(pivot)
    notes += [*_sheets(pivot), f"The same in all rows: {pivot.arrangement.methods.common()}."]
    notes += _work(firsts, pivot) + _caches(firsts) + _torn(pivot) + _samples(firsts, pivot)
    notes += [f"Measured on: {machine}." for machine in dict.fromkeys(_machine(record) for record in firsts)]
    notes += _revisions(pivot)
    return notes + _doubts(pivot) + _left_out(pivot)


def _synthetic(firsts: list[RunRecord]) -> list[str]:
    names = dict.fromkeys(r.spec.dataset_label for r in firsts if r.data is not None and r.data.origin == "synthetic")
    if not names:
        return []
    return [f"SYNTHETIC DATA: {', '.join(names)} is a stand-in. Its times say nothing of the real data set."]


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
    runs = sorted({len(group.records) for group in pivot.groups})
    span = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    controls = any(r.campaign and r.campaign.control for group in pivot.groups for r in group.records)
    repeated = ", those that repeat a method as a control included" if controls else ""
    notes.append(f"Runs per cell: {span}, {sum(len(group.records) for group in pivot.groups)} in all{repeated}.")
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


def _work(firsts: list[RunRecord], pivot: Pivot) -> list[str]:
    """The work in short, as far as it is the same everywhere; what differs stands in titles and marks."""

    def common(texts: Iterable[str]) -> list[str]:
        found = set(texts)
        return [text for text in found if text] if len(found) == 1 else []

    told = {facet.name for facet in pivot.arrangement.axes.facets}
    parts: list[str] = []
    if "model" not in told:
        models = common(record.spec.model for record in firsts)
        parts += [f"model {model}" if model != "none" else "loading alone, no model" for model in models]
    parts += common(f"batch size {record.spec.batch_size}" for record in firsts)
    parts += common(_epochs(record) for record in firsts)
    parts += common(
        "balanced sampling" if record.spec.balanced_sampler else f"shuffle {record.spec.shuffle}" for record in firsts
    )
    parts += common(f"on {record.device or record.spec.device}" for record in firsts)
    # Each by itself: that runs differ in one of them must not hide the others.
    found = [protocol_parts(record) for record in firsts]
    parts += [part for part in found[0] if all(part in others for others in found)]
    for name in _SWITCHES:
        parts += common(name.replace("_", " ") if getattr(record.spec, name) else "" for record in firsts)
    augmented = common(augmentation.text(record.spec.augment) for record in firsts)
    parts += [f"augmented by {names}" for names in augmented]
    return [f"The same in all runs: {', '.join(parts)}."] if parts else []


def _epochs(record: RunRecord) -> str:
    counted = len(record.measured())
    warmup = " after a warm-up" if counted < len(record.epochs) else ", no warm-up"
    return f"{counted} {'epoch' if counted == 1 else 'epochs'}{warmup}"


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


def _samples(firsts: list[RunRecord], pivot: Pivot) -> list[str]:
    label = pivot.arrangement.data_sets.label
    texts = dict.fromkeys(
        f"{label(r)}: {r.data.count:,} samples, {sample_text(r)}, {_ORIGINS[r.data.origin]}" for r in firsts if r.data
    )
    return [f"Data: {'; '.join(sorted(texts))}."]


_ORIGINS = {
    "official": "official download",
    "local": "found locally",
    "synthetic": "SYNTHETIC",
}


def _machine(record: RunRecord) -> str:
    return f"{machine_text(record)}, bench {record.environment.get('bench') or 'of an unknown version'}"


def _revisions(pivot: Pivot) -> list[str]:
    known = {record.environment.get("git_revision") for group in pivot.groups for record in group.records}
    if len(known) < 2:
        return []
    names = ", ".join(sorted(str(revision)[:10] if revision else "an unknown one" for revision in known))
    return [f"Made by {len(known)} revisions of bench, whose readers may differ: {names}."]


def _doubts(pivot: Pivot) -> list[str]:
    """What the runs themselves say that puts their values in doubt, counted."""
    kinds = Counter(kind for group in pivot.groups for r in group.records for kind in {w.kind for w in r.warnings})
    if not kinds:
        return []
    listed = ", ".join(f"{kind} ({runs} {'run' if runs == 1 else 'runs'})" for kind, runs in sorted(kinds.items()))
    return [f"Noted with the runs, which puts them in doubt: {listed}. `bench show RUN` explains."]


def _left_out(pivot: Pivot) -> list[str]:
    unplaced = pivot.arrangement.unplaced
    if not unplaced:
        return []
    runs = "1 run" if len(unplaced) == 1 else f"{len(unplaced)} runs"
    return [f"{runs} without a result left out, of work that no other run finished. The last {failure_text(unplaced)}."]
