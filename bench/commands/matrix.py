"""Command ``bench matrix``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.commands.durations import duration_s
from bench.commands.flags import DataDir, Results, dataset_flags
from bench.commands.outcome import INTERRUPTED, RunFailedError
from bench.commands.places import places
from bench.commands.work import axes_flags
from bench.contracts.errors import BenchError
from bench.runs.attempt import Attempt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.campaigns.matrix import Progressed
    from bench.campaigns.matrix_runner import Run
    from bench.comparisons.campaign import Slot

BLOCKS = 3
SOME_FAILED = 2


class MatrixFlagsError(BenchError):
    """Flags that do not make a matrix."""


@dataset_flags
@axes_flags
def matrix(
    *,
    dataset_options: dict[str, Any],
    axes: dict[str, list[Any]],
    attempt: Attempt,
    suite: Annotated[
        Path | None, typer.Argument(help="A suite file, instead of flags for what to run; see --init.")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,KEY=VALUE…]",
            help="A storage backend, with options of its own; repeatable.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|NAME:PATH", help="Data set; repeatable.", show_default=False),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(help="How often each cell runs; 3 if nothing says so, 8 and more can show small differences."),
    ] = None,
    order_seed: Annotated[int | None, typer.Option(help="Seed of the order of runs.", show_default=False)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run nothing: list the cells, with the time and disk that they will take.")
    ] = False,
    init: Annotated[bool, typer.Option("--init", help="Write an example to the suite file, and run nothing.")] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin again, instead of going on where the same matrix stopped.")
    ] = False,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="End a run that takes longer: 90s, 10m, 1h.", show_default=False)
    ] = None,
    keep_stores: Annotated[
        Literal["yes", "no"],
        typer.Option(
            help="no: remove each store after the last run that reads it, and take one data set after the other."
        ),
    ] = "yes",
    data_dir: DataDir = None,
    results: Results = Path("results"),
) -> None:
    """Run all combinations of several flags, or of a suite file, in random order; goes on where it stopped."""
    from bench import console, files
    from bench.campaigns import matrix_runner
    from bench.campaigns.matrix import Matrix, Progressed, cells_of
    from bench.campaigns.series import Series
    from bench.campaigns.suite import EXAMPLE, Axes, Suite, read_suite
    from bench.records import results as records
    from bench.report.planned import planned_table
    from bench.runs.time_limit import Limited, over_time_limit

    if init:
        _write_example(suite, EXAMPLE)
        return
    if suite is not None:
        if backend or dataset or axes or dataset_options:
            raise MatrixFlagsError("Give a suite file or flags for what to run, not both.")
        chosen = read_suite(suite)
    else:
        if not backend or not dataset:
            raise MatrixFlagsError("Name what to run: --backend and --dataset, or a suite file. `--init` writes one.")
        values = {"dataset": dataset, **axes}
        chosen = Suite("matrix", [Axes(backend, values, dataset_options)])
    found = [one for part in chosen.matrices for one in part.specs()]
    cells = cells_of([spec for spec, _ in found], [label for _, label in found])
    planned = Matrix(
        chosen.name,
        cells,
        next(number for number in (blocks, chosen.blocks, BLOCKS) if number is not None),
        next(number for number in (order_seed, chosen.order_seed, 0) if number is not None),
        by_dataset=keep_stores == "no",
    )
    slots = planned.slots()
    limit_s = None if time_limit is None else duration_s("--time-limit", time_limit)
    known, unread = records.read_all(results)
    for error in unread:
        console.say(f"bench: {error}")
    name = matrix_runner.identity(planned, [record for _, record in known], anew=anew)
    if dry_run:
        every = [record for _, record in known]
        left = list(Progressed(matrix_runner.of_campaign(every, name)).remaining(slots))
        console.print_table(planned_table(planned, slots, left, every))
        return
    where = places(data_dir)
    for spec in cells.values():
        spec.require_apart(**{"--data-dir": where.data_dir, "--results": results})
    records.require_writable(results)
    with matrix_runner.alone(results, name):
        files.remove_parts(results)
        # Only now, as another process may have written some until it ended.
        done = matrix_runner.of_campaign([record for _, record in records.read_all(results)[0]], name)
        progressed = Progressed(done)
        told: set[str] = set()
        series = Series(
            name,
            planned.seed,
            planned.blocks,
            where,
            results,
            lambda: Limited(console.QuietProgress(told), limit_s, over_time_limit),
        )
        attempt = dataclasses.replace(attempt, errors_are_results=True)
        run = matrix_runner.Run(planned, series, progressed, attempt, keep_stores=keep_stores == "yes")
        _go(run, len(slots), name)
    _close(progressed, slots, name, results)


def _go(run: Run, runs: int, name: str) -> None:
    from bench import console
    from bench.campaigns.series import Clock
    from bench.records.metrics import METRICS

    left = run.left()
    if left == 0:
        console.say(f"All {runs} runs of {name} are done or given up already; --anew measures again.")
    elif left < runs:
        console.say(f"Going on with {name}: {runs - left} of {runs} runs are done or given up.")
    else:
        console.say(f"Beginning {name}: {runs} runs.")
    number, clock = runs - left, Clock(left)
    told = _tell_unlike(run)
    for slot, outcome in run.go():
        record = outcome.record
        if record.status == "interrupted":
            raise RunFailedError(f"Interrupted. The same command goes on with {name}.", INTERRUPTED, outcome.trace)
        clock.tick()
        number += 1
        found = f"{METRICS['epoch_s'].text([record])} s per epoch"
        if record.error is not None:
            found = f"{record.status}: {record.error.message}"
        console.say(f"[{number}/{runs}{clock.left()}] block {slot.block + 1}, {slot.name}: {found}")
        told = told or _tell_unlike(run)


def _tell_unlike(run: Run) -> bool:
    """Say where runs before and those of now cannot be compared; return whether that was said."""
    from bench import console

    if differ := run.unlike():
        console.say(
            f"Note: not all of its runs are under the same conditions: {differ}. Tables keep those apart, and blocks "
            "with both show nothing: go on as it was, or measure all again by --anew."
        )
    return bool(differ)


def _close(progressed: Progressed, slots: Sequence[Slot], name: str, results: Path) -> None:
    from bench import console

    console.say(f"Done. Records of {name}: {results}. `bench table --results {results}` shows them.")
    for cell in progressed.given_up:
        console.say(f"Given up: {cell}")
    if failed := progressed.without_result(slots):
        message = f"{failed} of {len(slots)} runs gave no result; the records say why."
        raise RunFailedError(message, SOME_FAILED, None)


def _write_example(path: Path | None, text: str) -> None:
    from bench import console, files

    if path is None:
        raise MatrixFlagsError("--init needs the name of the file to write: bench matrix suite.toml --init")
    if path.exists():
        raise MatrixFlagsError(f"{path} is there already. Choose another name.")
    files.write_text(path, text)
    console.say(f"Written: {path}. `bench matrix {path} --dry-run` shows what it would run.")
