"""Command ``bench folds``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.commands.flags import Results
from bench.contracts.errors import BenchError


class FoldsError(BenchError):
    """A cross-validation that is not there, or a metric of which there is no summary."""


def folds(
    identity: Annotated[
        str | None,
        typer.Argument(metavar="[ID|last]", help="The cross-validation; all of them if not given.", show_default=False),
    ] = None,
    results: Results = Path("results"),
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,NAME…]",
            help="What columns show; see `bench list metrics`. Default: accuracy, F1 and loss of the test.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        Literal["terminal", "markdown", "csv"], typer.Option(help="Syntax; csv has a line for each fold.")
    ] = "terminal",
    into: Annotated[
        Path | None,
        typer.Option(help="Write Markdown between <!-- bench folds --> and <!-- /bench folds --> of this file."),
    ] = None,
) -> None:
    """Put the folds of a cross-validation together: each fold, then mean, median and standard deviation.

    Runs under one id that differ in more than the fold stand in tables of their own, and folds without a result are
    named.
    """
    from bench import console
    from bench.records import results as records
    from bench.records.cross_validation import cross_validations
    from bench.records.metrics import METRICS
    from bench.report import cross_validated, document, render

    asked = [name.strip() for text in metric or [] for name in text.split(",") if name.strip()]
    for name in asked:
        if name not in METRICS:
            raise FoldsError(f"--metric {name}: there is no such metric. Choose from: {', '.join(METRICS)}.")
    found, errors = records.read_all(results)
    for error in errors:
        console.say(f"bench: {error}")
    every = cross_validations([record for _, record in found])
    if not every:
        raise FoldsError(f"No cross-validation in {results}. Make one with `bench run … --folds all`.")
    wanted = every[-1].identity if identity == "last" else identity
    chosen = [one for one in every if wanted in (None, one.identity)]
    if not chosen:
        known = ", ".join(list(dict.fromkeys(one.identity for one in every))[-5:])
        raise FoldsError(f"No cross-validation {identity!r} in {results}. There are: {known}.")
    metrics = asked or cross_validated.shown_metrics(chosen)
    if into is not None and format == "csv":
        raise FoldsError("--into writes Markdown, not csv. Leave out --format, or send the output to a file.")
    if format == "csv":
        console.out(cross_validated.folds_csv(chosen, metrics).rstrip("\n"))
        return
    tables = [cross_validated.folds_table(one, metrics) for one in chosen]
    if into is not None:
        document.update(into, "bench folds", render.markdown_all(tables, []))
    elif format == "markdown":
        console.out(render.markdown_all(tables, []).rstrip("\n"))
    else:
        console.print_tables(tables)
