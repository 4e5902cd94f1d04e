"""Command ``bench regress``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.commands.cells import named_cells
from bench.commands.flags import DataDir, Results, dataset_flags, finite
from bench.commands.outcome import INTERRUPTED, RunFailedError
from bench.commands.places import places
from bench.commands.work import work_flags
from bench.contracts.errors import BenchError
from bench.files import require_place, write_text
from bench.runs.attempt import Attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.regressions.baseline import Baseline, Measured
    from bench.report.regressed import Regressed
    from bench.specs.spec import RunSpec

BLOCKS = 8
SOME_FAILED = 2
REGRESSION = 3


class RegressFlagsError(BenchError):
    """Flags that name neither a baseline to save nor one to hold."""


class RegressionFoundError(BenchError):
    """Something is worse than the baseline."""

    exit_code = REGRESSION


@dataset_flags
@work_flags
def regress(
    *,
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A saved baseline, by name or file: measure it again.")] = None,
    dataset_options: dict[str, Any],
    work: dict[str, Any],
    attempt: Attempt,
    save: Annotated[
        str | None, typer.Option(metavar="NAME", help="Measure, and save it as a baseline.", show_default=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a baseline of that name.")] = False,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,KEY=VALUE…]",
            help="With --save: a storage backend, with options of its own, or workers, worker-kind and prefetch; "
            "repeatable. The first runs twice in every block, which shows how far equal runs differ.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|NAME:PATH", help="With --save: data set; see `bench list datasets`.")
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(help="How often each cell runs; 8, or as often as in the baseline, if not given.", min=1),
    ] = None,
    order_seed: Annotated[int, typer.Option(help="Seed of the order of runs.")] = 0,
    effect: Annotated[
        float,
        typer.Option(
            metavar="PERCENT", help="The least slow-down that counts as a regression.", min=0, callback=finite
        ),
    ] = 5.0,
    summary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a summary in Markdown, as for a pull request; an earlier summary is replaced.",
        ),
    ] = None,
    data_dir: DataDir = None,
    results: Results = Path("results"),
    format: Annotated[Literal["terminal", "markdown"], typer.Option(help="Syntax of the table.")] = "terminal",
) -> None:
    """Save what backends measure as a baseline, or hold today's runs against one; exits 3 where something is worse."""
    from bench import console
    from bench.regressions import baseline as baselines

    if save is not None:
        baselines.require_free(baselines.path_of(save, results), replace=replace)
    if name is None:
        if save is None:
            raise RegressFlagsError("Name a baseline to hold, or one to make: bench regress --save NAME --backend …")
        if not backend or not dataset:
            raise RegressFlagsError("--save needs what to measure: --backend (at least one) and --dataset.")
        cells = named_cells(backend, dataset, dataset_options, work)
        runs = _run_all(cells, blocks or BLOCKS, order_seed, attempt, data_dir, results, save)
        failed = _failed(runs)
        if failed:
            raise RunFailedError(f"{_why(failed)} No baseline was saved: it needs all runs.", SOME_FAILED, None)
        _save(save, runs, blocks or BLOCKS, order_seed, attempt, results)
        return
    if backend or dataset or dataset_options or _given(context, work):
        raise RegressFlagsError("A baseline says itself what to run. Leave out --backend, --dataset and what to do.")
    if summary is not None:
        require_place(summary, "--summary")
        if not _replaceable(summary):
            raise RegressFlagsError(
                f"--summary {summary} is there already, and is no summary of bench. Choose another name."
            )
    known = baselines.read(name, results)
    count = blocks or known.blocks
    attempt = dataclasses.replace(attempt, ceiling=known.ceiling)
    runs = _run_all(known.cells, count, order_seed, attempt, data_dir, results, known.name, known)
    found = _judged(known, runs, effect / 100)
    _show(found, format, summary)
    if save is not None and not found.failed:
        _save(save, runs, count, order_seed, attempt, results)
    if found.worse:
        places_ = ", ".join(dict.fromkeys(finding.cell for finding in found.worse))
        raise RegressionFoundError(f"Regression against {known.name}: {places_}.")
    if found.failed:
        raise RunFailedError(_why(found.failed), SOME_FAILED, None)
    console.say(f"No regression was shown against {known.name}.")


def _given(context: typer.Context, work: Mapping[str, Any]) -> bool:
    """Whether a flag was typed that says what a run does, be it with the value that it has by itself."""
    names = {*work, "memory_limit"}
    sources = (context.get_parameter_source(name) for name in names)
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)


def _run_all(
    cells: Mapping[str, RunSpec],
    blocks: int,
    seed: int,
    attempt: Attempt,
    data_dir: Path | None,
    results: Path,
    name: str | None,
    known: Baseline | None = None,
) -> list[Measured]:
    from bench import console
    from bench.campaigns import calibrated
    from bench.campaigns.series import Clock, Series, new_identity
    from bench.comparisons import campaign
    from bench.records import results as records
    from bench.regressions import drifted
    from bench.stores import isolated

    where = places(data_dir)
    for spec in cells.values():
        spec.require_apart(**{"--data-dir": where.data_dir, "--results": results})
    records.require_writable(results)
    slots = campaign.plan(list(cells), blocks, seed)
    for cell, spec in cells.items():
        store = isolated.prepare(spec, where.data_dir, where.search, console.make_progress(), repair=attempt.repair)
        if known is not None:
            # Before hours of runs.
            drifted.require_same_data(known, cell, store.manifest.source_digest)
    told: set[str] = set()
    series = Series(
        new_identity(f"regress-{Path(name or 'baseline').stem}"), seed, blocks, where, results,
        lambda: console.QuietProgress(told),
    )  # fmt: skip
    attempt = dataclasses.replace(attempt, errors_are_results=True)
    clock, done = Clock(len(slots)), list["Measured"]()

    def begins(slot: campaign.Slot) -> None:
        console.say(f"[{len(done) + 1}/{len(slots)}] block {slot.block + 1}: {slot.name}{clock.left()}")

    for slot, measured, outcome in calibrated.run(series, cells, slots, attempt, begins):
        clock.tick()
        done.append(measured)
        if outcome.record.status == "interrupted":
            raise RunFailedError("Interrupted. Nothing was saved or judged.", INTERRUPTED, outcome.trace)
        if outcome.record.error is not None:
            console.say(f"bench: {slot.name}: {outcome.record.error.message}")
    return done


def _failed(runs: list[Measured]) -> dict[str, str]:
    found: dict[str, str] = {}
    for run in runs:
        if run.record.status != "ok":
            found.setdefault(run.cell, run.record.error.message if run.record.error else run.record.status)
    return found


def _why(failed: Mapping[str, str]) -> str:
    first = next(iter(failed))
    return f"Runs without a result: {', '.join(failed)}. The first: {failed[first]}"


def _save(name: str | None, runs: list[Measured], blocks: int, seed: int, attempt: Attempt, results: Path) -> None:
    from bench import console
    from bench.measure import calibration
    from bench.regressions import baseline as baselines

    path = baselines.path_of(name or "", results)
    made = baselines.Baseline(
        path.stem, runs[0].record.started_at, blocks, seed, attempt.ceiling, calibration.units(), tuple(runs)
    )
    baselines.save(made, path)
    console.say(f"Saved: {path}. Hold it with: bench regress {name} --results {results}")


def _judged(known: Baseline, runs: list[Measured], effect: float) -> Regressed:
    from bench.measure import calibration
    from bench.regressions import drifted, regression
    from bench.report.regressed import Regressed

    around = drifted.circumstances(known, runs, calibration.units())
    findings = regression.judge(
        known.runs, runs, effect=effect, tasks=around.tasks, times_not_held=around.times_not_held
    )
    return Regressed(known, tuple(runs), findings, around, _failed(runs), effect)


def _replaceable(path: Path) -> bool:
    """Whether nothing but an earlier summary would be lost: other documents end in .md as well."""
    from bench.report.regressed import SUMMARY_BEGINS

    if not path.is_file():
        return True
    try:
        begins = path.read_bytes()[: len(SUMMARY_BEGINS)]
    except OSError as error:
        raise RegressFlagsError(f"--summary {path}: {error.strerror}. Choose another file.") from error
    return begins in (b"", SUMMARY_BEGINS.encode())


def _show(found: Regressed, format: str, into: Path | None) -> None:
    from bench import console
    from bench.report import regressed, render

    if into is not None:
        write_text(into, regressed.summary(found))
    table, text = regressed.regressed_table(found), regressed.sentences(found)
    if format == "markdown":
        console.out("\n".join([*(f"- {sentence}" for sentence in text), "", render.markdown(table)]))
        return
    console.print_table(table)
    console.out("\n" + "\n".join(text))
