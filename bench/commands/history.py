"""Command ``bench history``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.commands.flags import Results


def history(
    metric: Annotated[str, typer.Option(help="What to follow; see `bench list metrics`.")] = "epoch_s",
    backend: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this backend; repeatable.", show_default=False)
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Only this data set.", show_default=False)] = None,
    results: Results = Path("results"),
    format: Annotated[Literal["terminal", "markdown", "json"], typer.Option(help="Syntax of the tables.")] = "terminal",
) -> None:
    """Show a metric over time, versions and revisions, with the steps in it."""
    import json

    from bench import console
    from bench.records import results as records
    from bench.regressions import history as past
    from bench.report import render
    from bench.report.historic import history_data, history_table, step_sentences

    found, errors = records.read_all(results)
    for error in errors:
        console.say(f"bench: {error}")
    runs = [
        record
        for _, record in found
        if (not backend or record.spec.backend in backend) and dataset in (None, record.spec.dataset_name)
    ]
    if not runs:
        what = "No such records" if found else "No records"
        raise past.HistoryError(f"{what} in {results}. Make some with `bench run`, or choose --results.")
    trends = past.series(runs, metric)
    if not trends:
        raise past.HistoryError(f"None of {len(runs)} records in {results} has a value of {metric}.")
    if format == "json":
        console.out(json.dumps(history_data(trends), indent=1))
        return
    for trend in trends:
        if format == "markdown":
            console.out(f"### {history_table(trend).title}\n\n{render.markdown(history_table(trend))}")
        else:
            console.print_table(history_table(trend))
            console.out("")
    texts = [text for trend in trends for text in step_sentences(trend)]
    bullet = "- " if format == "markdown" else ""
    console.out("\n".join(f"{bullet}{text}" for text in texts) or "No step was found.")
