"""Records of runs that were validated and tested, with predictions that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tabled import run

from bench.records.learned import EvaluationInfo, FoldInfo, TrainingInfo
from bench.records.record import RunRecord
from bench.training.evaluation import evaluate

CLASSES = ("cat", "dog", "owl")
TRUE = (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)
PREDICTED = (0, 0, 0, 1, 1, 1, 2, 0, 2, 2)


def evaluation(
    true: Sequence[int] = TRUE,
    predicted: Sequence[int] = PREDICTED,
    classes: tuple[str, ...] = CLASSES,
    **changes: Any,
) -> EvaluationInfo:
    """The evaluation of some predictions: of the test, unless ``changes`` say otherwise."""
    facts = {"loss": 0.5, "split": "test", "epoch": 1, "evaluate_s": 0.25, "detailed": True, **changes}
    return evaluate(np.array(true), np.array(predicted), classes, **facts)


def trained(backend: str = "memmap", *, changes: dict[str, Any] | None = None, **spec: Any) -> RunRecord:
    """A run of three epochs, validated after each, the second one best, and tested."""
    wrong = [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 1)]
    validation = [
        evaluation((0, 0, 0, 1), found, loss=0.9 - 0.1 * n, split="val", epoch=n, evaluate_s=0.5, detailed=False)
        for n, found in enumerate(wrong)
    ]
    own = {
        "validation": validation,
        "test": evaluation(),
        "training": TrainingInfo(parameters=1234, train_samples=900, best_epoch=1, stopped_early=True),
    }
    return run(backend, 1.0, 2.0, changes={**own, **(changes or {})}, **spec)


def fold(number: int, *, right: int, identity: str = "k1", folds: int = 4, **spec: Any) -> RunRecord:
    """Fold ``number`` of a cross-validation, with so many of ten test samples right."""
    predicted = [1] * right + [0] * (10 - right)
    changes = {
        "fold": FoldInfo(id=identity, fold=number, folds=folds),
        "test": evaluation([1] * 10, predicted),
        "started_at": f"2026-11-21T00:{number:02}:00.000000+00:00",
    }
    options = {"fold": number, "size": 8, "skip_bad": False}
    return trained(spec.pop("backend", "memmap"), changes=changes, dataset_options=options, **spec)
