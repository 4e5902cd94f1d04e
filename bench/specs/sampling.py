"""Which samples a network is trained on, and how much the classes count: pure functions of labels and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.contracts.errors import BenchError
from bench.contracts.reader import Indices

Labels = NDArray[np.int64]


class ClassError(BenchError):
    """A class without the samples that something needs."""


@dataclass(frozen=True, slots=True)
class Division:
    """Numbers of samples, ascending: those that are trained on and those that are held out."""

    trained: Indices
    held_out: Indices


def divide(labels: Labels, share: float, seed: int, classes: Sequence[str]) -> Division:
    """Hold out ``share`` (0…1) of the samples, of each class as nearly that share as whole samples allow.

    ``labels`` ``(n,)`` are indices of ``classes``. Of each class ``share`` of its samples, rounded down, is held out,
    at least one, however small the share; those that are then missing from ``share`` of all are taken one each from the
    classes with the largest remainders. Which samples of a class: the first of a permutation by NumPy's PCG64 seeded
    with ``seed``, so it is the same for every format. Raises ClassError where a class has a single sample.
    """
    kinds, counts = np.unique(labels, return_counts=True)
    if np.any(counts < 2):
        name = classes[kinds[np.argmin(counts)]]
        raise ClassError(
            f"--val {share:g}: class {name!r} has a single sample here, which cannot be both trained on and held out. "
            "Use more samples, or a split for --val."
        )
    exact = share * counts
    quotas = np.clip(np.floor(exact).astype(np.int64), 1, counts - 1)
    missing = round(share * len(labels)) - int(quotas.sum())
    for kind in np.argsort(quotas - exact, kind="stable")[: max(0, missing)]:
        quotas[kind] += quotas[kind] < counts[kind] - 1
    order = np.random.default_rng([seed, _DIVISION]).permutation(len(labels))
    held_out = np.concatenate([order[labels[order] == kind][:quota] for kind, quota in zip(kinds, quotas, strict=True)])
    taken = np.zeros(len(labels), bool)
    taken[held_out] = True
    return Division(np.flatnonzero(~taken), np.flatnonzero(taken))


_DIVISION = 2**63
"""Where an order has the number of its epoch: a division is like none of them."""


def balanced_weights(labels: Labels, classes: int) -> NDArray[np.float64]:
    """Return the weight of each class, ``(classes,)``: inversely proportional to how often it occurs in ``labels``.

    ``n / (classes that occur x samples of the class)``, as scikit-learn's ``compute_class_weight("balanced")``: the
    mean over all samples is 1. A class that does not occur has 0: no loss is weighed by it.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.zeros(classes)
    np.divide(len(labels), np.count_nonzero(counts) * counts, out=weights, where=counts > 0)
    return weights


def require_trained(trained: Labels, evaluated: Labels, classes: Sequence[str], where: str) -> None:
    """Raise ClassError where a class is evaluated (``where`` says on what) of which no sample is trained on."""
    unknown = np.setdiff1d(evaluated, trained)
    if len(unknown):
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ClassError(
            f"{where} has samples of class {classes[unknown[0]]!r}{others}, of which there is none to train on. "
            "Train on more samples: raise --limit, or leave it out."
        )


def missing_classes(trained: Labels, evaluated: Labels, classes: Sequence[str]) -> list[str]:
    """Return the names of classes that are trained on and not evaluated."""
    return [classes[label] for label in np.setdiff1d(trained, evaluated)]
