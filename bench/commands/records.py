"""Commands about what exists: list, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bench.commands.flags import DataDir, Results, dataset_flags
from bench.commands.outcome import require_ok
from bench.commands.places import places
from bench.contracts.errors import BenchError


class ShowError(BenchError):
    """Flags that do not go together."""


class ListFlagsError(BenchError):
    """Flags that do not go with what is to be listed."""


@dataset_flags
def list_(
    *,
    dataset_options: dict[str, Any],
    what: Annotated[Literal["backends", "datasets", "metrics", "models", "runs"], typer.Argument(help="What to list.")],
    name: Annotated[str | None, typer.Argument(help="With backends or datasets: show the options of one.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|NAME:PATH",
            help="With models: the data set whose samples they are to take.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    results: Results = Path("results"),
) -> None:
    """List backends, data sets, metrics, models or runs, and whether each is usable here."""
    from bench import console, listing
    from bench.specs.spec import DataSpec, make_spec

    if dataset_options and dataset is None:
        raise ListFlagsError("Options of a data set go with `bench list models --dataset NAME`.")
    if dataset is not None and what != "models":
        raise ListFlagsError("--dataset goes with `bench list models` alone.")
    if name is not None and what not in {"backends", "datasets"}:
        raise ListFlagsError(f"bench list {what} lists all of them: leave {name} out.")
    if what == "backends":
        console.print_table(listing.backends() if name is None else listing.backend_options(name))
    elif what == "datasets":
        where = places(data_dir)
        console.print_table(listing.datasets(where.search) if name is None else listing.dataset_options(name))
    elif what == "metrics":
        console.print_table(listing.metrics())
    elif what == "models":
        spec = dataset and make_spec(DataSpec, [], dataset=dataset, dataset_options=dataset_options)
        where = places(data_dir)
        console.print_table(listing.models(spec or None, where.data_dir, where.search))
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
    from bench.records import results as records
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
