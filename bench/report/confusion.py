"""What a test found out about classes: the confusion matrix as a table and as CSV, and shares by class."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from bench.contracts.errors import BenchError
from bench.records.learned import EvaluationInfo
from bench.records.metrics import significant
from bench.records.record import RunRecord
from bench.report.learning import split_text
from bench.report.tables import Table, data_label, run_label

TABLE_CLASSES = 20
"""Up to so many classes the whole matrix is a table; of more, the most frequent confusions are listed."""

LISTED = 25


class ConfusionError(BenchError):
    """A run that was not tested."""


@dataclass(frozen=True, slots=True)
class Tested:
    """The test of a run: a title, the names of the classes, and counts, a row for each true class."""

    title: str
    about: str
    classes: list[str]
    counts: list[list[int]]
    evaluation: EvaluationInfo

    @property
    def totals(self) -> list[int]:
        """Samples of each class."""
        return [sum(row) for row in self.counts]


def tested(record: RunRecord, name: str) -> Tested:
    """Return the test of a run called ``name``. Raises ConfusionError where it has none."""
    test = record.test
    if test is None or test.confusion is None:
        remedy = f"Train again with --test, such as: bench run --backend {record.spec.backend} … --test test."
        raise ConfusionError(f"{name} was not tested, so it has no confusion matrix and no table of classes. {remedy}")
    accuracy, f1 = (significant(100 * share, 3) for share in (test.accuracy, test.macro_f1))
    what = f"{run_label(record)} on {data_label(record)}: {record.spec.model}"
    about = f"{split_text(test)}, {test.samples:,} samples, accuracy {accuracy} %, macro F1 {f1} %"
    return Tested(what, about, [one.name for one in test.per_class], test.confusion, test)


def confusion_table(found: Tested) -> Table:
    """Return the matrix, or of many classes the most frequent confusions."""
    title = f"Confusion matrix, {found.title}: {found.about}"
    if len(found.classes) <= TABLE_CLASSES:
        rows = [[name, *map(str, row)] for name, row in zip(found.classes, found.counts, strict=True)]
        notes = ["Rows: true classes. Columns: what they were taken for. Numbers: samples."]
        return Table(title, ["true", *found.classes], rows, notes)
    wrong = [
        (count, true, predicted)
        for true, row in enumerate(found.counts)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    wrong.sort(key=lambda one: (-one[0], one[1], one[2]))
    rows = [
        [found.classes[true], found.classes[predicted], f"{count:,}", _percent(count / found.totals[true])]
        for count, true, predicted in wrong[:LISTED]
    ]
    note = f"The most frequent of {len(wrong):,} confusions of {len(found.classes)} classes; --csv and --svg have all."
    return Table(title, ["true", "taken for", "samples", "of the class, %"], rows, [note], text_columns=2)


def class_table(found: Tested) -> Table:
    """Return precision, recall, F1 and samples of each class, and the averages."""
    test = found.evaluation
    rows = [
        [one.name, _percent(one.precision), _percent(one.recall), _percent(one.f1), f"{one.support:,}"]
        for one in test.per_class
    ]
    samples = f"{test.samples:,}"
    macro = [test.macro_precision, test.macro_recall, test.macro_f1]
    weighted = [test.weighted_precision, test.weighted_recall, test.weighted_f1]
    rows.append(["macro average", *map(_percent, macro), samples])
    rows.append(["weighted average", *map(_percent, weighted), samples])
    columns = ["class", "precision, %", "recall, %", "F1, %", "samples"]
    notes = [
        "n/a: undefined, as the class was never predicted (precision) or has no samples (recall). Averages count that "
        "as 0; a class that is neither there nor predicted is no part of them."
    ]
    return Table(f"Classes, {found.title}: {found.about}", columns, rows, notes)


def confusion_csv(found: Tested) -> str:
    """Return the matrix with names: a line for each true class, a column for each predicted one."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["true class", *found.classes])
    writer.writerows([name, *row] for name, row in zip(found.classes, found.counts, strict=True))
    return out.getvalue()


def _percent(share: float | None) -> str:
    return "n/a" if share is None else significant(100 * share, 3)
