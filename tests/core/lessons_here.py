"""Trainings in the test's own process: what they are given, what they tell, and how they are cut short."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.contracts.source import SilentProgress
from bench.runs.findings import Findings
from bench.specs.spec import RunSpec, StoreSpec, make_spec
from bench.stores.prepare import prepare
from bench.training.job import EvaluatedStore, Job


def job_of(folder: Path, **fields: Any) -> Job:
    """What a measured process is given, with stores below ``folder``."""
    option = fields.pop("option", [])
    checkpoint = fields.pop("checkpoint", None)
    fields = {"backend": "memory", "batch_size": 32, "seed": 3, "deterministic": True, **fields}
    spec = make_spec(RunSpec, option, **fields)
    names = {name: getattr(spec, name) for name in StoreSpec.model_fields}
    store = prepare(StoreSpec(**names), folder, (), SilentProgress())
    others = {
        name: prepare(StoreSpec(**{**names, "split": split}), folder, (), SilentProgress())
        for name, split in spec.evaluated_splits.items()
    }
    known = store.manifest
    return Job(
        spec=spec,
        root=store.root,
        hashes_path=store.hashes_path,
        samples=known.count,
        shape=known.shape,
        dtype=known.dtype,
        classes=known.classes,
        scale=None,
        ceiling=False,
        digest=known.source_digest,
        checkpoint=checkpoint,
        **{
            name: EvaluatedStore(
                found.manifest.split,
                found.root,
                found.hashes_path,
                found.manifest.count,
                found.manifest.source_digest,
            )
            for name, found in others.items()
        },
    )


class Told:
    """The parent's side of a trial, in this process; ``on`` may answer, or end it all."""

    def __init__(self, on: Callable[[str, Any], Any] = lambda topic, value: None) -> None:
        self.facts: list[tuple[str, Any]] = []
        self.found = Findings()
        self._on = on

    def tell(self, topic: str, value: Any = None) -> None:
        self.facts.append((topic, value))
        self._on(topic, value)

    def ask(self, topic: str, value: Any = None) -> Any:
        self.tell(topic, value)
        return json.dumps({"epoch": self.all("epoch")[-1].model_dump(mode="json")}) if topic == "keep" else None

    def all(self, topic: str) -> list[Any]:
        return [value for name, value in self.facts if name == topic]


def small(shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    """A quick network with all that makes a training hard to repeat: running statistics, and something drawn."""
    layers = [torch.nn.Conv2d(shape[0], 6, 3, stride=2), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Dropout(0.25), torch.nn.Linear(54, classes))


def batch_losses(told: Told) -> list[float]:
    return [loss for info in told.all("epoch") for loss in info.batch_loss]


class Cut(BaseException):
    """Stands for whatever ends a process."""
