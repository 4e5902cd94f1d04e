"""The flag ``--track``: for every command that makes runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.records.record import RunRecord
    from bench.records.tracking import Tracker

Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="mlflow[:URI]|tensorboard:DIR",
        help="Also log finished runs to MLflow or TensorBoard, after the last one; repeatable.",
        show_default=False,
    ),
]


def trackers(track: list[str] | None) -> list[Tracker]:
    """Return what the flag names, tried before any run starts. Raises TrackingError."""
    if not track:
        return []
    from bench.records import tracking

    return tracking.require_usable(track)


def log(chosen: Sequence[Tracker], runs: Sequence[tuple[RunRecord, Path]]) -> None:
    """Log runs whose records are written; one that is not taken is a line on stderr, and nothing else."""
    if not chosen:
        return
    from bench import console
    from bench.records import tracking

    for tracker in chosen:
        for record, path in runs:
            try:
                tracking.log(tracker, record, path)
            except tracking.TrackingError as error:
                console.say(f"bench: {error}")
