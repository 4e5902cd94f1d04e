"""What stands below tables of several runs: what all of them did, on which data and machine, and what is in doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from bench.records.record import RunRecord
from bench.report.labels import DataSets
from bench.report.protocol import memory_limit_text, protocol_parts
from bench.report.tables import machine_text, sample_text, shuffle_text
from bench.specs import augmentation
from bench.specs.spec import NO_MODEL

_SWITCHES = ("amp", "compile", "channels_last", "deterministic")
_ORIGINS = {"official": "official download", "local": "found locally", "synthetic": "SYNTHETIC"}


def synthetic_notes(runs: Sequence[RunRecord]) -> list[str]:
    """Return a warning where data is made up."""
    names = dict.fromkeys(r.spec.dataset_label for r in runs if r.data is not None and r.data.origin == "synthetic")
    if not names:
        return []
    return [f"SYNTHETIC DATA: {', '.join(names)} is a stand-in. Its times say nothing of the real data set."]


def work_notes(runs: Sequence[RunRecord], told: Collection[str] = ()) -> list[str]:
    """Return the work in short, as far as it is the same in all runs, without the facets ``told`` elsewhere."""

    def common(texts: Iterable[str]) -> list[str]:
        found = set(texts)
        return [text for text in found if text] if len(found) == 1 else []

    parts: list[str] = []
    if "model" not in told:
        models = common(run.spec.model for run in runs)
        parts += [f"model {model}" if model != NO_MODEL else "loading alone, no model" for model in models]
    parts += common(f"batch size {run.spec.batch_size}" for run in runs)
    parts += common(_epochs(run) for run in runs)
    parts += common(shuffle_text(run) or "shuffle full" for run in runs)
    parts += common(f"on {run.device or run.spec.device}" for run in runs)
    parts += common(memory_limit_text(run) for run in runs)
    # Each by itself: that runs differ in one of them must not hide the others.
    found = [protocol_parts(run, in_full=True) for run in runs]
    parts += [part for part in found[0] if all(part in others for others in found)]
    for name in _SWITCHES:
        parts += common(name.replace("_", " ") if getattr(run.spec, name) else "" for run in runs)
    parts += [f"augmented by {names}" for names in common(augmentation.text(run.spec.augment) for run in runs)]
    parts += common(f"seed {run.spec.seed}" for run in runs)
    return [f"The same in all runs: {', '.join(parts)}."] if parts else []


def _epochs(run: RunRecord) -> str:
    counted = len(run.measured())
    warmup = " after a warm-up" if counted < len(run.epochs) else ", no warm-up"
    return f"{counted} {'epoch' if counted == 1 else 'epochs'}{warmup}"


def data_notes(runs: Sequence[RunRecord], data_sets: DataSets) -> list[str]:
    """Return how many samples of which kind each data set has, and where they come from."""
    texts = {
        f"{data_sets.label(r)}: {r.data.count:,} samples, {sample_text(r)}, {_ORIGINS[r.data.origin]}"
        for r in runs
        if r.data
    }
    return [f"Data: {'; '.join(sorted(texts))}."] if texts else []


def machine_notes(runs: Sequence[RunRecord]) -> list[str]:
    """Return a line for each machine, with the version of bench."""
    machines = (f"{machine_text(r)}, bench {r.environment.get('bench') or 'of an unknown version'}" for r in runs)
    return [f"Measured on: {machine}." for machine in dict.fromkeys(machines)]


def doubt_notes(groups: Iterable[Sequence[RunRecord]]) -> list[str]:
    """Return what runs themselves say that puts their values in doubt, counted. ``groups`` are runs of one value."""
    kinds = Counter(
        kind
        for runs in groups
        for run in runs
        for kind in {warning.kind for warning in run.warnings}
        # With several runs the spread is known, whatever each of them says of itself.
        if kind != "no-repeats" or len(runs) == 1
    )
    if not kinds:
        return []
    listed = ", ".join(f"{kind} ({count} {'run' if count == 1 else 'runs'})" for kind, count in sorted(kinds.items()))
    return [f"Noted with the runs, which puts them in doubt: {listed}. `bench show RUN` explains."]
