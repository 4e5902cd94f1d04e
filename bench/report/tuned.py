"""What a tuning found: a table, sentences, commands and JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.campaigns.tuning import Candidate, Configuration, Found
from bench.records.metrics import significant
from bench.records.record import RunRecord
from bench.report.tables import Table, data_label, machine_text

ABOUT_THE_SAME = "about the same"
ONE_RUN = "one run, nothing claimed"


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands that use a configuration, with all the flags that were ``given``."""

    backend: str
    dataset: str
    given: tuple[str, ...]

    def run(self, configuration: Configuration) -> str:
        """Return the command that runs it once."""
        options = [part for pair in configuration.pairs for part in ("--option", pair)]
        loading = [part for name, value in _loading(configuration) for part in (f"--{name}", value)]
        return self._text("run", "--backend", self.backend, *options, loading=loading)

    def confirm(self, best: Configuration, baseline: Configuration) -> str:
        """Return a comparison of both, in blocks: what runs one after the other takes drift for a difference."""
        cells = [
            ",".join([self.backend, *one.pairs, *(f"{name}={value}" for name, value in _loading(one))])
            for one in (baseline, best)
        ]
        return self._text("compare", *(part for cell in cells for part in ("--backend", cell)))

    def _text(self, *parts: str, loading: Sequence[str] = ()) -> str:
        return shlex.join(["bench", *parts, "--dataset", self.dataset, *loading, *self.given])


def _loading(configuration: Configuration) -> list[tuple[str, str]]:
    """Return how samples are loaded, as flags are named; without workers that is what is done by default."""
    if not configuration.workers:
        return []
    return [
        ("workers", str(configuration.workers)),
        ("worker-kind", configuration.worker_kind),
        ("prefetch", str(configuration.prefetch)),
    ]


def noise(found: Found) -> float | None:
    """Return by what share the epochs of equal runs differed at most; None where nothing ran twice."""
    repeated = [[run.epoch_s for run in c.runs] for c in found.candidates if len(c.runs) > 1]
    return max((max(values) / min(values) - 1 for values in repeated), default=None)


def claimed_ratio(found: Found, one: Candidate, other: Candidate) -> float | None:
    """Return one's epoch over the other's; None where that is within the noise, or one of them ran only once."""
    share, ratio = noise(found), one.epoch_s / other.epoch_s
    if share is None or min(len(one.runs), len(other.runs)) < 2 or 1 / (1 + share) <= ratio <= 1 + share:
        return None
    return ratio


@dataclass(frozen=True, slots=True)
class Tuned:
    """A finished tuning with the records of its runs, of which there is at least one."""

    identity: str
    found: Found
    records: Sequence[RunRecord]
    commands: Commands
    budget_s: float

    @property
    def _samples(self) -> int:
        first = self.found.candidates[0].runs[0]
        return first.delivered or first.samples

    @property
    def _total(self) -> int:
        """How many samples the whole data has: as many as were announced, until all of it was read."""
        found = self.found
        return self._samples if found.candidates[0].runs[0].samples == found.total else found.total

    @property
    def _scale(self) -> float:
        """What figures of a part of the data are multiplied by, to be of all of it."""
        return self._total / self._samples

    @property
    def _baseline(self) -> Candidate | None:
        found = self.found
        return next((c for c in found.candidates if c.configuration == found.baseline), None)

    @property
    def _ran_once(self) -> int:
        """How many are left out, because they ran once while others ran more often."""
        return len(self.found.candidates) - len(self.found.compared())

    def table(self) -> Table:
        """Return the Pareto set and the defaults, one row each, the fastest first."""
        columns = ["configuration", "epoch, s", "epoch, of the defaults'", "store on disk, MB", "peak RAM, MB"]
        columns += ["preparation, s", "runs", "measured on"]
        rows = [self._row(candidate) for candidate in self.found.shown()]
        record = self.records[-1]
        work = "loading alone" if record.spec.model == "none" else f"training {record.spec.model}"
        title = f"{self.commands.backend} tuned on {data_label(record)}: {work}, batch {record.spec.batch_size}"
        return Table(title, columns, rows, self._notes())

    def _row(self, candidate: Candidate) -> list[str]:
        epoch_s, store_bytes, peak_bytes, prepare_s = candidate.objectives
        values = [run.epoch_s for run in candidate.runs]
        low, high = (self._scaled(value, mark="") for value in (min(values), max(values)))
        return [
            self._name(candidate),
            self._scaled(epoch_s) + (f" ({low}…{high})" if len(values) > 1 else ""),
            self._verdict(candidate),
            self._scaled(store_bytes / 1e6),
            significant(peak_bytes / 1e6, 3) if peak_bytes else "n/a",
            self._scaled(prepare_s),
            str(len(values)),
            f"{self._samples:,} samples",
        ]

    def _scaled(self, value: float, mark: str = "~") -> str:
        return (mark if self._scale > 1 else "") + significant(value * self._scale, 3)

    def _name(self, candidate: Candidate) -> str:
        own = candidate.configuration
        return f"{'defaults: ' if own == self.found.baseline else ''}{own.label}"

    def _verdict(self, candidate: Candidate) -> str:
        baseline = self._baseline
        if candidate is baseline:
            return "1"
        if baseline is None:
            return "n/a"
        ratio = claimed_ratio(self.found, candidate, baseline)
        if ratio is not None:
            return f"{ratio:.2f}"
        return ONE_RUN if min(len(candidate.runs), len(baseline.runs)) < 2 else ABOUT_THE_SAME

    def _notes(self) -> list[str]:
        found, share = self.found, noise(self.found)
        rungs = " → ".join(f"{min(samples, self._total):,}" for samples in found.rungs)
        spent = f"{found.elapsed_s:.0f} s of a budget of {self.budget_s:.0f} s"
        among = "of those that ran more than once, what" if self._ran_once else "what"
        notes = [
            f"{found.tried} configurations tried, {len(found.failed)} of them dropped; samples per rung: {rungs} of "
            f"{self._total:,}; {spent}{', interrupted' if found.interrupted else ''}. Rows: {among} no other one "
            "equals or beats in epoch, store, peak RAM and preparation together, and the defaults."
        ]
        if self._ran_once:
            notes.append(f"Left out: {self._ran_once} more on as many samples that ran once, as one run may be lucky.")
        if self._scale > 1:
            notes.append(
                f"~: measured on {self._samples:,} of {self._total:,} samples and scaled in proportion, which is "
                "only a guess at the whole; peak RAM is that of the part. A longer --budget measures more."
            )
        if share is None:
            notes.append("Nothing ran twice, so no difference is claimed. A longer --budget leaves time for repeats.")
        else:
            notes.append(
                f"Runs of one configuration differed by up to {significant(100 * share, 2)} %; within that, "
                f"{ABOUT_THE_SAME} is all that is said. The first row was chosen for being fast, which flatters it."
            )
        return [*notes, *dict.fromkeys(f"Measured on: {machine_text(record)}." for record in self.records)]

    def sentences(self) -> list[str]:
        """Return what was found, the command of each row, what was dropped, and how to confirm it."""
        shown = self.found.shown()
        texts = [self._result(shown[0]), *self._ceiling()]
        texts += [f"{self._name(candidate)}: {self.commands.run(candidate.configuration)}" for candidate in shown]
        texts += [f"Dropped: {dropped.label}: {reason}" for dropped, reason in self.found.failed]
        advice = self._advice()
        return [*texts, f"Confirm it by: {advice}"] if advice else texts

    def _advice(self) -> str | None:
        best = self.found.shown()[0].configuration
        return None if best == self.found.baseline else self.commands.confirm(best, self.found.baseline)

    def _result(self, fastest: Candidate) -> str:
        baseline = self._baseline
        if baseline is None:
            return f"Fastest: {self._name(fastest)}. The defaults gave no result on {self._samples:,} samples."
        if len(self.found.candidates) == 1:
            return "Nothing but the defaults was measured in this time."
        if fastest is baseline:
            which = "ran more than once" if self._ran_once else "was tried"
            return f"No configuration that {which} was faster than the defaults."
        ratio = claimed_ratio(self.found, fastest, baseline)
        if ratio is None:
            return f"No configuration was shown to be faster than the defaults ({self._verdict(fastest)})."
        others = [c for c in self.found.shown() if c is not fastest and claimed_ratio(self.found, c, fastest) is None]
        close = f" Not told apart from it: {'; '.join(self._name(c) for c in others)}." if others else ""
        return f"{self._name(fastest)} took {ratio:.2f} times the epoch of the defaults.{close}"

    def _ceiling(self) -> list[str]:
        known = [r for r in self.records if r.ideal is not None and r.data is not None]
        ideal_s = [r.ideal.epoch_s for r in known if r.ideal and r.data and r.data.count == self._samples]
        if not ideal_s:
            return []
        return [
            f"Training from memory took {self._scaled(min(ideal_s))} s an epoch: no format can gain more than that."
        ]

    def to_json(self) -> str:
        """Return all of it as JSON; figures are as measured, on ``samples``, and not scaled."""
        found = self.found
        content: dict[str, Any] = {
            "id": self.identity,
            "backend": self.commands.backend,
            "data": data_label(self.records[-1]),
            "budget_s": self.budget_s,
            "elapsed_s": found.elapsed_s,
            "interrupted": found.interrupted,
            "tried": found.tried,
            "rungs": [min(samples, self._total) for samples in found.rungs],
            "samples": self._samples,
            "total_samples": self._total,
            "noise": noise(found),
            "rows": [
                {
                    "options": dict(candidate.configuration.options),
                    "workers": candidate.configuration.workers,
                    "worker_kind": candidate.configuration.worker_kind,
                    "prefetch": candidate.configuration.prefetch,
                    "defaults": candidate.configuration == found.baseline,
                    "ratio_to_defaults": self._ratio(candidate),
                    "command": self.commands.run(candidate.configuration),
                    "runs": [asdict(run) for run in candidate.runs],
                }
                for candidate in found.shown()
            ],
            "dropped": [{"configuration": dropped.label, "reason": reason} for dropped, reason in found.failed],
            "confirm": self._advice(),
        }
        return json.dumps(content, indent=1)

    def _ratio(self, candidate: Candidate) -> float | None:
        baseline = self._baseline
        return None if baseline is None else claimed_ratio(self.found, candidate, baseline)
