"""A cross-validation as a table: the scores of each fold, and what they are over all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.learned import EvaluationInfo
from bench.metrics import significant
from bench.record import RunRecord
from bench.report.protocol import protocol_text
from bench.report.tables import Table, data_label, run_label
from bench.stats import deviation

_SCORES = ("accuracy", "macro_f1")


def fold_table(records: Sequence[RunRecord]) -> Table:
    """Return the scores on the test samples of each fold, and their mean, median and standard deviation."""
    tested = [(r, r.test) for r in records if r.test is not None and r.fold is not None]
    rows = [
        [f"fold {record.fold.fold}", f"{test.samples:,}", *(_percent(getattr(test, score)) for score in _SCORES)]
        for record, test in tested
        if record.fold is not None
    ]
    tests = [test for _, test in tested]
    for name, of in (("mean", statistics.fmean), ("median", statistics.median), ("standard deviation", deviation)):
        values = [of(_values(tests, score)) for score in _SCORES]
        rows.append([name, "", *("n/a" if value is None else _percent(value) for value in values)])
    first = records[0]
    folds = first.fold.folds if first.fold else len(records)
    covered = "" if len(tested) == folds else f" {len(tested)} of its {folds} folds were run."
    notes = [f"Standard deviation: of a sample, over folds.{covered}"]
    how = protocol_text(first)
    title = f"{run_label(first)} on {data_label(first)}: {first.spec.model}, {folds}-fold cross-validation"
    columns = ["", "test samples", "accuracy, %", "macro F1, %"]
    return Table(f"{title}, {how}" if how else title, columns, rows, notes)


def _values(tests: Sequence[EvaluationInfo], score: str) -> list[float]:
    return [getattr(test, score) for test in tests]


def _percent(share: float) -> str:
    return significant(100 * share, 3)
