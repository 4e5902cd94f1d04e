"""The order in which an epoch takes its samples: a function of the spec, the same for every backend."""

from __future__ import annotations

import numpy as np

from bench.contracts.reader import Indices
from bench.spec import RunSpec


def epoch_order(spec: RunSpec, count: int, epoch: int) -> Indices:
    """Return the numbers of all samples in the order in which an epoch takes them.

    A full shuffle is a uniform permutation by NumPy's PCG64 seeded with (seed, epoch).
    """
    if spec.shuffle == "full":
        return np.random.default_rng([spec.seed, epoch]).permutation(count)
    return np.arange(count)


def batch_indices(spec: RunSpec, count: int, epoch: int, batches: int | None = None) -> list[Indices]:
    """Return the sample indices of each batch of an epoch, or of its first ``batches``; the last one may be smaller."""
    order = epoch_order(spec, count, epoch)
    starts = range(0, count, spec.batch_size)[:batches]
    return [order[start : start + spec.batch_size] for start in starts]
