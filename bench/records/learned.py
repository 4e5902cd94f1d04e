"""Parts of a record that say what a network has learnt: validation, test, folds, and how training went on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    # As in bench.records.record: a loss that has become NaN stays one.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class ClassInfo(_Part):
    """How well one class was recognised; None where a share is undefined (nothing of it was predicted, or is there)."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    """Samples of the class."""


class EvaluationInfo(_Part):
    """One pass over samples that were not trained on, outside of every epoch that is timed.

    ``split`` is the split of the data set, or ``held out``: a share of the training samples. ``epoch`` is the one
    after which it happened, or, at the end, the one whose weights were used. Macro averages weigh all classes alike,
    weighted ones by their samples. ``confusion`` is ``(classes, classes)``, a row for each true class, a column for
    each predicted one.
    """

    split: str
    epoch: int
    samples: int
    loss: float
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    per_class: list[ClassInfo] = []
    confusion: list[list[int]] | None = None
    evaluate_s: float


class TrainingInfo(_Part):
    """What became of the training: None and empty where there was nothing of the kind.

    ``train_samples`` is how many samples an epoch trains on, where some were held out. ``resumed_before`` are the
    epochs before which the run went on from a checkpoint, in a new process.
    """

    parameters: int | None = None
    train_samples: int | None = None
    best_epoch: int | None = None
    stopped_early: bool = False
    class_weights: list[float] | None = None
    resumed_before: list[int] = []


class FoldInfo(_Part):
    """Which fold of a cross-validation a run is: ``fold`` of ``folds``, from 1; ``id`` is common to its runs."""

    id: str
    fold: int
    folds: int
