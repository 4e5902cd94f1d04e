"""The order in which an epoch takes its samples, a function of the spec alone, and how well it shuffles them."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import BackendError
from bench.contracts.reader import BatchReader, Indices
from bench.specs.spec import RunSpec
from bench.stores import digest

Labels = NDArray[np.int64]


def epoch_order(spec: RunSpec, count: int, epoch: int) -> Indices:
    """Return the numbers of all samples in the order in which an epoch takes them.

    A full shuffle is a uniform permutation by NumPy's PCG64 seeded with (seed, epoch), and so are the permutations
    that make a block shuffle.
    """
    random = np.random.default_rng([spec.seed, epoch])
    if spec.shuffle == "full":
        return random.permutation(count)
    if spec.block_samples is not None and spec.buffer_blocks is not None:
        return _block_order(random, count, spec.block_samples, spec.buffer_blocks)
    return np.arange(count)


def _block_order(random: np.random.Generator, count: int, block_samples: int, buffer_blocks: int) -> Indices:
    """Permute blocks of consecutive samples, and then the samples of each ``buffer_blocks`` blocks in turn."""
    block_samples = min(block_samples, count)
    blocks = -(-count // block_samples)
    buffer_blocks = min(buffer_blocks, blocks)
    # Every buffer is made equally long by samples that do not exist. Taking them out again afterwards leaves what is
    # there uniformly shuffled, and one call shuffles all buffers, in linear time.
    absent = np.full(-blocks % buffer_blocks, blocks)
    firsts = np.concatenate([random.permutation(blocks), absent]) * block_samples
    buffers = (firsts[:, np.newaxis] + np.arange(block_samples)).reshape(-1, buffer_blocks * block_samples)
    random.permuted(buffers, axis=1, out=buffers)
    order = buffers.reshape(-1)
    return order[order < count]


class Order:
    """The order of all epochs of a run.

    Args:
        spec: Says how samples are shuffled.
        count: Samples of the store.
        members: Numbers ``(n,)`` of the samples that take part, ascending; None for all.
        weights: Of the members, ``(n,)``, positive: how likely each is drawn. An epoch then is ``n`` draws with
            replacement by NumPy's PCG64 seeded with (seed, epoch), whatever the shuffle. None where each comes once.
    """

    def __init__(
        self,
        spec: RunSpec,
        count: int,
        members: Indices | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self._spec = spec
        self._count = count if members is None else len(members)
        self._members = members
        self._heights = None if weights is None else np.cumsum(weights)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self._count

    def places(self, epoch: int) -> Indices:
        """Return the order of an epoch by the places of samples among the members, ``(n,)``."""
        if self._heights is None:
            return epoch_order(self._spec, self._count, epoch)
        random = np.random.default_rng([self._spec.seed, epoch])
        drawn = random.random(self._count) * self._heights[-1]
        # Rounded up to the sum of all weights, a draw would be beyond the last member.
        places: Indices = np.minimum(np.searchsorted(self._heights, drawn, side="right"), self._count - 1)
        return places

    def epoch(self, epoch: int, batches: int | None = None) -> Indices:
        """Return the numbers of the samples of an epoch, or of its first ``batches``, in order."""
        places = self.places(epoch)
        if batches is not None:
            places = places[: batches * self._spec.batch_size]
        return places if self._members is None else self._members[places]

    def batches(self, epoch: int, batches: int | None = None) -> list[Indices]:
        """Return the samples of each batch of an epoch, or of its first ``batches``; the last one may be smaller."""
        order, size = self.epoch(epoch, batches), self._spec.batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]


def batch_indices(spec: RunSpec, count: int, epoch: int, batches: int | None = None) -> list[Indices]:
    """Return the batches of an epoch of all ``count`` samples, see :meth:`Order.batches`."""
    return Order(spec, count).batches(epoch, batches)


def mean_displacement(order: Indices) -> float | None:
    """Return how far samples lie from their place in the store, on average, relative to a uniform shuffle.

    ``order`` ``(n,)`` is a permutation of 0…n-1. 0 for the stored order, about 1 for a uniform shuffle: there the
    sample at position i is each j with probability 1/n, so the mean of |i - j| is the sum over all pairs divided by
    n²: (n² - 1) / (3n). It is Spearman's footrule divided by its expectation (Diaconis and Graham 1977, "Spearman's
    Footrule as a Measure of Disarray"), and varies by about 0.63 / sqrt(n), for blocks of their number. None for a
    single sample.
    """
    count = len(order)
    if count < 2:
        return None
    expected = (count**2 - 1) / (3 * count)
    return float(np.abs(order - np.arange(count)).mean()) / expected


def class_mixing(order: Indices, labels: Labels, batch_size: int) -> float | None:
    """Return how much the classes of batches vary, relative to a uniform shuffle; lower is better mixed.

    ``order`` and ``labels`` are ``(n,)``, the latter by the sample's number in the store. It is Pearson's
    chi-squared statistic of the table of batches and classes, divided by its exact mean over all permutations,
    n (batches - 1) (classes - 1) / (n - 1), to which the variances of the cells, hypergeometric each, add up (Haldane
    1940, "The Mean and Variance of chi-squared, When Used as a Test of Homogeneity, When Expectations Are Small").

    So 1 is what a uniform shuffle has on average, give or take sqrt(2 / ((batches - 1) (classes - 1))). 4 means that
    the shares of classes vary between batches as they do between uniform batches of a quarter of the size: the design
    effect of a cluster sample (Kish 1965, "Survey Sampling"), here on that part of a gradient's noise that comes from
    the classes of its batch. Batches of one class each have (n - 1) / (batches - 1), about the batch size. None where
    there is a single batch or class, so that nothing can be mixed.
    """
    count = len(order)
    _, classes, class_counts = np.unique(labels, return_inverse=True, return_counts=True)
    batches = -(-count // batch_size)
    freedom = (batches - 1) * (len(class_counts) - 1)
    if not freedom:
        return None
    # Only what occurs is kept: the whole table is large where batches are small and classes many.
    table = np.arange(count) // batch_size * len(class_counts) + classes[order]
    cells, found = np.unique(table, return_counts=True)
    batch, of_class = np.divmod(cells, len(class_counts))
    sizes = np.minimum(batch_size, count - batch * batch_size)
    chi_squared = count * (float(np.sum(found / sizes * (found / class_counts[of_class]))) - 1)
    return chi_squared / (freedom * count / (count - 1))


def stored_labels(reader: BatchReader, hashes_path: Path, batch_size: int, on_batch: Callable[[int], None]) -> Labels:
    """Return the label of each sample of a store, ``(n,)``.

    They lie beside the file of hashes since the store was built; where they do not, because an older version built it,
    every sample is read once, compared with its hash, and they are kept from then on. ``on_batch`` hears of
    the samples of each batch. Raises BackendError where a sample is not what the store was built with.
    """
    labels = kept_labels(hashes_path, len(reader))
    if labels is None:
        labels = _read_labels(reader, np.load(hashes_path), batch_size, on_batch)
        # A full disk is no reason to lose a run: the next one reads them again.
        with suppress(OSError):
            _keep_labels(_labels_path(hashes_path), labels)
    return labels


def _labels_path(hashes_path: Path) -> Path:
    return hashes_path.with_name("labels.npz")


def kept_labels(hashes_path: Path, count: int) -> Labels | None:
    """Return what was kept, or None where there is nothing, or nothing intact: zip has a checksum."""
    path = _labels_path(hashes_path)
    try:
        # Opened here, as NumPy leaves its own file open where it is no zip.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            labels: Labels = kept["y"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
    return labels if labels.shape == (count,) and labels.dtype == np.int64 else None


def _read_labels(
    reader: BatchReader, hashes: digest.Hashes, batch_size: int, on_batch: Callable[[int], None]
) -> Labels:
    labels = np.empty(len(reader), np.int64)
    # Batches no larger than those of the run: they need no more memory than it had.
    for start in range(0, len(reader), batch_size):
        indices = np.arange(start, min(start + batch_size, len(reader)))
        x, y = (part.numpy() for part in reader.__getitems__(indices))
        wrong = np.flatnonzero(digest.sample_hashes(indices, x, y) != hashes[indices])
        if len(wrong):
            raise BackendError(f"Sample {indices[wrong[0]]} is not what the store was built with.")
        labels[indices] = y
        on_batch(len(indices))
    return labels


def _keep_labels(path: Path, labels: Labels) -> None:
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        with part.open("wb") as file:
            np.savez(file, y=labels)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
