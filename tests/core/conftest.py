"""Fixtures of the tests of what is learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_plugins
from lessons_here import Told, small

from bench.training.job import Job
from bench.training.trial import run_trial

X, Y = toy_plugins.toy_arrays()


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Samples whose class can be read off them, as a set of the user's own: 180 train, 60 are for val, 60 for test."""
    folder = tmp_path / "own"
    folder.mkdir()
    for split, part in (("train", slice(180)), ("val", slice(180, 240)), ("test", slice(240, 300))):
        np.save(folder / f"x_{split}.npy", X[part])
        np.save(folder / f"y_{split}.npy", Y[part])
    return folder


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a job to its end in this process, with a small network, and return what it told."""
    monkeypatch.setattr("bench.registry.model_builder", lambda name: small)

    def run(job: Job, on: Callable[[str, Any], Any] = lambda topic, value: None) -> Told:
        told = Told(on)
        run_trial(told, job, SimpleNamespace(value=0))
        assert [failure.message for failure in told.all("failed")] == []
        return told

    yield run
    torch.use_deterministic_algorithms(False)
