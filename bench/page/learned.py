"""What the page knows of what networks learnt: validation by epoch, tests by class, and cross-validations.

A confusion matrix of 200 classes is large, and methods that trained alike share one, so each is kept once, as its
cells that are not 0, and only for so many methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.page.methods import number
from bench.records.cross_validation import CrossValidation, cross_validations
from bench.records.groups import Work
from bench.records.learned import EvaluationInfo
from bench.records.metrics import significant
from bench.records.record import RunRecord
from bench.report.cross_validated import FOLD_METRICS
from bench.report.learning import split_text
from bench.report.tables import data_label, run_label

TESTS_PER_WORK = 8
CELLS = 100_000
"""Cells that are not 0, of all matrices of a page: about 1 MB."""

CROSS_VALIDATIONS = 200


class KeptTests:
    """The tests of works, as far as there is room for them, and the names of classes that they refer to."""

    def __init__(self) -> None:
        self.classes: list[list[str]] = []
        self._cells_left = CELLS

    def of(self, work: Work) -> tuple[list[dict[str, Any]], list[int | None]]:
        """Return the different tests of the last runs of a work's methods, and for each method which is its own.

        None where a method was not tested, -1 where its test is not kept.
        """
        places: list[int | None] = []
        known: dict[str, int] = {}
        kept: list[dict[str, Any]] = []
        for group in work.groups:
            test = group.records[-1].test
            if test is None or test.confusion is None:
                places.append(None)
                continue
            key = test.model_dump_json(exclude={"evaluate_s"})
            if key not in known:
                cells = _cells(test.confusion)
                fits = len(kept) < TESTS_PER_WORK and len(cells) // 2 <= self._cells_left
                known[key] = len(kept) if fits else -1
                if fits:
                    self._cells_left -= len(cells) // 2
                    kept.append(_test(test) | {"classes": self._classes(test), "cells": cells})
            places.append(known[key])
        return kept, places

    def _classes(self, test: EvaluationInfo) -> int:
        names = [one.name for one in test.per_class]
        if names not in self.classes:
            self.classes.append(names)
        return self.classes.index(names)


def _cells(confusion: Sequence[Sequence[int]]) -> list[int]:
    """Return the cells that are not 0, row by row, each as its place and its count."""
    width = len(confusion)
    return [
        value
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if count
        for value in (true * width + predicted, count)
    ]


def _test(test: EvaluationInfo) -> dict[str, Any]:
    shares = [[number(one.precision, 4), number(one.recall, 4), number(one.f1, 4)] for one in test.per_class]
    averages = [
        [test.macro_precision, test.macro_recall, test.macro_f1],
        [test.weighted_precision, test.weighted_recall, test.weighted_f1],
    ]
    return {
        "about": f"Tested on {split_text(test)}, {test.samples:,} samples, with the weights of epoch {test.epoch}: "
        f"accuracy {significant(100 * test.accuracy, 3)} %, loss {significant(test.loss, 3)} nats.",
        "samples": test.samples,
        "shares": shares,
        "averages": [[number(value, 4) for value in values] for values in averages],
    }


def validations(work: Work) -> list[list[list[float | None]]]:
    """Return epoch, loss and accuracy of each validation of the last run of each group."""
    return [
        [[found.epoch, number(found.loss), number(found.accuracy)] for found in group.records[-1].validation]
        for group in work.groups
    ]


def folds(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return the newest cross-validations: what they are of, every fold's value, and mean, median and deviation."""
    every = cross_validations(records)[::-1]
    chosen = every[:CROSS_VALIDATIONS]
    names = [_name(one) for one in chosen]
    counts = Counter(names)
    return {
        "metrics": [key for key in (*FOLD_METRICS, "epoch_s") if any(one.moments(key) for one in chosen)],
        "all": [
            _cross_validation(one, name if counts[name] == 1 else f"{name}, {one.identity}")
            for one, name in zip(chosen, names, strict=True)
        ],
        "more": len(every) - len(chosen),
    }


def _name(found: CrossValidation) -> str:
    record = found.first
    return f"{run_label(record)}, {record.spec.model}, {data_label(record)}"


def _cross_validation(found: CrossValidation, label: str) -> dict[str, Any]:
    values, summaries = {}, {}
    for key in (*FOLD_METRICS, "epoch_s"):
        moments = found.moments(key)
        if moments is None:
            continue
        by_fold = [(fold, found.value(fold, key)) for fold in sorted(found.results)]
        values[key] = [[fold, number(value)] for fold, value in by_fold if value is not None]
        summaries[key] = [number(moments.mean), number(moments.median), number(moments.deviation)]
    return {
        "label": label,
        "id": found.identity,
        "folds": found.folds,
        "missing": found.missing,
        "repeated": found.repeated,
        "values": values,
        "summaries": summaries,
    }
