"""Every data set on a small copy in its published layout: prepared, verified and trained on from every backend."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_sources import CASES

from bench import loading, registry
from bench.contracts.source import SilentProgress
from bench.measure.clock import HostClock
from bench.specs.spec import RunSpec, StoreSpec, make_spec
from bench.stores.prepare import prepare, verify
from bench.training.trainer import Trainer

CPU = torch.device("cpu")


def spec(name: str, place: Path, backend: str) -> RunSpec:
    own = CASES[name].source.takes_path
    source = "auto" if own else f"local:{place}"
    return make_spec(
        RunSpec, [], backend=backend, dataset=f"{name}:{place}" if own else name, source=source, batch_size=3
    )


def losses(run: RunSpec, data_dir: Path) -> list[float]:
    """Prepare and verify the store of a run, and return the loss of each step of an epoch."""
    which = StoreSpec(**{name: getattr(run, name) for name in StoreSpec.model_fields})
    built = prepare(which, data_dir, (), SilentProgress())
    assert built.manifest.store_digest == built.manifest.source_digest
    assert verify(which, data_dir, (), SilentProgress())[1].problem is None
    known = built.manifest
    loader = loading.make_loader(run.open_backend().open(built.root), run)
    torch.manual_seed(run.seed)
    images = len(known.shape) == 3
    model = registry.model_builder("cnn")(known.shape, len(known.classes)) if images else None
    scale = None if known.content.mean is None else (known.content.mean, known.content.std)
    trainer = Trainer(model, CPU, amp=False, scale=scale)
    try:
        result = trainer.epoch(loader.epoch(0), HostClock(), lambda samples: None)
    finally:
        loader.close()
    assert result.samples == known.count
    return result.batch_loss or []


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", CASES)
def test_a_small_copy_goes_the_whole_way_in_every_backend(name: str, tmp_path: Path) -> None:
    place = CASES[name].lay_out(tmp_path, CASES[name].truth)
    found = {backend: losses(spec(name, place, backend), tmp_path / "data") for backend in registry.BACKENDS}
    assert {backend: values for backend, values in found.items() if values != found["memory"]} == {}
    assert all(value == value for value in found["memory"]), "a loss is no number"
