"""Command ``bench study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import matrix as matrix_command
from bench.commands import run as run_command
from bench.commands.flags import DataDir, Limit
from bench.commands.outcome import INTERRUPTED, RunFailedError

SOME_FAILED = 2

_commands = typer.Typer(add_completion=False)
_commands.command("run")(run_command.run)
_commands.command("matrix")(matrix_command.matrix)


def study(
    *,
    name: Annotated[str, typer.Argument(metavar="esc50|formats|fsdkaggle2018|gtzan|urbansound8k", help="Which study.")],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this one of the study's networks; repeatable.", show_default=False),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Storage backend; repeatable. If not given, memmap, and for formats all that the study names.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the study's epochs.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the study's batches.", show_default=False)] = None,
    limit: Limit = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where to train.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Loader workers.", show_default=False)] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="auto|official|local:PATH|synthetic", help="Where the raw data comes from.", show_default=False
        ),
    ] = None,
    data_dir: DataDir = None,
    results: Annotated[Path | None, typer.Option(help="Folder of records.", show_default=False)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run nothing: print the commands that it stands for, one a line.")
    ] = False,
) -> None:
    """Repeat the set-up of a published study; its notes say what differs here."""
    from bench import console
    from bench.campaigns.studies import command_text
    from bench.campaigns.studies import study as find

    chosen = find(name)
    given: list[tuple[str, object]] = [
        ("--epochs", epochs),
        ("--batch-size", batch_size),
        ("--limit", limit),
        ("--device", device),
    ]
    given += [("--workers", workers), ("--source", source), ("--data-dir", data_dir), ("--results", results)]
    passed_on = tuple((flag, str(value)) for flag, value in given if value is not None)
    commands = chosen.commands(backend or (), model or (), passed_on)
    for note in (chosen.about + ".", *chosen.notes):
        console.say(note)
    failed = 0
    for words in commands:
        (console.out if dry_run else console.say)(command_text(words))
        if not dry_run:
            failed += not _done(words)
    if failed:
        raise RunFailedError(f"{failed} of {len(commands)} commands of the study gave no result.", SOME_FAILED, None)


def _done(words: tuple[str, ...]) -> bool:
    """Run a command in this process; return whether it gave all its results. Raises BenchError for one in vain."""
    from bench import console

    try:
        code = _commands(list(words), prog_name="bench", standalone_mode=False)
    except RunFailedError as error:
        if error.exit_code == INTERRUPTED:
            raise
        console.say(f"bench: {error}")
        return False
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return True
