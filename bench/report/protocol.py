"""How a network was trained, in words."""

from __future__ import annotations

from pathlib import Path

from bench.records.record import RunRecord
from bench.specs.protocol import NO_MODEL


def protocol_parts(record: RunRecord, *, in_full: bool = False) -> list[str]:
    """Return each part of how a network was trained, as far as that is not what happens by default.

    ``in_full`` names the optimizer and its learning rate even so, as who repeats the training elsewhere needs them.
    """
    spec = record.spec
    parts: list[str] = [] if spec.weights is None else [f"weights of {Path(spec.weights).name}"]
    usual = spec.implied() | ({"weight_decay"} if not spec.weight_decay else set())
    always = {"optimizer", "lr"} if in_full and spec.model != NO_MODEL else set()
    parts += [spec.optimizer] if spec.optimizer != "sgd" or "optimizer" in always else []
    parts += [
        f"{name.replace('_', ' ')} {getattr(spec, name):g}"
        for name in ("lr", "weight_decay", "momentum")
        if name in always or name not in usual
    ]
    parts += [f"{name} {value}" for name in ("val", "test") if (value := getattr(spec, name)) is not None]
    parts += [] if spec.early_stopping is None else [f"early stopping {spec.early_stopping}"]
    return [*parts, "class weights"] if spec.class_weights else parts


def memory_limit_text(record: RunRecord) -> str:
    """Return the limit of memory that a run was asked to have; nothing where it had none of its own."""
    limit = record.spec.memory_limit_bytes
    return "" if limit is None else f"memory limit {limit / 2**20:,.0f} MiB"


def samples_text(record: RunRecord) -> str:
    """Return how many samples were trained on, of how many where some were held out; nothing where that is unknown."""
    if record.data is None:
        return ""
    trained = record.training.train_samples if record.training else None
    return f"{record.data.count:,} samples" if trained is None else f"{trained:,} of {record.data.count:,} samples"
