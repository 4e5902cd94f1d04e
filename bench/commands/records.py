"""Commands about what exists: list, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.commands.outcome import require_ok
from bench.commands.places import places
from bench.contracts.errors import BenchError
from bench.flags import DataDir, Results


class ShowError(BenchError):
    """Flags that do not go together."""


def list_(
    what: Annotated[Literal["backends", "datasets", "metrics", "models", "runs"], typer.Argument(help="What to list.")],
    name: Annotated[str | None, typer.Argument(help="With backends or datasets: show the options of one.")] = None,
    data_dir: DataDir = None,
    results: Results = Path("results"),
) -> None:
    """List backends, data sets, metrics, models or runs, and whether each is usable here."""
    from bench import console, listing

    if what == "backends":
        console.print_table(listing.backends() if name is None else listing.backend_options(name))
    elif what == "datasets":
        where = places(data_dir)
        console.print_table(listing.datasets(where.search) if name is None else listing.dataset_options(name))
    elif what == "metrics":
        console.print_table(listing.metrics())
    elif what == "models":
        console.print_table(listing.models())
    else:
        table, errors = listing.runs(results)
        console.print_table(table)
        for error in errors:
            console.say(f"bench: {error}")


def show(
    run: Annotated[str, typer.Argument(help="A record's file, the start of its name, or last.")],
    results: Results = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    classes: Annotated[
        bool, typer.Option("--classes", help="Only the table of classes: precision, recall and F1 of each in the test.")
    ] = False,
    into: Annotated[
        Path | None,
        typer.Option(help="Write the result between <!-- bench show --> and <!-- /bench show --> of this file."),
    ] = None,
) -> None:
    """Show the result of a run again."""
    from bench import console
    from bench import results as records
    from bench.report import document

    if classes and (json or into is not None):
        raise ShowError("--classes goes with neither --json nor --into: the record as JSON has all of it.")
    path, record = records.find(run, results)
    if classes:
        from bench.report.confusion import class_table, tested

        console.print_table(class_table(tested(record, path.stem)))
    elif into is not None:
        document.update(into, "bench show", console.plain([record]))
    elif json:
        console.out(record.to_json())
    else:
        console.show([record], records.related(record, results))
    require_ok(record, None)
