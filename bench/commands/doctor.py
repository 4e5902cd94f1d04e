"""The command that examines this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands.flags import DataDir
from bench.commands.places import places


def doctor(
    data_dir: DataDir = None,
    no_ceilings: Annotated[
        bool, typer.Option("--no-ceilings", help="Do not measure how fast storage and memory are.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the same facts, and nothing else, as JSON.")] = False,
) -> None:
    """Show what can be measured on this machine, how fast it is, and what puts its numbers in doubt."""
    from json import dumps

    from bench import console
    from bench.doctor import examine

    found = examine(places(data_dir).data_dir, measure_ceilings=not no_ceilings)
    if json:
        console.out(dumps(found.facts(), indent=2, ensure_ascii=False))
        return
    for number, table in enumerate(found.tables()):
        if number:
            console.out("")
        console.print_table(table)
