"""Commands that take records out of a folder and into it: export, import, and the schema that they follow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.flags import Results
from bench.contracts.errors import BenchError


class NoRecordsError(BenchError):
    """Folders without records."""


def export(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The file to write: .csv or .parquet; replaced if it is there.",
            show_default=False,
        ),
    ],
    results: Results = Path("results"),
) -> None:
    """Write all records as one table, a row per epoch, for spreadsheets and data frames."""
    from bench import console
    from bench.records import exchange
    from bench.records import results as folder

    exchange.require_target(output)
    found, errors = folder.read_all(results)
    for error in errors:
        console.say(f"bench: {error}")
    if not found:
        raise NoRecordsError(f"No records in {results}. Make one with `bench run`, or choose --results.")
    flat = exchange.export([(path.stem, record) for path, record in found], output)
    console.say(f"{output}: {len(flat.rows):,} rows, {len(flat.columns)} columns, of {len(found):,} runs.")


def import_(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER…", help="Folders of records.", show_default=False)],
    results: Results = Path("results"),
) -> None:
    """Copy the records of other folders, as of other machines, into one; what is there already is not copied again."""
    from bench import console
    from bench.records import exchange
    from bench.records import results as folder
    from bench.report.tables import machine_text

    done = exchange.merge(folders, results)
    if not done.new and not done.known and not done.unreadable:
        raise NoRecordsError(f"No records in {', '.join(map(str, folders))}. `bench run` writes them to its --results.")
    for error in done.unreadable:
        console.say(f"bench: left where it is: {error}")
    for path in done.renamed:
        console.say(f"Its name was taken by another run, so it is called {path.name} now.")
    console.out(
        f"{len(done.new):,} new records in {results}, {done.known:,} there already, "
        f"{len(done.unreadable):,} could not be read."
    )
    machines = Counter(machine_text(record) for _, record in folder.read_all(results)[0])
    for machine, count in machines.most_common():
        console.out(f"{count:,} of {machine}")


def schema() -> None:
    """Print the JSON Schema of a record, as it stands in schema/record.schema.json."""
    from bench import console
    from bench.records import schema as published

    console.out(published.schema_text().rstrip("\n"))
