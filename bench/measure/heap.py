"""What the C library does with memory that a program frees."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""The most that glibc takes on 64-bit systems."""


def keep_freed_memory() -> bool:
    """Have the C library reuse what this process frees instead of giving it back; return whether it does (glibc).

    By default it returns free memory at the top of its heap to the kernel, and gets it back as new pages that the
    kernel has to clear. Whether a training step frees the top depends on where some small, long-lived allocation
    happens to lie: between equal processes, and between formats, epochs differed by up to 60 % for that alone
    (mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    kept: int = mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    return bool(kept)
