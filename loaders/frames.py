"""Decoding of the frames that zstd and blosc write, in Zarr and HDF5, each into an array of exactly a chunk's size.

Both decoders of numcodecs, which zarr-python's own are made of, are content with a frame that holds less than the
array, and Blosc's reads past the end of one that was cut short: what a frame's header says is compared first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_HEADER_BYTES = 18
_BLOSC_HEADER = struct.Struct("<4xIII")


def decoder(codec: str) -> Callable[[Bytes, Bytes], Any]:
    """Return the function that decodes a frame into an array of the size that it must have.

    It raises ValueError or RuntimeError where the frame is damaged. It is safe to use from several threads.
    """
    if codec == "zstd":
        return _zstd()
    return _blosc() if codec == "blosc" else _copy


def _copy(chunk: Bytes, out: Bytes) -> None:
    if len(chunk) != len(out):
        raise ValueError(f"{len(chunk)} bytes where a chunk has {len(out)}")
    out[:] = chunk


def _zstd() -> Callable[[Bytes, Bytes], Any]:
    from numcodecs.zstd import decompress  # type: ignore[import-untyped]

    def decode(frame: Bytes, out: Bytes) -> None:
        size = _zstd_content_bytes(frame[:_ZSTD_HEADER_BYTES].tobytes())
        # Where the header does not tell, the decoder itself insists on the size of the array.
        if size is not None and size != len(out):
            raise ValueError(f"a Zstandard frame of {size} bytes where a chunk has {len(out)}")
        decompress(frame, out)

    return decode


def _blosc() -> Callable[[Bytes, Bytes], Any]:
    from numcodecs import blosc  # type: ignore[import-untyped]

    # As zarr does: its threads share a state, and chunks are decoded side by side as it is.
    blosc.use_threads = False
    decompress = blosc.decompress

    def decode(frame: Bytes, out: Bytes) -> None:
        if len(frame) < _BLOSC_HEADER.size:
            raise ValueError(f"a Blosc frame of {len(frame)} bytes")
        size, _, frame_bytes = _BLOSC_HEADER.unpack_from(frame.data)
        if size != len(out) or frame_bytes != len(frame):
            raise ValueError(
                f"a Blosc frame that decodes {frame_bytes} bytes to {size}, where {len(frame)} decode to {len(out)}"
            )
        decompress(frame, out)

    return decode


def _zstd_content_bytes(header: bytes) -> int | None:
    """Return the size that the header of a Zstandard frame tells (RFC 8878, section 3.1.1.1), None if it does not."""
    if header[:4] != _ZSTD_MAGIC or len(header) < 6:
        raise ValueError("not a Zstandard frame")
    flags = header[4]
    single_segment = flags >> 5 & 1
    width = (single_segment, 2, 4, 8)[flags >> 6]
    begin = 5 + (not single_segment) + (0, 1, 2, 4)[flags & 3]
    if not width:
        return None
    size = int.from_bytes(header[begin : begin + width], "little")
    return size + 256 if width == 2 else size
