"""Command ``bench run``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.attempt import Attempt
from bench.commands.outcome import require_ok
from bench.commands.places import places
from bench.commands.tracked import Track, log, trackers
from bench.commands.work import work_flags
from bench.flags import Backend, DataDir, Dataset, Options, Results, dataset_flags


@dataset_flags
@work_flags
def run(
    *,
    dataset_options: dict[str, Any],
    work: dict[str, Any],
    attempt: Attempt,
    backend: Backend,
    dataset: Dataset,
    option: Options = None,
    repeats: Annotated[int, typer.Option(help="Runs in fresh processes; their spread is what counts.", min=1)] = 1,
    track: Track = None,
    data_dir: DataDir = None,
    results: Results = Path("results"),
    json: Annotated[
        bool, typer.Option("--json", help="Print the record (one after the other with --repeats), and nothing else.")
    ] = False,
) -> None:
    """Train from one backend and report where the time went."""
    from bench import console, runner
    from bench import results as records
    from bench.spec import RunSpec, make_spec

    spec = make_spec(RunSpec, option or [], dataset_options=dataset_options, dataset=dataset, backend=backend, **work)
    where = places(data_dir)
    spec.require_apart(**{"--data-dir": where.data_dir, "--results": results})
    records.require_writable(results)
    chosen = trackers(track)
    done, written = [], []
    try:
        for repeat in range(repeats):
            if repeats > 1:
                console.say(f"Run {repeat + 1} of {repeats}:")
            outcome = runner.run(spec, where, console.make_progress(), dataclasses.replace(attempt, repeat=repeat))
            done.append(outcome.record)
            if json:
                console.out(outcome.record.to_json())
            elif outcome.record.status == "ok" and repeat == repeats - 1:
                console.show(done, records.related(outcome.record, results))
            # Written last, so that a full disk does not take the result from the user's eyes.
            path = records.write(outcome.record, results)
            written.append((outcome.record, path))
            console.say(f"Record: {path}")
            require_ok(outcome.record, outcome.trace)
    finally:
        # After the last run, as what a tracker starts in this process would disturb the next.
        log(chosen, written)
