"""The ceiling: the same training from batches that lie on the device already."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.loading import Batch
from bench.measure.clock import PhaseClock
from bench.records.record import EpochInfo
from bench.training.epochs import epoch_info, sample_bytes
from bench.training.job import Job
from bench.training.trainer import Trainer

RESIDENT_BYTES = 64 * 2**20
"""How much of the data stays on the device for the ceiling: more than most caches, little beside a network."""

IDEAL_S = 5.0
"""How long the ceiling is measured at least, where the run has that many epochs."""


class Resident:
    """Batches kept on the device, to train from as if loading cost nothing.

    They lie in one piece, so that they do not break up the heap that the training allocates from. ``samples`` are
    those of an epoch.
    """

    def __init__(self, job: Job, samples: int, device: torch.device) -> None:
        self._device = device
        self._samples = samples
        self._batch_size = job.spec.batch_size
        batch_bytes = max(1, self._batch_size * sample_bytes(job))
        full = samples // self._batch_size
        self.limit = min(full, max(2, RESIDENT_BYTES // batch_bytes)) if job.trains_ceiling else 0
        self._kept = 0

    def keep(self, x: Tensor, y: Tensor) -> None:
        """Keep a copy of a full batch, as long as there is room."""
        if self._kept == self.limit or len(y) != self._batch_size:
            return
        if not self._kept:
            size = self.limit * self._batch_size
            self._x = torch.empty((size, *x.shape[1:]), dtype=x.dtype, device=self._device)
            self._y = torch.empty(size, dtype=y.dtype, device=self._device)
        here = slice(self._kept * self._batch_size, (self._kept + 1) * self._batch_size)
        self._x[here], self._y[here] = x, y
        self._kept += 1

    def once(self) -> Iterator[Batch]:
        """Yield each batch that was kept."""
        for start in range(0, self._kept * self._batch_size, self._batch_size):
            here = slice(start, start + self._batch_size)
            yield self._x[here], self._y[here]

    def epoch(self) -> Iterator[Batch]:
        """Yield as many batches of the same sizes as an epoch has, over and over the same."""
        for number, start in enumerate(range(0, self._samples, self._batch_size)):
            first = number % self._kept * self._batch_size
            here = slice(first, first + min(self._batch_size, self._samples - start))
            yield self._x[here], self._y[here]


def measure_ideal(
    job: Job, trainer: Trainer, resident: Resident, clock: PhaseClock, batch_done: Callable[[int], None]
) -> EpochInfo:
    """Train as many epochs as were counted, fewer once that has taken long enough, and return the median one.

    They all count: before them, each of the resident batches is trained on once. And they are an odd number, one more
    where need be, as the larger or the smaller of two would be no ceiling to hold the run's own median against.
    """
    trainer.epoch(resident.once(), clock, batch_done)
    counted = max(1, job.spec.epochs - 1)
    infos: list[EpochInfo] = []
    while len(infos) % 2 == 0 or (len(infos) < counted and sum(info.epoch_s for info in infos) < IDEAL_S):
        number = len(infos)
        result = trainer.epoch(resident.epoch(), clock, batch_done, number)
        infos.append(epoch_info(job, number, result, None, warmup=False))
    return sorted(infos, key=lambda info: info.epoch_s)[len(infos) // 2]
