"""Batches of indices for torch's own DataLoader, for those who want a reader and nothing else of ours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


class IndexBatches(Sampler[torch.Tensor]):
    """Yields a tensor ``(batch_size,)`` int64 of sample numbers for each batch; the last one may be smaller.

    ``DataLoader(reader, batch_size=None, sampler=IndexBatches(len(reader), 256))`` asks the reader for whole batches.
    Tensors, since a list of Python numbers for each batch halves the throughput of small samples. The order of an epoch
    is the one that `bench run` takes with the same seed: NumPy's PCG64 seeded with (seed, epoch).

    Args:
        count: Number of samples.
        batch_size: Samples in a batch.
        seed: Of the shuffle.
        shuffle: Whether to shuffle at all; else samples come in the stored order.
    """

    def __init__(self, count: int, batch_size: int, *, seed: int = 0, shuffle: bool = True) -> None:
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; each further pass is the next epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[torch.Tensor]:
        # A generator, so that asking for an iterator without using it, as DataLoader does, is no epoch.
        epoch, self._epoch = self._epoch, self._epoch + 1
        order = np.arange(self._count)
        if self._shuffle:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
        batches: tuple[torch.Tensor, ...] = torch.split(torch.from_numpy(order), self._batch_size)
        # Of nothing, split makes one batch of nothing.
        yield from batches[: len(self)]

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)
