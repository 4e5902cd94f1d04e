"""Reading a whole store back, and holding every sample against what it has to be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import Backend, BackendError
from bench.contracts.reader import BatchReader, Indices
from bench.contracts.source import Progress, SampleBlock, Schema
from bench.stores import digest
from bench.stores.digest import Hashes

READ_BACK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of reading a whole store.

    ``hashes`` and ``labels`` are those of the samples that could be read, in order. ``problem`` is
    None when all is well, else it says what is wrong; ``first_bad`` is the first wrong index where
    there is one; ``psnr_db`` is given for lossy stores; ``read_s`` is the time that reading and
    hashing took.
    """

    hashes: Hashes
    labels: NDArray[np.int64]
    read_s: float
    first_bad: int | None = None
    problem: str | None = None
    psnr_db: float | None = None


def read_back(
    backend: Backend[Any],
    root: Path,
    schema: Schema,
    expected: Hashes | None,
    originals: Iterator[SampleBlock] | None,
    progress: Progress,
) -> Verification:
    """Read every sample of the store at ``root`` through the backend.

    ``expected`` holds the hash each sample must have (None: any will do). ``originals``
    are the source's samples, given where the loss against them is to be measured.
    """
    # Readers import torch when they are opened; that must not count as reading.
    import torch  # noqa: F401

    progress.start(f"verifying {backend.name}", schema.count, "samples")
    started = time.perf_counter()
    parts: list[Hashes] = []
    labels: list[NDArray[np.int64]] = []
    loss = _Psnr(schema)
    start = 0
    # What is lossy loses some of a sample's values, never its label.
    mislabelled: int | None = None
    try:
        reader = backend.open(root)
        held = len(reader)
        for indices, original in _blocks(schema, originals):
            start = int(indices[0])
            here = indices[indices < held]
            x, y = _read(reader, here, schema)
            parts.append(digest.sample_hashes(here, x, y))
            labels.append(y)
            if original is not None:
                loss.add(original.x[: len(here)], x)
                wrong = np.flatnonzero(np.asarray(original.y)[: len(here)] != y)
                mislabelled = int(here[wrong[0]]) if mislabelled is None and len(wrong) else mislabelled
            progress.advance(len(here))
            if len(here) < len(indices):
                break
    except BackendError as error:
        known_bad = digest.first_difference(expected[:start], _joined(parts)) if expected is not None else None
        first_bad = known_bad if known_bad is not None else _first_unreadable(backend, root, schema, start)
        where = "" if first_bad is None else f"sample {first_bad}: "
        return Verification(_joined(parts), _all(labels), _since(started), first_bad, f"{where}{error}")
    finally:
        progress.finish()
    hashes = _joined(parts)
    differs = digest.first_difference(expected, hashes) if expected is not None else None
    first_bad = mislabelled if differs is None else differs
    problem = None if first_bad is None else f"sample {first_bad} is not what was written"
    if held != schema.count:
        first_bad = min(held, schema.count) if first_bad is None else first_bad
        problem = f"it holds {held} samples instead of {schema.count}; sample {first_bad} is the first that is wrong"
    psnr_db = loss.value if originals is not None else None
    return Verification(hashes, _all(labels), _since(started), first_bad, problem, psnr_db)


def _since(started: float) -> float:
    return time.perf_counter() - started


def _blocks(schema: Schema, originals: Iterator[SampleBlock] | None) -> Iterator[tuple[Indices, SampleBlock | None]]:
    if originals is not None:
        start = 0
        for block in originals:
            yield np.arange(start, start + len(block.y), dtype=np.int64), block
            start += len(block.y)
        return
    step = max(1, READ_BACK_BYTES // max(1, schema.sample_bytes))
    for start in range(0, schema.count, step):
        yield np.arange(start, min(start + step, schema.count), dtype=np.int64), None


def _read(reader: BatchReader, indices: Indices, schema: Schema) -> tuple[NDArray[Any], NDArray[np.int64]]:
    x, y = (tensor.numpy() for tensor in reader.__getitems__(indices))
    if not len(x) == len(y) == len(indices):
        raise BackendError(f"{len(x)} samples and {len(y)} labels come back for {len(indices)} indices")
    if x.shape[1:] != schema.shape or x.dtype != np.dtype(schema.dtype):
        raise BackendError(f"samples come back as {x.dtype} {x.shape[1:]} instead of {schema.dtype} {schema.shape}")
    return x, y


def _first_unreadable(backend: Backend[Any], root: Path, schema: Schema, start: int) -> int | None:
    try:
        reader = backend.open(root)
    except BackendError:
        return 0
    for index in range(start, schema.count):
        try:
            _read(reader, np.array([index], dtype=np.int64), schema)
        except BackendError:
            return index
    return None


def _joined(parts: list[Hashes]) -> Hashes:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _all(labels: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(labels) if labels else np.empty(0, dtype=np.int64)


class _Psnr:
    """Peak signal-to-noise ratio over all samples, for 8-bit data, in dB."""

    def __init__(self, schema: Schema) -> None:
        self._peak = float(np.iinfo(schema.dtype).max) if np.dtype(schema.dtype).kind in "ui" else 1.0
        self._squares = 0.0
        self._values = 0

    def add(self, original: Any, found: Any) -> None:
        difference = original.astype(np.float32) - found.astype(np.float32)
        self._squares += float(np.square(difference).sum(dtype=np.float64))
        self._values += difference.size

    @property
    def value(self) -> float:
        mean = self._squares / max(1, self._values)
        return float("inf") if mean == 0 else 10 * float(np.log10(self._peak**2 / mean))
