"""What the backends share: checked input, one wording for damage, and the gathering of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import BackendError
from bench.contracts.reader import Indices
from bench.contracts.source import SampleBlock, Schema


def damaged(path: Path, problem: object) -> BackendError:
    """Return the error for a store whose file ``path`` is missing or is not what was written.

    The harness adds what to do about it.
    """
    text = " ".join(str(problem).split()).rstrip(".")
    return BackendError(f"{path}: {text}.")


def checked_blocks(samples: Iterable[SampleBlock], schema: Schema) -> Iterator[SampleBlock]:
    """Yield the blocks, C-contiguous. Raises BackendError where they differ from what ``schema`` promises."""
    dtype = np.dtype(schema.dtype)
    seen = 0
    for x, y in samples:
        seen += len(y)
        if x.dtype != dtype or x.shape != (len(y), *schema.shape) or seen > schema.count:
            raise BackendError(
                f"{schema.name}/{schema.split}: samples up to number {seen} are {x.dtype} {x.shape}, but the data set "
                f"promises {schema.count} of {dtype} {schema.shape}. Correct the data set's schema()."
            )
        yield SampleBlock(np.ascontiguousarray(x), np.ascontiguousarray(y, dtype=np.int64))
    if seen != schema.count:
        raise BackendError(
            f"{schema.name}/{schema.split}: the data set delivered {seen} samples instead of {schema.count}. "
            "Correct the data set's schema()."
        )


def gather(rows: NDArray[Any], positions: Indices, x: NDArray[Any]) -> None:
    """Copy ``rows[positions]`` into ``x``, on the calling thread alone and without the GIL.

    torch.index_select splits even a small batch between threads that wait for each
    other: about 1.5 times as fast on an idle machine, but 5 to 100 times slower
    where other processes keep the cores busy.
    """
    np.take(rows, positions, axis=0, out=x, mode="clip")
