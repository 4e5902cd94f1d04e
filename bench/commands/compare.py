"""Command ``bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.commands.cells import named_cells
from bench.commands.flags import DataDir, Results, dataset_flags
from bench.commands.outcome import RunFailedError, require_ok
from bench.commands.places import places
from bench.commands.work import work_flags
from bench.contracts.errors import BenchError
from bench.runs.attempt import Attempt

if TYPE_CHECKING:
    from bench.comparisons.campaign import Slot
    from bench.comparisons.comparison import Comparison
    from bench.records.record import RunRecord
    from bench.specs.spec import RunSpec


class CompareError(BenchError):
    """Flags that name nothing to compare."""


@dataset_flags
@work_flags
def compare(
    *,
    dataset_options: dict[str, Any],
    work: dict[str, Any],
    attempt: Attempt,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,KEY=VALUE…]",
            help="A storage backend, with options of its own, or workers, worker-kind and prefetch; repeatable. The "
            "first is the baseline; one alone shows how far equal runs differ.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|NAME:PATH", help="Data set; see `bench list datasets`.")
    ] = None,
    blocks: Annotated[int, typer.Option(help="How often each backend runs; below 6 nothing can be shown.")] = 8,
    order_seed: Annotated[int, typer.Option(help="Seed of the order of runs.")] = 0,
    recorded: Annotated[
        str | None,
        typer.Option(metavar="ID|last", help="Run nothing: compare the runs of a recorded comparison again."),
    ] = None,
    metric: Annotated[str, typer.Option(help="What is compared; see `bench list metrics`.")] = "epoch_s",
    baseline: Annotated[
        str | None, typer.Option(help="Compare with this one, named as in the table.", show_default=False)
    ] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Compare each with each; takes more blocks.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare runs of different machines, versions, data or cache states, too.")
    ] = False,
    data_dir: DataDir = None,
    results: Results = Path("results"),
    format: Annotated[Literal["terminal", "markdown"], typer.Option(help="Syntax of the table.")] = "terminal",
    into: Annotated[
        Path | None,
        typer.Option(
            help="Write Markdown between <!-- bench compare --> and <!-- /bench compare --> of this file; or those "
            "with the comparison's ID behind `compare`, where the file has them."
        ),
    ] = None,
) -> None:
    """Find out which backend is faster, as a randomised experiment with repeats and a control."""
    from bench import console
    from bench.comparisons import comparable, comparison
    from bench.records import results as folder
    from bench.report import document

    failed: list[RunRecord] = []
    comparable.comparable_metric(metric)
    if into is not None and not into.is_file():
        raise CompareError(f"--into {into}: there is no such file. Make it, with the two lines that --help names.")
    if into is not None:
        # Before hours of runs.
        document.read(into)
    if recorded is not None and (backend or dataset):
        raise CompareError("--recorded runs nothing: leave out --backend and --dataset, or leave out --recorded.")
    if recorded is None:
        if not backend or not dataset:
            raise CompareError("Name what to compare: --backend (at least one) and --dataset. Or use --recorded last.")
        cells = named_cells(backend, dataset, dataset_options, work)
        comparison.known_baseline(baseline or next(iter(cells)), list(cells))
        runs = _run_all(cells, blocks, order_seed, attempt, data_dir, results)
        failed = [run for run in runs if run.status != "ok"]
    else:
        runs, unread = folder.campaign(recorded, results)
        for error in unread:
            console.say(f"bench: {error}")
    found = comparison.compare(runs, metric, baseline, pairs="all" if all_pairs else "baseline", anyway=anyway)
    _show(found, format, into)
    if failed:
        first = failed[0].error.message if failed[0].error else failed[0].status
        raise RunFailedError(f"{len(failed)} of {len(runs)} runs gave no result. The first: {first}", 1, None)


def _run_all(
    cells: dict[str, RunSpec], blocks: int, order_seed: int, attempt: Attempt, data_dir: Path | None, results: Path
) -> list[RunRecord]:
    from bench import console
    from bench.campaigns.series import Clock, Series, new_identity
    from bench.comparisons import campaign
    from bench.records import results as records
    from bench.stats import blocks_needed
    from bench.stores import isolated

    where = places(data_dir)
    for spec in cells.values():
        spec.require_apart(**{"--data-dir": where.data_dir, "--results": results})
    records.require_writable(results)
    slots = campaign.plan(list(cells), blocks, order_seed)
    needed = blocks_needed(len(cells) - 1) if len(cells) > 1 else 0
    if blocks < needed:
        console.say(f"Note: {blocks} blocks cannot show any difference between {len(cells)} backends; {needed} can.")
    for spec in cells.values():
        isolated.prepare(spec, where.data_dir, where.search, console.make_progress(), repair=attempt.repair)
    identity = new_identity(next(iter(cells.values())).dataset_label)
    series = Series(identity, order_seed, blocks, where, results, console.make_progress)
    clock = Clock(len(slots))
    done: list[RunRecord] = []

    def begins(slot: Slot) -> None:
        place = f"Block {slot.block + 1} of {blocks}, run {len(done) + 1} of {len(slots)}"
        console.say(f"{place}: {slot.name}{clock.left()}")

    for slot, outcome in series.run(cells, slots, attempt, begins):
        clock.tick()
        done.append(outcome.record)
        if outcome.record.status == "interrupted":
            console.say(f"What is done can be compared by: bench compare --recorded {identity} --results {results}")
            require_ok(outcome.record, outcome.trace)
        if outcome.record.error is not None:
            console.say(f"bench: {slot.name}: {outcome.record.error.message}")
    console.say(f"Records of comparison {identity}: {results}")
    return done


def _show(found: Comparison, format: str, into: Path | None) -> None:
    from bench import console
    from bench.report import document, render
    from bench.report.compared import compared_table, sentences

    table, text = compared_table(found), sentences(found)
    if into is not None or format == "markdown":
        content = "\n".join([*(f"- {sentence}" for sentence in text), "", render.markdown(table)])
        if into is not None:
            document.update(into, "bench compare", content, found.campaign.id)
        else:
            console.out(content)
        return
    console.print_table(table)
    console.out("\n" + "\n".join(text))
