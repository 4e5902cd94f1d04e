"""What a reader that delivers on a CUDA device is asked for, without such a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_plugins

from bench.contracts.reader import Indices, Reader
from bench.loading.batches import Slot
from bench.loading.order import Order
from bench.specs.spec import RunSpec
from bench.training import delivery
from bench.training.delivery import open_store
from bench.training.validation import Evaluator

X, Y = toy_plugins.toy_arrays()
CUDA = torch.device("cuda", 0)
SPEC = RunSpec(backend="memmap", dataset="toys", batch_size=32)


class OnDevice(Reader):
    """Delivers everywhere; ``asked`` has what it was asked for, in order."""

    def __init__(self, asked: list[Any]) -> None:
        super().__init__(len(Y), X.shape[1:], X.dtype)
        self.asked = asked

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        self.asked.append("read")
        x.numpy()[:], y.numpy()[:] = X[indices], Y[indices]

    def open_device(self, device: torch.device, batch_size: int = 0) -> None:
        self.asked.append(("open", device, batch_size))

    def device_batches(
        self, order_batches: Iterator[Indices], device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for indices in order_batches:
            self.asked.append(("batch", device, indices.tolist()))
            yield torch.from_numpy(X[indices]), torch.from_numpy(Y[indices])

    def close_device(self) -> None:
        self.asked.append("close")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have every store be one of that reader, and slots lie in memory that is not page-locked."""
    found: list[Any] = []
    backend = SimpleNamespace(import_libraries=lambda: found.append("import"), open=lambda _: OnDevice(found))
    monkeypatch.setattr(RunSpec, "open_backend", lambda _: backend)
    allocated = Slot.allocated
    monkeypatch.setattr(Slot, "allocated", lambda *given, pin: allocated(*given, pin=False))
    return found


class Known:
    """A network that knows all labels."""

    def predict(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], on_batch: Callable[[int], None]
    ) -> tuple[float, torch.Tensor, torch.Tensor]:
        labels = torch.cat([y.clone() for _, y in batches])
        on_batch(len(labels))
        return 0.0, labels, labels


def test_training_is_delivered_on_the_device(asked: list[Any], tmp_path: Path) -> None:
    order = Order(SPEC, len(Y))
    with ExitStack() as stack:
        opened = open_store(SPEC, tmp_path, order, CUDA, stack)
        delivered = np.concatenate([y.numpy() for _, y in opened.loader.epoch(0)])
    assert delivered.tolist() == Y[order.epoch(0)].tolist()
    batches = [("batch", CUDA, indices.tolist()) for indices in order.batches(0)]
    assert asked == ["import", ("open", CUDA, 32), *batches, "close"]


def test_buffers_are_no_larger_than_an_epoch(asked: list[Any], tmp_path: Path) -> None:
    with ExitStack() as stack:
        open_store(SPEC, tmp_path, Order(SPEC, len(Y), np.arange(20)), CUDA, stack)
    assert asked == ["import", ("open", CUDA, 20), "close"]


def test_importing_a_library_is_no_part_of_opening(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(delivery, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    backend = SPEC.open_backend()
    backend.import_libraries = lambda: now_s.__setitem__(0, 5.0)
    monkeypatch.setattr(OnDevice, "open_device", lambda *_: now_s.__setitem__(0, now_s[0] + 0.25))
    with ExitStack() as stack:
        opened = open_store(SPEC, tmp_path, Order(SPEC, len(Y)), CUDA, stack)
    assert (opened.open_s, now_s) == (0.25, [5.25])


def test_evaluation_leaves_the_device_to_the_training(asked: list[Any], tmp_path: Path) -> None:
    """On it there would be a second copy of the samples, which may not fit, and counts in the epochs that follow."""
    done: list[int] = []
    evaluator = Evaluator(SPEC, tmp_path, "held out", len(Y), np.arange(5, 105))
    found = evaluator.predictions(Known(), CUDA, 0, done.append)  # type: ignore[arg-type]
    assert found.true.tolist() == Y[5:105].tolist()
    assert asked == ["import", *["read"] * 4]
    assert done == [100]
