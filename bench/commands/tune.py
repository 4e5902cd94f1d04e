"""Command ``bench tune``: what is searched, how a configuration is measured, and which stores are removed again."""

from __future__ import annotations

import dataclasses
import json as texts
import os
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer

from bench.attempt import Attempt
from bench.commands.durations import duration_s
from bench.commands.outcome import INTERRUPTED, RunFailedError
from bench.commands.places import places
from bench.commands.work import work_flags
from bench.contracts.errors import BenchError
from bench.flags import Backend, DataDir, Dataset, Options, Results, dataset_flags
from bench.tuning import BuiltStores, Configuration, Measured, OutOfTimeError, Search, TuneError

if TYPE_CHECKING:
    from bench.contracts import backend as contract
    from bench.record import EpochInfo, RunRecord
    from bench.runner import Places
    from bench.spec import DataSpec, RunSpec

    Cell = Callable[[Configuration, int], tuple[RunSpec, Attempt]]

T = TypeVar("T")

LEAST_BUDGET_S = 10.0
_FIRST_BYTES = 8 << 20
"""Samples of so many bytes, and two batches at least, are what the first run gets."""

_LOADING = ("workers", "worker_kind", "prefetch")
_OWN_FLAGS = {"backend", "dataset", "option", "budget", "search_seed", "keep_stores", "json", "format", *_LOADING}

CANDIDATES: dict[str, tuple[int, ...]] = {
    "chunk": (1, 4, 16, 64, 256),
    "shard": (64, 256, 1024, 4096),
    "clevel": (1, 3, 9),
}
"""What is tried for options that are numbers, beside not giving them. Of those with named values, all are."""

PREFETCH = (1, 2, 4, 8, 16)
WORKER_KINDS: tuple[Literal["process", "thread"], ...] = ("process", "thread")


@dataset_flags
@work_flags
def tune(
    *,
    dataset_options: dict[str, Any],
    work: dict[str, Any],
    attempt: Attempt,
    context: typer.Context,
    backend: Backend,
    dataset: Dataset,
    option: Options = None,
    budget: Annotated[str, typer.Option(metavar="TIME", help="What the search may take: 90s, 5m, 1h.")] = "5m",
    search_seed: Annotated[int, typer.Option(help="Seed of what is tried.", min=0)] = 0,
    keep_stores: Annotated[
        bool, typer.Option("--keep-stores", help="Keep every store that was built, not only those of the result.")
    ] = False,
    data_dir: DataDir = None,
    results: Results = Path("results"),
    format: Annotated[Literal["terminal", "markdown"], typer.Option(help="Syntax of the table.")] = "terminal",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False,
) -> None:
    """Find the options and workers with which one backend does best here; what a flag gives stays as it is."""
    from bench import console, isolated, registry
    from bench import results as records
    from bench.report import render, tuned
    from bench.spec import RunSpec, make_spec, validated_options

    budget_s = duration_s("--budget", budget, LEAST_BUDGET_S)
    flags = {"dataset_options": dataset_options, "dataset": dataset, "backend": backend, **work}
    given = make_spec(RunSpec, option or [], **flags)
    where = places(data_dir)
    given.require_apart(**{"--data-dir": where.data_dir, "--results": results})
    records.require_writable(results)
    cls = registry.backend_class(backend)
    pairs = tuple((key, value) for key, _, value in (pair.partition("=") for pair in option or []))
    baseline = Configuration(pairs, **{name: getattr(given, name) for name in _LOADING})
    fixed = {name for name in _LOADING if _is_given(context, name)}

    def space() -> Space:
        fields = {name: field.annotation for name, field in cls.options_type.model_fields.items()}
        return Space(fields, lambda values: cls(validated_options(cls, values)), baseline, fixed, os.cpu_count() or 1)

    if space().draw(random.Random(0)) is None:  # noqa: S311  # no secret
        raise TuneError(f"There is nothing to tune: flags fix all that {backend} could be set to. Leave some out.")
    count, sample_bytes = isolated.call(_size, (given, where.data_dir, where.search), console.make_progress())

    def cell(configuration: Configuration, samples: int) -> tuple[RunSpec, Attempt]:
        changed = {name: getattr(configuration, name) for name in _LOADING}
        limit = given.limit if samples == count else samples
        spec = make_spec(RunSpec, configuration.pairs, **{**flags, **changed, "limit": limit})
        # The ceiling is the same for all, so it is measured beside the defaults alone.
        return spec, dataclasses.replace(attempt, ceiling=attempt.ceiling and configuration == baseline)

    identity = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{given.dataset_label}-{backend}"
    laboratory = _Laboratory(cell, where, results, identity, keep_stores=keep_stores)
    smallest = max(2 * given.batch_size, _FIRST_BYTES // max(1, sample_bytes))
    samples = range(min(smallest, count), count + 1)
    found = Search(baseline, space().draw, laboratory, samples, budget_s, search_seed, console.say).run()
    commands = tuned.Commands(backend, dataset, tuple(_given_flags(context)))
    report = tuned.Tuned(identity, found, laboratory.records, commands, budget_s)
    if json:
        console.out(report.to_json())
    elif format == "markdown":
        console.out("\n".join([render.markdown(report.table()), *(f"- {text}" for text in report.sentences())]))
    else:
        console.print_table(report.table())
        console.out("\n" + "\n".join(report.sentences()))
    console.say(f"Records of tuning {identity}: {results}")
    if found.interrupted:
        raise RunFailedError("Interrupted; what is known so far stands above.", INTERRUPTED, None)


def _size(spec: DataSpec, data_dir: Path, search: tuple[Path, ...], progress: Any) -> tuple[int, int]:
    """Return the number of samples and the bytes of one; fetches the raw data where that is needed."""
    from bench.prepare import disk_errors

    with disk_errors(data_dir):
        source = spec.open_source(search)
        source.prepare(data_dir, progress)
        schema = source.schema(spec.split)
    return min(schema.count, spec.limit or schema.count), schema.sample_bytes


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _given_flags(context: typer.Context) -> list[str]:
    """Return the flags that every run has in common, as they were given."""
    found: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in _OWN_FLAGS or not _is_given(context, name):
            continue
        value = context.params[name]
        if isinstance(value, bool):
            found.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            for one in value if isinstance(value, list | tuple) else [value]:
                found += [parameter.opts[0], str(one)]
    return found


class Space:
    """All configurations that a backend's own validation lets pass; what was given or is ``fixed`` stays as it is.

    ``fields`` are the types of its options by name, ``build`` makes a backend of option values or raises BenchError.
    Lossy configurations are left out, as they change the samples, unless the baseline itself is lossy.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        build: Callable[[dict[str, str]], contract.Backend[Any]],
        baseline: Configuration,
        fixed: Collection[str],
        cores: int,
    ) -> None:
        self._baseline, self._build, self._fixed = baseline, build, fixed
        given = dict(baseline.options)
        self._lossy = build(given).capabilities.lossy
        values = {name: (*choices(kind), *CANDIDATES.get(name, ())) for name, kind in fields.items()}
        self._values = {name: found for name, found in values.items() if found and name not in given}
        counts = {0, cores, *(1 << power for power in range(cores.bit_length()))}
        self._workers = [baseline.workers] if "workers" in fixed else sorted(counts)
        self._known = {self._identity(baseline)}

    def draw(self, source: random.Random) -> Configuration | None:
        """Return a configuration at random that was not returned before, None where there seems to be none left.

        Options are drawn one after the other, in random order, each from the values that go with those before: so a
        layout that few values go with is as likely as one that goes with all.
        """
        for _ in range(200):
            drawn = self._drawn(source)
            identity = self._identity(drawn)
            if identity not in self._known:
                self._known.add(identity)
                return drawn
        return None

    def _drawn(self, source: random.Random) -> Configuration:
        chosen = dict(self._baseline.options)
        # Only the sequence of random() is promised to stay the same in every version of Python.
        for name in sorted(self._values, key=lambda _: source.random()):
            possible = [one for value in (None, *self._values[name]) if self._valid(one := _with(chosen, name, value))]
            chosen = _pick(source, possible or [chosen])
        return self._with_loading(self._shortest(chosen), source)

    def _with_loading(self, chosen: dict[str, str], source: random.Random) -> Configuration:
        able = self._build(chosen).capabilities
        names = [name for name in (*dict(self._baseline.options), *self._values) if name in chosen]
        drawn = dataclasses.replace(self._baseline, options=tuple((name, chosen[name]) for name in names))
        possible = {"process": able.process_workers, "thread": able.thread_workers}
        asked = [drawn.worker_kind] if "worker_kind" in self._fixed else list(WORKER_KINDS)
        kinds = [kind for kind in asked if possible[kind]]
        workers = _pick(source, self._workers if kinds else [0])
        if workers == 0:
            return dataclasses.replace(drawn, workers=0)
        prefetch = _pick(source, [drawn.prefetch] if "prefetch" in self._fixed else PREFETCH)
        return dataclasses.replace(drawn, workers=workers, worker_kind=_pick(source, kinds), prefetch=prefetch)

    def _shortest(self, chosen: dict[str, str]) -> dict[str, str]:
        """Leave out what makes no difference, so that a command says what matters."""
        for name in self._values:
            without = _with(chosen, name, None)
            if self._valid(without) and self._resolved(without) == self._resolved(chosen):
                chosen = without
        return chosen

    def _identity(self, configuration: Configuration) -> str:
        loading = [configuration.worker_kind, configuration.prefetch] if configuration.workers else []
        return texts.dumps([self._resolved(dict(configuration.options)), configuration.workers, *loading])

    def _resolved(self, options: dict[str, str]) -> str:
        return str(self._build(options).options.model_dump_json())

    def _valid(self, options: dict[str, str]) -> bool:
        try:
            return not self._build(options).capabilities.lossy or self._lossy
        except BenchError:
            return False


def choices(annotation: Any) -> tuple[str, ...]:
    """Return the named values of a type, those inside a union included."""
    if get_origin(annotation) is Literal:
        return tuple(value for value in get_args(annotation) if isinstance(value, str))
    return tuple(value for inner in get_args(annotation) for value in choices(inner))


def _with(options: dict[str, str], name: str, value: Any) -> dict[str, str]:
    rest = {key: kept for key, kept in options.items() if key != name}
    return rest if value is None else {**rest, name: str(value)}


def _pick(source: random.Random, values: Sequence[T]) -> T:
    return values[int(source.random() * len(values))]


class _Laboratory:
    """Measures by the normal runner; each run leaves a record that names the tuning and the rung.

    ``cell`` says what to run for a configuration on so many samples.
    """

    def __init__(self, cell: Cell, where: Places, results: Path, identity: str, *, keep_stores: bool) -> None:
        from bench import cleaning

        self._cell, self._where, self._results = cell, where, results
        self._identity, self._keep_stores = identity, keep_stores
        self._stores = BuiltStores(lambda path: cleaning.remove(cleaning.Doomed(path, size_bytes=0)))
        self._told: set[str] = set()
        self.records: list[RunRecord] = []

    def measure(self, configuration: Configuration, samples: int, rung: int, limit_s: float) -> Measured:
        """See Laboratory.measure."""
        from bench import isolated, results, runner
        from bench.metrics import METRICS

        begun = time.monotonic()
        spec, attempt = self._cell(configuration, samples)
        if reason := spec.open_backend().unsupported_device(spec.device):
            raise TuneError(f"{spec.backend}: {reason}")
        where, watch = self._where, _Watch(limit_s, self._told)
        store = isolated.prepare(spec, where.data_dir, where.search, watch, repair=attempt.repair)
        self._stores.note(configuration, store.path, built=store.built)
        record = runner.run(spec, where, watch, attempt).record
        noted = {**record.environment, "tuning": {"id": self._identity, "rung": rung}}
        record = record.model_copy(update={"environment": noted})
        results.write(record, self._results)
        if record.status == "interrupted":
            raise KeyboardInterrupt
        if record.error is not None:
            raise TuneError(record.error.message)
        self.records.append(record)
        known, epoch_s = store.manifest, METRICS["epoch_s"].over([record])
        if epoch_s is None:
            raise TuneError("the record of its run holds no epoch.")
        epochs = [*record.epochs, *([record.ideal] if record.ideal else [])]
        building_s = known.prepare_s + known.verify_s if store.built else 0.0
        return Measured(
            samples=known.count,
            epoch_s=epoch_s.median,
            store_bytes=known.size_bytes,
            peak_bytes=record.memory.peak_pss_bytes or 0,
            prepare_s=known.prepare_s,
            wall_s=time.monotonic() - begun,
            work_s=sum(epoch.epoch_s for epoch in epochs) + building_s,
        )

    def tidy(self, kept: Collection[Configuration]) -> None:
        """See Laboratory.tidy."""
        if not self._keep_stores:
            self._stores.keep_only(kept)


class _Watch:
    """Progress that shows nothing but notes, each once, and ends what takes too long."""

    def __init__(self, limit_s: float, told: set[str]) -> None:
        self._limit_s, self._end, self._told = limit_s, time.monotonic() + limit_s, told

    def note(self, text: str) -> None:
        from bench import console

        if text not in self._told:
            self._told.add(text)
            console.say(text)

    def start(self, label: str, total: int, unit: str) -> None:  # noqa: ARG002  # the protocol's
        self._require_time()

    def advance(self, count: int) -> None:  # noqa: ARG002  # the protocol's
        self._require_time()

    def epoch(self, info: EpochInfo) -> None:  # noqa: ARG002  # the protocol's
        self._require_time()

    def finish(self) -> None:
        """There is nothing to take away."""

    def _require_time(self) -> None:
        if time.monotonic() > self._end:
            raise OutOfTimeError(f"it was not done after {self._limit_s:.0f} s, where less was expected or left.")
