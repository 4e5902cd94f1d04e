"""How a network was trained, in words."""

from __future__ import annotations

from bench.record import RunRecord


def protocol_text(record: RunRecord) -> str:
    """Return how a network was trained, in short, as far as that is not what happens by default."""
    spec = record.spec
    usual = spec.implied() | ({"weight_decay"} if not spec.weight_decay else set())
    parts: list[str] = [] if spec.optimizer == "sgd" else [spec.optimizer]
    parts += [
        f"{name.replace('_', ' ')} {getattr(spec, name):g}"
        for name in ("lr", "weight_decay", "momentum")
        if name not in usual
    ]
    return ", ".join(parts)
