"""Command ``bench report``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.flags import Results


def report(
    results: Results = Path("results"),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write; replaced if it is there.")
    ] = Path("report.html"),
) -> None:
    """Write all runs of a folder as one HTML file: what to choose, and how everything compares."""
    from bench import console, files
    from bench.page import document
    from bench.page.content import page_content
    from bench.records import results as records

    files.require_place(output, suffixes=(".html", ".htm"))
    found, errors = records.read_all(results)
    for error in errors:
        console.say(f"bench: {error}")
    if not found:
        raise records.ResultsError(f"No records in {results}. Make one with `bench run`, or choose --results.")
    made_at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    content = page_content([record for _, record in found], made_at, [str(error) for error in errors])
    files.write_text(output, document.html(content))
    runs = "1 run" if len(found) == 1 else f"{len(found):,} runs"
    works = "1 kind" if len(content["works"]) == 1 else f"{len(content['works'])} kinds"
    console.say(f"{output}: {runs}, {works} of work. Open it in a browser.")
