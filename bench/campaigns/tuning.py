"""The search of ``bench tune``: successive halving over what a backend and the loading can be set to.

Many configurations are measured on few samples, the best third of them on three times as many, and so on (successive
halving: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization"). Time
rules: each rung has an equal share of what is left of the budget, and nothing is begun that is not expected to end in
time. Nothing here runs or stores anything: a :class:`Laboratory` does.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.contracts.errors import BenchError

ETA = 3
"""One configuration in so many survives a rung, and the next rung has so many times the samples."""

RUNS = 3
"""How often a finalist runs, where the budget allows."""

FINALISTS = 4
GIVE_UP = 5
"""A configuration that takes so many times what was expected is given up."""

_LEAST_LIMIT_S = 15.0
_FIRST_RUNG = 6
"""Configurations for which half of the budget has to suffice before the first rung gets more samples."""

_MOST = 243
"""Configurations that are tried at most, however large the budget."""


class TuneError(BenchError):
    """Nothing to tune, no time for it, or a configuration without a result."""


class OutOfTimeError(TuneError):
    """A measurement that was ended because it took too long."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to store and to load: options of the backend as they are given on the command line, and the workers."""

    options: tuple[tuple[str, str], ...] = ()
    workers: int = 0
    worker_kind: Literal["process", "thread"] = "process"
    prefetch: int = 2

    @property
    def loading(self) -> str:
        """The workers in words."""
        if not self.workers:
            return "no workers"
        return f"{self.workers} {self.worker_kind} workers, prefetch {self.prefetch}"

    @property
    def pairs(self) -> list[str]:
        """The options as ``KEY=VALUE``."""
        return [f"{key}={value}" for key, value in self.options]

    @property
    def label(self) -> str:
        """What to call it in a table."""
        return f"{' '.join(self.pairs) or 'default options'}, {self.loading}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run showed, on ``samples``. ``work_s`` is the part of ``wall_s`` that grows with the samples."""

    samples: int
    epoch_s: float
    store_bytes: float
    peak_bytes: float
    prepare_s: float
    wall_s: float
    work_s: float
    delivered: int | None = None  # of the whole, fewer where files are left out

    def expected_s(self, samples: int) -> float:
        """Return how long a run on so many samples would take."""
        return self.wall_s + self.work_s * (samples / self.samples - 1)


@dataclass(slots=True)
class Candidate:
    """A configuration and its runs, all on the same samples; there is at least one."""

    configuration: Configuration
    runs: list[Measured]

    @property
    def epoch_s(self) -> float:
        """Median over the runs."""
        return statistics.median(run.epoch_s for run in self.runs)

    @property
    def objectives(self) -> tuple[float, ...]:
        """Epoch (s), store (bytes), peak RAM (bytes) and preparation (s): medians, the less of each the better."""
        values = [(run.epoch_s, run.store_bytes, run.peak_bytes, run.prepare_s) for run in self.runs]
        return tuple(map(statistics.median, zip(*values, strict=True)))


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return those that no other equals or beats in every objective and beats in one."""
    values = [candidate.objectives for candidate in candidates]
    return [c for c, own in zip(candidates, values, strict=True) if not any(_dominates(other, own) for other in values)]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def keep(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return the best ``count``: the Pareto set before all others, and within each the fastest first."""
    best = pareto(candidates)
    return sorted(candidates, key=lambda c: (c not in best, c.epoch_s))[:count]


def ladder(total: int, smallest: int, first: Measured, budget_s: float) -> list[int]:
    """Return the samples of each rung, the last of which is the whole data where the budget is large enough."""
    # To start a run takes its time anyway, so the first rung may spend as much again; what is slow is to go early.
    free = (first.wall_s - first.work_s) * first.samples / max(first.work_s, 1e-9)
    start = max(smallest, int(min(free, total // ETA**2)))
    while start > smallest and _FIRST_RUNG * first.expected_s(start) > budget_s / 2:
        start = max(smallest, start // ETA)
    largest = total
    # Two finalists, twice each.
    while largest > start and 4 * first.expected_s(largest) > budget_s / 2:
        largest = max(start, largest // ETA)
    sizes = [largest]
    while sizes[0] // ETA >= start:
        sizes.insert(0, sizes[0] // ETA)
    return sizes


class Laboratory(Protocol):
    """Measures, and keeps the stores that it has built for that."""

    def measure(self, configuration: Configuration, samples: int, rung: int, limit_s: float) -> Measured:
        """Run once on the first ``samples``. Raises OutOfTimeError after ``limit_s``, BenchError where it fails."""

    def tidy(self, kept: Collection[Configuration]) -> None:
        """Remove the stores built here, and no other, that none of these configurations uses."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a tuning knows in the end: the candidates of the last rung that compared any.

    ``tried`` counts all that were begun, ``rungs`` are the samples of each rung, ``failed`` tells what was dropped.
    """

    candidates: list[Candidate]
    baseline: Configuration
    total: int
    tried: int
    rungs: list[int]
    failed: list[tuple[Configuration, str]]
    elapsed_s: float
    interrupted: bool

    def shown(self) -> list[Candidate]:
        """Return the Pareto set of those compared and, in any case, the baseline, the fastest first."""
        best = pareto(self.compared())
        chosen = [c for c in self.candidates if c in best or c.configuration == self.baseline]
        return sorted(chosen, key=lambda c: c.epoch_s)

    def compared(self) -> list[Candidate]:
        """Return the baseline and the others that ran more than once; all, where no other one did.

        The luckiest of many single runs would beat every median.
        """
        repeated = [c for c in self.candidates if len(c.runs) > 1 or c.configuration == self.baseline]
        return repeated if any(c.configuration != self.baseline for c in repeated) else self.candidates


class Search:
    """One tuning.

    ``draw`` returns a new configuration at each call, None where there is none left. ``samples`` bounds those of a
    rung and ends with the whole data, ``say`` hears a line for each event.
    """

    def __init__(
        self,
        baseline: Configuration,
        draw: Callable[[random.Random], Configuration | None],
        laboratory: Laboratory,
        samples: range,
        budget_s: float,
        seed: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._baseline, self._draw, self._laboratory = baseline, draw, laboratory
        self._smallest, self._total = samples[0], samples[-1]
        self._random = random.Random(seed)  # noqa: S311  # no secret
        self._clock, self._say = clock, say
        self._begun = clock()
        self._end = self._begun + budget_s
        self._rungs: list[list[Candidate]] = []
        self._tried = 0
        self._failed: list[tuple[Configuration, str]] = []

    def run(self) -> Found:
        """Search until the budget is spent or nothing is left to try; an interruption ends it with what is known.

        Raises BenchError where the baseline cannot be measured, KeyboardInterrupt before anything is known.
        """
        kept: list[Configuration] = []
        try:
            pilot = self._pilot()
            interrupted = False
            try:
                self._search(pilot)
            except KeyboardInterrupt:
                interrupted = True
            found = self._found(pilot, interrupted)
            if found.candidates[0].runs[0].samples == self._total:
                kept = [candidate.configuration for candidate in found.shown()]
            return found
        finally:
            self._laboratory.tidy(kept)

    def _pilot(self) -> Measured:
        self._tried += 1
        try:
            return self._laboratory.measure(self._baseline, self._smallest, 0, self._left_s())
        except OutOfTimeError as error:
            done = f"not even one run on {self._smallest:,} samples was done"
            raise TuneError(f"--budget is too short: {done}. Give a longer one.") from error

    def _found(self, pilot: Measured, interrupted: bool) -> Found:
        rungs = [rung for rung in self._rungs if rung] or [[Candidate(self._baseline, [pilot])]]
        return Found(
            # A rung that only one got to compares nothing.
            candidates=next((rung for rung in reversed(rungs) if len(rung) > 1), rungs[0]),
            baseline=self._baseline,
            total=self._total,
            tried=self._tried,
            rungs=[rung[0].runs[0].samples for rung in rungs],
            failed=self._failed,
            elapsed_s=self._clock() - self._begun,
            interrupted=interrupted,
        )

    def _search(self, pilot: Measured) -> None:
        sizes = ladder(self._total, self._smallest, pilot, self._left_s())
        coming: Iterable[tuple[Configuration, Measured | None]] = self._drawn(pilot)
        for number, samples in enumerate(sizes):
            # Stores of fewer samples are of no use from here on.
            if samples != pilot.samples:
                self._laboratory.tidy([])
            left_s, rungs = self._left_s(), len(sizes) - number
            # The repeats at the end get a share, too, or as much as they need.
            repeats_s = (RUNS - 1) * FINALISTS * pilot.expected_s(sizes[-1])
            share_s = max(left_s / (rungs + 1), (left_s - repeats_s) / rungs)
            self._climb(number, samples, self._clock() + share_s, coming, last=rungs == 1)
            survivors = self._survivors(self._rungs[-1])
            if len(survivors) < 2:
                return
            coming = [(candidate.configuration, candidate.runs[0]) for candidate in survivors]
        self._repeat(len(sizes) - 1)

    def _drawn(self, pilot: Measured) -> Iterator[tuple[Configuration, Measured | None]]:
        yield self._baseline, pilot
        while self._tried < _MOST and (drawn := self._draw(self._random)):
            yield drawn, None

    def _climb(
        self,
        number: int,
        samples: int,
        until: float,
        coming: Iterable[tuple[Configuration, Measured | None]],
        *,
        last: bool,
    ) -> None:
        """Measure what comes, the baseline first, until the time of this rung is over."""
        rung: list[Candidate] = []
        self._rungs.append(rung)
        for configuration, before in coming:
            measured = before if before and before.samples == samples else None
            if measured is None:
                known = [before] if before else [candidate.runs[0] for candidate in rung]
                expected_s = statistics.fmean(run.expected_s(samples) for run in known) if known else 0.0
                # With one alone there is nothing to choose from.
                if self._clock() + expected_s > (until if len(rung) > 1 else self._end):
                    return
                self._tried += before is None
                measured = self._measure(configuration, samples, number, expected_s)
            if measured is not None:
                rung.append(Candidate(configuration, [measured]))
                if measured is not before:
                    self._tell(configuration, measured)
            # Only the last rung runs again.
            kept = [*self._survivors(rung, FINALISTS), *pareto(rung)] if last else rung[:1]
            self._laboratory.tidy([candidate.configuration for candidate in kept])

    def _measure(self, configuration: Configuration, samples: int, rung: int, expected_s: float) -> Measured | None:
        limit_s = min(self._left_s(), max(_LEAST_LIMIT_S, GIVE_UP * expected_s))
        try:
            measured = self._laboratory.measure(configuration, samples, rung, limit_s)
        except BenchError as error:
            if isinstance(error, OutOfTimeError) and self._left_s() <= 0:
                self._say(f"Not finished, as the time is over: {configuration.label}")
                return None
            self._failed.append((configuration, str(error)))
            self._say(f"Dropped: {configuration.label}: {error}")
            return None
        return measured

    def _tell(self, configuration: Configuration, measured: Measured) -> None:
        """Say what was measured; only when it is kept, as whoever reads it may interrupt at once."""
        count = measured.delivered or measured.samples
        self._say(f"{count:,} samples: {configuration.label}: {measured.epoch_s:.3g} s an epoch")

    def _survivors(self, rung: list[Candidate], least: int = 1) -> list[Candidate]:
        """Return the baseline, where it is there, and the best third of the others, the best first."""
        baseline = [c for c in rung if c.configuration == self._baseline]
        others = [c for c in rung if c.configuration != self._baseline]
        return [*baseline, *keep(others, max(least, math.ceil(len(others) / ETA)))]

    def _repeat(self, number: int) -> None:
        """Run the finalists again, in turns, as long as there is time."""
        finalists = self._survivors(self._rungs[-1], FINALISTS)[:FINALISTS]
        for _ in range(RUNS - 1):
            for candidate in list(finalists):
                first = candidate.runs[0]
                if self._clock() + first.wall_s > self._end:
                    return
                measured = self._measure(candidate.configuration, first.samples, number, first.wall_s)
                if measured is not None:
                    candidate.runs.append(measured)
                    self._tell(candidate.configuration, measured)
                    continue
                finalists.remove(candidate)
                if self._left_s() > 0 and candidate.configuration != self._baseline:
                    self._rungs[-1].remove(candidate)

    def _left_s(self) -> float:
        return self._end - self._clock()
