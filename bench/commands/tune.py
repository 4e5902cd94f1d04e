"""Command ``bench tune``: what is searched, how a configuration is measured, and which stores are removed again."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from bench.campaigns.tuning import Configuration, Search, TuneError
from bench.commands.durations import duration_s
from bench.commands.flags import Backend, DataDir, Dataset, Options, Results, dataset_flags
from bench.commands.outcome import INTERRUPTED, RunFailedError
from bench.commands.places import places
from bench.commands.work import work_flags
from bench.runs.attempt import Attempt

if TYPE_CHECKING:
    from bench.specs.spec import RunSpec

    Cell = Callable[[Configuration, int], tuple[RunSpec, Attempt]]

T = TypeVar("T")

LEAST_BUDGET_S = 10.0
_FIRST_BYTES = 8 << 20
"""Samples of so many bytes, and two batches at least, are what the first run gets."""

_LOADING = ("workers", "worker_kind", "prefetch")
_OWN_FLAGS = {"backend", "dataset", "option", "budget", "search_seed", "keep_stores", "json", "format", *_LOADING}


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
    from bench import console, registry
    from bench.campaigns.laboratory import RunLaboratory
    from bench.campaigns.search_space import Space
    from bench.campaigns.series import new_identity
    from bench.measure.environment import usable_cores
    from bench.records import results as records
    from bench.report import render, tuned
    from bench.specs.spec import RunSpec, make_spec, validated_options
    from bench.stores import isolated
    from bench.stores.prepare import extent

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
        return Space(fields, lambda values: cls(validated_options(cls, values)), baseline, fixed, usable_cores())

    if space().draw(random.Random(0)) is None:  # noqa: S311  # no secret
        raise TuneError(f"There is nothing to tune: flags fix all that {backend} could be set to. Leave some out.")
    count, sample_bytes = isolated.call(extent, (given, where.data_dir, where.search), console.make_progress())

    def cell(configuration: Configuration, samples: int) -> tuple[RunSpec, Attempt]:
        changed = {name: getattr(configuration, name) for name in _LOADING}
        limit = given.limit if samples == count else samples
        spec = make_spec(RunSpec, configuration.pairs, **{**flags, **changed, "limit": limit})
        # The ceiling is the same for all, so it is measured beside the defaults alone.
        return spec, dataclasses.replace(attempt, ceiling=attempt.ceiling and configuration == baseline)

    identity = new_identity(f"{given.dataset_label}-{backend}")
    told: set[str] = set()
    progress = partial(console.QuietProgress, told)
    laboratory = RunLaboratory(cell, where, results, identity, progress, keep_stores=keep_stores)
    smallest = max(2 * given.batch_size, _FIRST_BYTES // max(1, sample_bytes))
    samples = range(min(smallest, count), count + 1)
    try:
        found = Search(baseline, space().draw, laboratory, samples, budget_s, search_seed, console.say).run()
    except KeyboardInterrupt:
        raise RunFailedError("Interrupted before anything was measured.", INTERRUPTED, None) from None
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
