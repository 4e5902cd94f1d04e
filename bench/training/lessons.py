"""Which samples a run trains on and which it is evaluated on, decided by labels alone before anything is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.contracts.errors import BenchError
from bench.contracts.reader import Indices
from bench.loading import order
from bench.loading.order import Labels, Order
from bench.records.learned import TrainingInfo
from bench.records.record import OrderInfo
from bench.specs import sampling
from bench.specs.protocol import HELD_OUT
from bench.specs.spec import RunSpec
from bench.training.job import EvaluatedStore, Job
from bench.training.validation import Evaluator


class BatchError(BenchError):
    """A batch with more samples than are trained on."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """The order of training, what is evaluated after each epoch and at the end, and how much each class counts.

    ``notes`` are for the user; ``labels`` those of the whole store, None where nothing depended on them.
    """

    order: Order
    val: Evaluator | None
    test: Evaluator | None
    class_weights: tuple[float, ...] | None
    labels: Labels | None
    members: Indices | None
    notes: tuple[str, ...]

    @property
    def facts(self) -> TrainingInfo:
        """What the record says about it."""
        return TrainingInfo(
            train_samples=None if self.members is None else len(self.order),
            class_weights=None if self.class_weights is None else list(self.class_weights),
        )

    def order_info(self, spec: RunSpec, labels: Labels) -> OrderInfo:
        """Return how well the first epoch is shuffled; a drawn order is no permutation, so there it is unknown."""
        kind = "balanced" if spec.balanced_sampler else spec.shuffle
        places = None if spec.balanced_sampler else self.order.places(0)
        known = labels if self.members is None else labels[self.members]
        return OrderInfo(
            kind=kind,
            block_samples=spec.block_samples,
            buffer_blocks=spec.buffer_blocks,
            mean_displacement=None if places is None else order.mean_displacement(places),
            class_mixing=None if places is None else order.class_mixing(places, known, spec.batch_size),
        )


def lessons_of(job: Job, on_batch: Callable[[int], None]) -> Lessons:
    """Return what a run trains on; ``on_batch`` hears of samples that are read for their labels.

    Raises ClassError where a class has not the samples that it needs, BatchError, and BackendError.
    """
    spec = job.spec
    share = spec.val_share
    if not (spec.val or spec.test or spec.class_weights or spec.balanced_sampler):
        return Lessons(Order(spec, job.samples), None, None, None, None, None, ())
    labels = _labels(spec, job.root, job.hashes_path, job.samples, on_batch)
    members, val = None, _evaluator(job, job.val)
    if share is not None:
        division = sampling.divide(labels, share, spec.seed, job.classes)
        members = division.trained
        val = Evaluator(spec, job.root, HELD_OUT, job.samples, division.held_out)
    trained = labels if members is None else labels[members]
    if len(trained) < spec.batch_size:
        raise BatchError(
            f"--batch-size {spec.batch_size} is larger than what is trained on: {len(trained)} samples, as "
            f"{len(labels) - len(trained)} are held out. Use a smaller one."
        )
    asked = 0 if share is None else round(share * len(labels))
    more = 0 if share is None else len(labels) - len(trained) - asked
    kept = f"--val {spec.val} holds out {asked + more} samples instead of {asked}: of each class at least one."
    notes = [kept if more > 0 else None]
    notes += [
        _covered(job, store, trained, _labels(spec, store.root, store.hashes_path, store.samples, on_batch))
        for store in (job.val, job.test)
        if store is not None
    ]
    weights = sampling.balanced_weights(trained, len(job.classes))
    return Lessons(
        Order(spec, job.samples, members, weights[trained] if spec.balanced_sampler else None),
        val,
        _evaluator(job, job.test),
        tuple(weights.tolist()) if spec.class_weights else None,
        labels,
        members,
        tuple(note for note in notes if note),
    )


def _evaluator(job: Job, store: EvaluatedStore | None) -> Evaluator | None:
    return None if store is None else Evaluator(job.spec, store.root, store.split, store.samples)


def _covered(job: Job, store: EvaluatedStore, trained: Labels, evaluated: Labels) -> str | None:
    """Return what there is to say about classes without samples; raise ClassError where that makes no sense."""
    where = f"{job.spec.dataset} {store.split}"
    sampling.require_trained(trained, evaluated, job.classes, where)
    missing = sampling.missing_classes(trained, evaluated, job.classes)
    if not missing:
        return None
    others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"{where} has no sample of class {missing[0]!r}{others}: averages over classes leave it out."


def _labels(spec: RunSpec, root: Path, hashes_path: Path, count: int, on_batch: Callable[[int], None]) -> Labels:
    labels = order.kept_labels(hashes_path, count)
    if labels is None:
        reader = spec.open_backend().open(root)
        labels = order.stored_labels(reader, hashes_path, spec.batch_size, on_batch)
    return np.asarray(labels)
