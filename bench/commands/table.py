"""Command ``bench table``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.commands.flags import Results
from bench.contracts.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.records.record import RunRecord
    from bench.report.document import Passage
    from bench.report.tables import Table

Format = Literal["terminal", "markdown", "csv", "latex", "json", "html"]
ROWS, COLUMNS, METRIC = "method", "dataset", "epoch_s"


class TableError(BenchError):
    """Flags that do not go together."""


def table(
    results: Results = Path("results"),
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FACT[,FACT…]",
            help="What rows stand for: method, backend, reader, option.NAME, workers, model, cache, device, machine … "
            f"An unknown word lists all. Default: {ROWS}, which is backend, reader, options and workers.",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="FACT[,FACT…]", help=f"What columns stand for. Default: {COLUMNS}.", show_default=False),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,NAME…]",
            help=f"What cells show; see `bench list metrics`. Default: {METRIC}.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FACT=VALUE",
            help="Only these runs; repeatable. FACT!=VALUE leaves runs out; one FACT twice means either value.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD|ceiling",
            help="Add ratios to a method, such as filesystem or 'zarr[mapped] chunk=16', or to training from memory.",
            show_default=False,
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="A row for each group of equal runs, with many metrics, and no columns.")
    ] = False,
    format: Annotated[Format, typer.Option(help="Syntax of the table.")] = "terminal",
    into: Annotated[
        Path | None,
        typer.Option(help="Write Markdown between <!-- bench table --> and <!-- /bench table --> of this file."),
    ] = None,
    passage: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="With --into, for a file of several tables: between <!-- bench table NAME --> and its end.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Compare the finished runs of a folder in tables of rows and columns.

    What differs between runs and is neither row nor column divides them into several tables: values of different
    machines, versions, data, cache states or settings are never put into one. Only other data sets may differ in
    batch size and the like; a mark then says how. The best value is marked only where it was shown to be the best, as
    by `bench compare`.

    --format csv has a line for each group of equal runs: its facts, then NAME.median [UNIT], .lowest, .highest, .n,
    .interval_low, .interval_high, .best_shown, .missing and, with --baseline, .ratio, .ratio_low, .ratio_high,
    .difference, .ratio_tested, .ratio_verdict, .ratio_missing.

    --format json has version (1), rows, columns, baseline, metrics (label, unit, better), notes, and cells: each with
    table (its number; null for failed runs that belong to none), circumstances, method_label, facts, runs, failed_runs,
    warnings, missing (why there is no value) and values, by metric, with the parts that csv has.

    --format latex needs the package booktabs.
    """
    from bench import console
    from bench.records import results as folder
    from bench.records.facets import choose, conditions
    from bench.report import document

    if into is not None and format not in ("terminal", "markdown"):
        raise TableError(f"--into writes Markdown, not {format}. Leave out --format, or send the output to a file.")
    if passage and into is None:
        raise TableError(f"--passage {passage} says where in a file the table goes. Name the file: --into FILE.")
    if each and (rows or columns or metric or baseline):
        raise TableError(
            "--each has rows and columns of its own: leave out --rows, --columns, --metric and --baseline."
        )
    wanted = conditions(where or [])
    found, errors = folder.read_all(results)
    for error in errors:
        console.say(f"bench: {error}")
    if not found:
        raise folder.ResultsError(f"No records in {results}. Make one with `bench run`, or choose --results.")
    chosen = choose([record for _, record in found], wanted)
    goal = None if into is None else document.Passage(into, f"bench table {passage}".strip())
    if each and format not in ("csv", "json"):
        _show_each(chosen, format, goal)
    else:
        if each:
            from bench.report.tables import COMPARED_METRICS

            metric = list(COMPARED_METRICS)
        _show_pivot(chosen, rows or [ROWS], columns or [COLUMNS], _split(metric or [METRIC]), baseline, format, goal)


def _split(texts: list[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _show_each(records: list[RunRecord], format: Format, goal: Passage | None) -> None:
    from bench import console
    from bench.report import render
    from bench.report.tables import comparison_table

    compared = comparison_table(records)
    if goal is not None:
        goal.write(render.markdown(compared))
    elif format == "terminal":
        console.print_table(compared)
    elif format == "markdown":
        console.out(render.markdown(compared))
    else:
        console.out(_document([compared], [], format))


def _show_pivot(
    records: list[RunRecord],
    rows: list[str],
    columns: list[str],
    metrics: list[str],
    baseline: str | None,
    format: Format,
    goal: Passage | None,
) -> None:
    from bench import console
    from bench.records.facets import facets
    from bench.report import raw, render
    from bench.report.pivot import make_pivot
    from bench.report.pivot_notes import pivot_notes
    from bench.report.pivot_tables import pivot_tables

    pivot = make_pivot(records, facets(rows), facets(columns), metrics, baseline)
    tables, marks = pivot_tables(pivot)
    notes = pivot_notes(pivot, marks)
    if goal is not None:
        goal.write(render.markdown_all(tables, notes))
    elif format == "terminal":
        console.print_tables([*tables[:-1], replace(tables[-1], notes=[*tables[-1].notes, *notes])])
    elif format == "csv":
        console.out(raw.to_csv(pivot).rstrip("\n"))
    elif format == "json":
        console.out(raw.to_json(pivot, notes))
    else:
        console.out(_document(tables, notes, format))


def _document(tables: Sequence[Table], notes: Sequence[str], format: Format) -> str:
    from bench.report import render
    from bench.report.latex import latex
    from bench.report.page_table import html

    return {"markdown": render.markdown_all, "latex": latex, "html": html}[format](tables, notes).rstrip("\n")
