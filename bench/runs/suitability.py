"""Whether a network can be trained as a run asks: found out without torch, before anything is measured."""

from __future__ import annotations

from pathlib import Path

from bench import registry
from bench.contracts.errors import BenchError
from bench.loading import order
from bench.specs import sampling
from bench.specs.spec import NO_MODEL, RunSpec
from bench.stores.store import Store


class BatchTooLargeError(BenchError):
    """More samples in a batch than in the data set."""


class BatchTooSmallError(BenchError):
    """Fewer samples in a batch than a network can train on."""


class WeightsPathError(BenchError):
    """A file of weights that is not there."""


class SampleShapeError(BenchError):
    """Samples that a model cannot take: no images, or too small."""


def require_weights(spec: RunSpec) -> None:
    """Raise WeightsPathError where a file of weights cannot be opened."""
    if spec.weights is None:
        return
    try:
        with Path(spec.weights).open("rb"):
            pass
    except OSError as error:
        raise WeightsPathError(f"--weights {spec.weights}: {error.strerror}. Give a file of weights.") from error


def require_batch(spec: RunSpec, store: Store) -> None:
    """Raise BatchTooLargeError or BatchTooSmallError where a batch would be one that cannot be."""
    count = store.manifest.count
    trained = _trained(spec, store)
    if spec.batch_size > trained:
        held_out = f", of which {count - trained} are held out" if trained < count else ""
        raise BatchTooLargeError(
            f"--batch-size {spec.batch_size} is larger than the data: {spec.dataset} {spec.split} has {count} "
            f"samples{held_out}."
        )
    least = 1 if spec.model == NO_MODEL else registry.models()[spec.model].least_batch
    if (trained % spec.batch_size or spec.batch_size) < least:
        raise BatchTooSmallError(
            f"{spec.model} cannot train on a batch of one sample, which --batch-size {spec.batch_size} leaves of "
            f"{trained} samples: it normalises over the samples of a batch. Choose another --batch-size."
        )


def _trained(spec: RunSpec, store: Store) -> int:
    """Return how many samples are trained on. Raises ClassError where none of a class could be."""
    known = store.manifest
    if spec.val_share is None:
        return known.count
    labels = order.kept_labels(store.hashes_path, known.count)
    if labels is None:
        # Of a store that an older version built; the training finds out exactly.
        return known.count - round(spec.val_share * known.count)
    return len(sampling.divide(labels, spec.val_share, spec.seed, known.classes).trained)


def require_shape(spec: RunSpec, store: Store) -> None:
    """Raise SampleShapeError where the network cannot take the samples."""
    if spec.model == NO_MODEL:
        return
    shape, model = store.manifest.shape, registry.models()[spec.model]
    if len(shape) != 3 or 0 in shape:
        raise SampleShapeError(
            f"{spec.model} takes samples of (channels, height, width), but those of {spec.dataset} have the shape "
            f"{shape}. Use --model none to measure loading alone."
        )
    if not model.takes(shape):
        have, least = "x".join(map(str, shape)), "x".join(map(str, (shape[0], *model.smallest)))
        raise SampleShapeError(
            f"{spec.model} needs samples of at least {least}, but those of {spec.dataset} are {have} (channels, height "
            "or frequency, width or time). `bench list models` says what each model takes."
        )
