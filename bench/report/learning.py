"""What a record says of training, validation, test and folds, in sentences."""

from __future__ import annotations

from bench.records.learned import EvaluationInfo
from bench.records.record import RunRecord


def learning_notes(record: RunRecord) -> list[str]:
    """Return a sentence or two for each of these parts that a record has."""
    return [text for text in (_training(record), _validation(record), _test(record), _fold(record)) if text]


def split_text(evaluation: EvaluationInfo) -> str:
    """Return what was evaluated, in words."""
    held_out = evaluation.split == "held out"
    return "samples held out of training" if held_out else f"split {evaluation.split}"


def _training(record: RunRecord) -> str:
    training = record.training
    if training is None:
        return ""
    parts = []
    if training.parameters is not None:
        parts.append(f"{training.parameters:,} parameters")
    if training.train_samples is not None:
        parts.append(f"{training.train_samples:,} samples trained on")
    parts += ["weighted classes"] if training.class_weights else []
    parts += ["stopped early"] if training.stopped_early else []
    if training.resumed_before:
        parts.append(f"went on from a checkpoint before epoch {', '.join(map(str, training.resumed_before))}")
    return f"Training: {', '.join(parts)}." if parts else ""


def _validation(record: RunRecord) -> str:
    if not record.validation:
        return ""
    last = record.validation[-1]
    best = record.training.best_epoch if record.training else None
    text = f"Validation: {split_text(last)}, {last.samples:,} samples, after each epoch and outside of its time"
    return f"{text}; best after epoch {best}." if best is not None else f"{text}."


def _test(record: RunRecord) -> str:
    test = record.test
    if test is None:
        return ""
    text = f"Test: {split_text(test)}, {test.samples:,} samples, with the weights of epoch {test.epoch}."
    return f"{text} Macro averages weigh classes alike, weighted ones by their samples."


def _fold(record: RunRecord) -> str:
    fold = record.fold
    if fold is None:
        return ""
    return (
        f"Fold {fold.fold} of {fold.folds} of cross-validation {fold.id}: `bench folds {fold.id}` puts them together."
    )
