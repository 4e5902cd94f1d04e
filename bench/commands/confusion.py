"""Command ``bench confusion``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.flags import Results


def confusion(
    run: Annotated[str, typer.Argument(help="A record's file, the start of its name, or last.")],
    results: Results = Path("results"),
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write all numbers, with names, as CSV; a .csv that is there is replaced.",
            show_default=False,
        ),
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a picture, in light and dark, as SVG; an .svg that is there is replaced.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show which classes a trained network took for which, in the test at the end of a run (`bench run --test`).

    Without a flag it prints the matrix, or of more than 20 classes the most frequent confusions.
    """
    from bench import console, files
    from bench.records import results as records
    from bench.report.confusion import confusion_csv, confusion_table, tested
    from bench.report.heat_map import heat_map

    path, record = records.find(run, results)
    found = tested(record, path.stem)
    for place, kind in ((csv, "csv"), (svg, "svg")):
        if place is not None:
            files.require_place(place, f"--{kind}", (f".{kind}",))
    if csv is None and svg is None:
        console.print_table(confusion_table(found))
    if csv is not None:
        files.write_text(csv, confusion_csv(found))
        console.say(f"Written: {csv}")
    if svg is not None:
        files.write_text(svg, heat_map(found))
        console.say(f"Written: {svg}")
