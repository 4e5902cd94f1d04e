"""Memory that samples are copied into, and out of."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def page_aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array that begins at a page, C-contiguous, of any content.

    What NumPy allocates by itself begins 16 bytes into a page where it is large, and at any multiple of 16 where it is
    small. Files begin at a page. Where a copy's destination lies up to 31 bytes behind its source, counted within
    their pages, processors take each load for a reader of the store before ("4-KByte aliasing" in Intel's optimization
    manual; AMD's do the same), and copying takes much longer. Huge pages are asked for as NumPy does.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + mmap.PAGESIZE, np.uint8)
    begin = -memory.ctypes.data % mmap.PAGESIZE
    return memory[begin : begin + size].view(dtype).reshape(shape)
