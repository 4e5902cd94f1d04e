"""What a network has learnt: predictions outside of every timed epoch, the best weights, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.contracts.reader import Indices
from bench.loading.order import Order
from bench.specs.spec import RunSpec
from bench.training.delivery import DeliveryError, open_store
from bench.training.predictions import Predictions
from bench.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Predicts the classes of samples of a store: of all, or of those with the numbers ``members``, ascending.

    They are read by the run's own backend, in the stored order and without workers. The store is opened anew each
    time, so nothing of it stays open, or in memory, while an epoch is timed. A backend that delivers on the device is
    read on the host here: a second copy of its samples may not fit there beside the first, would have to be loaded
    after each epoch, and would stay in torch's cache, and so in the peak of the epochs that follow.
    """

    spec: RunSpec
    root: Path
    split: str
    samples: int
    members: Indices | None = None

    def predictions(
        self, trainer: Trainer, device: torch.device, epoch: int, on_batch: Callable[[int], None]
    ) -> Predictions:
        """Return what the network takes the samples for after ``epoch``. Raises DeliveryError, BackendError."""
        started = time.perf_counter()
        plain = self.spec.model_copy(update={"workers": 0, "shuffle": "none", "balanced_sampler": False})
        order = Order(plain, self.samples, self.members)
        with ExitStack() as stack:
            opened = open_store(plain, self.root, order, device, stack, on_device=False)
            loss, true, predicted = trainer.predict(opened.loader.epoch(0), on_batch)
        evaluate_s = time.perf_counter() - started
        if len(true) != len(order):
            raise DeliveryError(
                f"{self.spec.backend} delivered {len(true):,} samples of {self.split} instead of {len(order):,}. "
                "The loader is at fault."
            )
        return Predictions(self.split, epoch, order.epoch(0), true.numpy(), predicted.numpy(), loss, evaluate_s)


class Best:
    """The weights of the epoch with the highest validation accuracy so far, the first of equal ones."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self.epoch: int | None = None
        self.accuracy = -1.0
        self._weights: dict[str, Any] = {}
        self._last = -1

    def consider(self, epoch: int, accuracy: float, network: nn.Module) -> None:
        """Keep the weights of an epoch where none before it was as good."""
        self._last = epoch
        if accuracy > self.accuracy:
            self.epoch, self.accuracy = epoch, accuracy
            # In memory of the host: on the device they would take what the training may need.
            weights = network.state_dict()
            self._weights = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}

    @property
    def exhausted(self) -> bool:
        """Whether as many epochs as were to be waited for went by without gain."""
        return self._patience is not None and self.epoch is not None and self._last - self.epoch >= self._patience

    def restore(self, network: nn.Module) -> None:
        """Give the network its best weights back."""
        network.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """Return all that ``load`` needs."""
        return {"epoch": self.epoch, "accuracy": self.accuracy, "weights": self._weights, "last": self._last}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.epoch, self.accuracy = state["epoch"], state["accuracy"]
        self._weights, self._last = state["weights"], state["last"]
