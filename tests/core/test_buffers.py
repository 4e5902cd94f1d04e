"""Memory that samples are copied into begins at a page, whatever its size."""

from __future__ import annotations

import mmap
from types import SimpleNamespace

import numpy as np
import pytest

from bench.contracts.buffers import page_aligned
from bench.loaders.chunks import KeptChunks
from bench.loading.batches import Slot


@pytest.mark.parametrize("shape", [(1,), (7, 3), (300, 5, 1000), (40_000_000,)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_arrays_begin_at_a_page(shape: tuple[int, ...], dtype: str) -> None:
    array = page_aligned(shape, dtype)
    assert array.ctypes.data % mmap.PAGESIZE == 0
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.flags.writeable


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_so_do_those_of_one_value_and_of_none(shape: tuple[int, ...]) -> None:
    array = page_aligned(shape, "int16")
    array[...] = 5
    assert array.tolist() == np.full(shape, 5).tolist()


def test_batches_begin_at_a_page() -> None:
    reader = SimpleNamespace(shape=(3, 5), dtype=np.dtype("float32"))
    slots = [Slot.allocated(reader, 7, 7, pin=False) for _ in range(5)]
    assert {slot.x.data_ptr() % mmap.PAGESIZE for slot in slots} == {0}


def test_kept_chunks_and_those_decoded_aside_begin_at_a_page() -> None:
    begins = []

    def decode(chunk: int, out: np.ndarray) -> None:
        begins.append(out.ctypes.data % mmap.PAGESIZE)

    size = mmap.PAGESIZE
    for cache_bytes in (10 * size, 0):
        KeptChunks(decode, 10, 2, size // 2, cache_bytes).gather(np.arange(20), np.empty((20, size // 2), np.uint8))
    assert begins == [0] * 20
