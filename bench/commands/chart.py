"""Command ``bench chart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.flags import Results


def chart(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write: .svg; replaced if it is there.")
    ],
    results: Results = Path("results"),
    metric: Annotated[str, typer.Option(help="What bars show; see `bench list metrics`.")] = "epoch_s",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FACT=VALUE",
            help="Only these runs; repeatable. FACT!=VALUE leaves runs out; one FACT twice means either value.",
            show_default=False,
        ),
    ] = None,
    most: Annotated[int, typer.Option(help="How many panels at most, those with most methods.", min=1)] = 6,
) -> None:
    """Draw runs as bars, a panel for each work: a picture for a README or a paper."""
    from bench import console, files
    from bench.records import facets
    from bench.records import results as records
    from bench.records.groups import equal_runs, finished, same_work
    from bench.report import chart as picture

    picture.require_drawable(metric)
    files.require_place(output)
    if output.suffix.lower() != ".svg":
        raise files.OutputError(f"-o {output}: a chart is a picture in SVG. The name must end in .svg.")
    conditions = facets.conditions(where or [])
    found, errors = records.read_all(results)
    for error in errors:
        console.say(f"bench: {error}")
    runs = finished(facets.choose([record for _, record in found], conditions))
    if not runs:
        raise records.ResultsError(
            f"No finished runs in {results}. Make some with `bench matrix`, or choose --results."
        )
    works = same_work(equal_runs(runs))
    drawable = picture.drawable(works, metric)
    if not drawable:
        raise picture.ChartError(f"--metric {metric}: no finished run in {results} has it. Choose another metric.")
    files.write_text(output, picture.chart(drawable, metric, most))
    console.say(f"Written: {output}")
    reasons = {f"have no {metric}": len(works) - len(drawable), f"are over --most {most}": len(drawable) - most}
    told = " and ".join(f"{count} {reason}" for reason, count in reasons.items() if count > 0)
    if told:
        drawn = f"{min(most, len(drawable))} of {len(works)}"
        console.say(f"bench: {drawn} kinds of work drawn: {told}. --where FACT=VALUE chooses, --most draws more.")
