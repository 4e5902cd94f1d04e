"""Command ``bench run``."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.flags import Backend, DataDir, Dataset, Options, Results, dataset_flags
from bench.commands.outcome import require_ok
from bench.commands.places import places
from bench.commands.tracked import Track, log, trackers
from bench.commands.work import work_flags
from bench.runs.attempt import Attempt

if TYPE_CHECKING:
    from bench.records.record import RunRecord
    from bench.runs.runner import Outcome
    from bench.specs.spec import RunSpec
    from bench.training.checkpoint import NothingLeftError


@dataclasses.dataclass(frozen=True, slots=True)
class _Turn:
    """One run of a command: what it is called, what it does and how, and where its predictions go."""

    label: str
    spec: RunSpec
    attempt: Attempt
    predictions: Path | None


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
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="all|K",
            help="Cross-validation: a run for each fold of the data set, or for the first K, tested on that fold.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the training there after every epoch; where the file exists, go on from it, exactly.",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what the last evaluation (--test, else --val) took each sample for, as CSV; a .csv that is "
            "there is replaced.",
            show_default=False,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs in fresh processes; their spread is what counts.", min=1)] = 1,
    track: Track = None,
    data_dir: DataDir = None,
    results: Results = Path("results"),
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the record (one after the other with --repeats or --folds), and nothing else."
        ),
    ] = False,
) -> None:
    """Train from one backend and report where the time went."""
    from bench import console
    from bench.records import results as records
    from bench.records.cross_validation import cross_validations
    from bench.report import cross_validated
    from bench.runs import runner
    from bench.specs.spec import SpecError
    from bench.training.checkpoint import NothingLeftError, finish

    for flag, path in (("--checkpoint", checkpoint), ("--predictions", predictions)):
        if path is not None and not path.name:
            raise SpecError(f"{flag} names no file. Give it a name.")
    fields = {"dataset": dataset, "backend": backend, **work}
    attempt = dataclasses.replace(attempt, checkpoint=checkpoint)
    if folds is None:
        turns = _repeats(option or [], dataset_options, fields, attempt, predictions, repeats)
    else:
        turns = _folds(folds, option or [], dataset_options, fields, attempt, predictions, repeats)
    turns[0].spec.require_use()
    where = places(data_dir)
    turns[0].spec.require_apart(**{"--data-dir": where.data_dir, "--results": results})
    records.require_writable(results)
    for turn in turns:
        _require_files(turn, repeats)
    chosen = trackers(track)
    done: list[RunRecord] = []
    written = []
    try:
        for number, turn in enumerate(turns):
            if len(turns) > 1:
                console.say(turn.label)
            try:
                outcome = runner.run(turn.spec, where, console.make_progress(), turn.attempt)
            except NothingLeftError as complete:
                done.append(_known(complete, turn, results))
                console.say(f"{complete} {turn.label}".strip() if len(turns) > 1 else str(complete))
                if json:
                    console.out(done[-1].to_json())
                continue
            done.append(outcome.record)
            try:
                if json:
                    console.out(outcome.record.to_json())
                elif outcome.record.status == "ok" and folds is None and number == len(turns) - 1:
                    console.show(done, records.related(outcome.record, results))
            finally:
                # After it is shown, so that a full disk does not take the result from the user's eyes; and also where
                # it cannot be shown.
                path = records.write(outcome.record, results)
            written.append((outcome.record, path))
            console.say(f"Record: {path}")
            require_ok(outcome.record, outcome.trace)
            if turn.predictions is not None:
                _write_predictions(outcome, turn.predictions)
            if turn.attempt.checkpoint is not None:
                # Only now: what was complete without a record would never get one.
                finish(turn.attempt.checkpoint, path.name)
        if folds is not None and done:
            found = cross_validations(done)
            for table in (cross_validated.folds_table(one, cross_validated.shown_metrics([one])) for one in found):
                (console.tell_table if json else console.print_table)(table)
    finally:
        # After the last run, as what a tracker starts in this process would disturb the next.
        log(chosen, written)


def _repeats(
    option: list[str],
    dataset_options: Mapping[str, Any],
    fields: Mapping[str, Any],
    attempt: Attempt,
    predictions: Path | None,
    repeats: int,
) -> list[_Turn]:
    from bench.specs.spec import RunSpec, make_spec

    spec = make_spec(RunSpec, option, dataset_options=dataset_options, **fields)
    return [
        _Turn(f"Run {number + 1} of {repeats}:", spec, dataclasses.replace(attempt, repeat=number), predictions)
        for number in range(repeats)
    ]


def _folds(
    text: str,
    option: list[str],
    dataset_options: Mapping[str, Any],
    fields: Mapping[str, Any],
    attempt: Attempt,
    predictions: Path | None,
    repeats: int,
) -> list[_Turn]:
    from bench.campaigns import folds
    from bench.campaigns.series import new_identity
    from bench.specs.spec import RunSpec, make_spec
    from bench.training.checkpoint import fold_of

    dataset = fields["dataset"]
    folds.require_alone(dataset_options, fields, repeats)
    chosen = folds.chosen_folds(text, dataset)
    specs, checkpoints = {}, {fold: _of_fold(attempt.checkpoint, fold) for fold in chosen}
    for fold in chosen:
        options = {**dataset_options, folds.OPTION: fold}
        specs[fold] = make_spec(RunSpec, option, dataset_options=options, **{**fields, "test": "test"})
    # What goes on from checkpoints goes on under its name, so that its folds stay together.
    earlier = (fold_of(path) for path in checkpoints.values() if path is not None and path.is_file())
    name = next(filter(None, earlier), new_identity("folds"))
    return [
        _Turn(
            f"Fold {fold} of {len(chosen)}:",
            specs[fold],
            dataclasses.replace(attempt, fold=folds.info(name, fold, dataset), checkpoint=checkpoints[fold]),
            _of_fold(predictions, fold),
        )
        for fold in chosen
    ]


def _known(complete: NothingLeftError, turn: _Turn, results: Path) -> RunRecord:
    """Return the record of a run that has come to its end before. Raises CheckpointError where there is none."""
    from bench.records.record import read_record
    from bench.training.checkpoint import CheckpointError

    path = results / complete.record
    if not path.exists():
        raise CheckpointError(f"{complete} Its record, {complete.record}, is not in {results}: choose --results.")
    if turn.predictions is not None and not turn.predictions.exists():
        raise CheckpointError(f"{complete} --predictions {turn.predictions} cannot be made from it.")
    return read_record(path)


def _write_predictions(outcome: Outcome, path: Path) -> None:
    from bench.training.checkpoint import CheckpointError

    if outcome.predictions is None:
        raise CheckpointError(
            f"--predictions {path}: all epochs were done before, so nothing was predicted. Use --test, whose "
            "predictions are made at the end, or train anew without the checkpoint."
        )
    outcome.predictions.write(path)


def _of_fold(path: Path | None, fold: int) -> Path | None:
    return None if path is None else path.with_stem(f"{path.stem}-fold-{fold}")


def _require_files(turn: _Turn, repeats: int) -> None:
    """Raise BenchError where the files of a training make no sense, or cannot be written."""
    from bench.files import require_place
    from bench.specs.spec import NO_MODEL, SpecError

    spec = turn.spec
    own = {"--checkpoint": turn.attempt.checkpoint, "--predictions": turn.predictions}
    given = {flag: path for flag, path in own.items() if path is not None}
    named = {**given, "--weights": Path(spec.weights)} if spec.weights is not None else given
    for one, other in itertools.combinations(named, 2):
        if named[one].resolve() == named[other].resolve():
            raise SpecError(f"{one} and {other} are the same file, {named[one]}. Name another for one of them.")
    for flag, path in given.items():
        if spec.model == NO_MODEL:
            raise SpecError(f"{flag} goes with a network: --model none trains nothing.")
        if repeats > 1:
            raise SpecError(f"{flag} is the file of one training: leave --repeats out.")
        # A checkpoint that is there is read first, which shows whether it is one.
        require_place(path, flag, (".csv",) if flag == "--predictions" else ())
    if turn.predictions is not None and spec.val is None and spec.test is None:
        raise SpecError("--predictions goes with --test or --val: nothing else is predicted.")
