"""Cross-validations as tables: a row for each fold, then mean, median and standard deviation."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench.records.cross_validation import FOLD_OPTION, CrossValidation
from bench.records.metrics import METRICS, Metric, significant
from bench.report.tables import Table, data_label, run_label, work_parts

FOLD_METRICS = ("test_accuracy", "test_macro_f1", "test_loss", "val_best_accuracy", "val_accuracy", "accuracy")
"""What is shown where nothing was asked for, as far as any fold has it."""

SUMMARIES = ("mean", "median", "standard deviation")


def shown_metrics(found: Sequence[CrossValidation]) -> list[str]:
    """Return those of the usual metrics that any fold has."""
    return [key for key in FOLD_METRICS if any(one.moments(key) is not None for one in found)]


def folds_table(found: CrossValidation, metrics: Sequence[str]) -> Table:
    """Return the folds of one cross-validation; one without a result has a row that says why."""
    chosen = [METRICS[key] for key in metrics]
    rows = []
    for fold in range(1, found.folds + 1):
        values = [found.value(fold, metric.key) for metric in chosen]
        rows.append([str(fold), _state(found, fold), *map(_text, chosen, values)])
    moments = [found.moments(metric.key) for metric in chosen]
    for name in SUMMARIES:
        field = "deviation" if name == "standard deviation" else name
        cells = [_text(m, None if of is None else getattr(of, field)) for m, of in zip(chosen, moments, strict=True)]
        rows.append([name, f"of {len(found.results)} folds", *cells])
    columns = ["fold", "result", *(f"{metric.label}, {metric.unit}" for metric in chosen)]
    return Table(folds_title(found), columns, rows, folds_notes(found), text_columns=2)


def folds_title(found: CrossValidation) -> str:
    """Return which cross-validation of what it is."""
    record = found.first
    options = [f"{key}={value}" for key, value in record.spec.dataset_options.items() if value not in (None, False)]
    others = " ".join(option for option in options if not option.startswith(f"{FOLD_OPTION}="))
    data = data_label(record) + (f" {others}" if others else "")
    return f"{found.identity}: {record.spec.model} from {run_label(record)} on {data}, {found.folds} folds"


def folds_notes(found: CrossValidation) -> list[str]:
    """Return what was run, and whether anything is missing, there twice, or was run under other conditions."""
    notes = [f"{_work(found)}{_tested(found)} Standard deviation: of a sample, n - 1."]
    if missing := found.missing:
        listed = ", ".join(map(str, missing))
        notes.append(
            f"INCOMPLETE: no result of {'fold' if len(missing) == 1 else 'folds'} {listed}. Mean, median and "
            f"deviation are of the other {len(found.results)} alone."
        )
    if unlike := found.unlike:
        notes.append(
            f"NOT ALIKE: folds ran under different conditions, which times and scores may follow: "
            f"{', '.join(map(str, unlike))}."
        )
    if repeated := found.repeated:
        notes.append(f"Several results of fold {', '.join(map(str, repeated))}: the newest counts.")
    return notes


def _work(found: CrossValidation) -> str:
    """Return what was done in each fold: folds may be of different sizes, and stop after other numbers of epochs."""
    parts = {fold: work_parts(record, in_full=True) for fold, record in sorted(found.results.items())}
    every = list(parts.values()) or [work_parts(found.first, in_full=True)]
    common = [part for part in every[0] if all(part in others for others in every)]
    folds_of: dict[str, list[int]] = {}
    for fold, own in parts.items():
        folds_of.setdefault(", ".join(part for part in own if part not in common), []).append(fold)
    alike = f"Each fold: {', '.join(common)}."
    if len(folds_of) < 2:
        return alike
    return " ".join([alike, *(f"{_named(folds).capitalize()}: {text}." for text, folds in folds_of.items() if text)])


def _tested(found: CrossValidation) -> str:
    """Return how many samples each fold was tested on: an accuracy of few of them weighs as much as one of many."""
    folds_of: dict[int, list[int]] = {}
    for fold, record in sorted(found.results.items()):
        if record.test is not None:
            folds_of.setdefault(record.test.samples, []).append(fold)
    if not folds_of:
        return ""
    if len(folds_of) == 1:
        return f" Tested on {next(iter(folds_of)):,} samples each."
    return f" Tested on {', '.join(f'{samples:,} samples ({_named(folds)})' for samples, folds in folds_of.items())}."


def _named(folds: Sequence[int]) -> str:
    return f"{'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, folds))}"


def folds_csv(found: Sequence[CrossValidation], metrics: Sequence[str]) -> str:
    """Return a line for each fold with a result: raw values, for other programs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"{key} [{METRICS[key].unit}]" for key in metrics]
    writer.writerow(["id", "data set", "model", "backend", "fold", "folds", *names])
    for one in found:
        spec = one.first.spec
        for fold in sorted(one.results):
            values = [one.value(fold, key) for key in metrics]
            cells = ["" if value is None else value for value in values]
            writer.writerow([one.identity, spec.dataset, spec.model, run_label(one.first), fold, one.folds, *cells])
    return out.getvalue()


def _state(found: CrossValidation, fold: int) -> str:
    if fold in found.results:
        return "ok"
    runs = [run for run in found.runs if run.fold is not None and run.fold.fold == fold]
    if not runs:
        return "not run"
    error = runs[-1].error
    return f"{runs[-1].status}: {error.message}" if error else runs[-1].status


def _text(metric: Metric, value: float | None) -> str:
    return "n/a" if value is None else significant(value, metric.digits)
