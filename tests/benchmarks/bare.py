"""What reading or decoding alone takes, on two threads, for the same files or chunks as a pass of a loader."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

_THREADS = 2


def files_s(paths: Sequence[Path]) -> float:
    """Open, read and close each file; return seconds."""
    return _shared(partial(_read, buffer_bytes=paths[0].stat().st_size), list(map(str, paths)))


def images_s(paths: Sequence[Path]) -> float:
    """Read and decode each image by torchcodec; return seconds."""
    import torch
    from torchcodec.decoders import decode_jpeg, decode_png

    decode = decode_png if paths[0].suffix == ".png" else decode_jpeg

    def both(path: str) -> None:
        decode(torch.from_numpy(np.fromfile(path, np.uint8)), mode="UNCHANGED")

    return _shared(both, list(map(str, paths)))


def codec_s(codec: str, chunks: Sequence[bytes], chunk_bytes: int) -> float:
    """Decode each chunk; return seconds."""
    return _shared(_decoder(codec, chunk_bytes), chunks)


def hdf5_chunks(path: Path, numbers: Sequence[int], codec: str) -> list[bytes]:
    """Return the encoded bytes of these chunks."""
    import h5py

    if codec == "zstd":
        import hdf5plugin  # noqa: F401  # its import is what makes the filter known
    with h5py.File(path) as file:
        data = file["x"]
        rest = (0,) * (data.ndim - 1)
        return [data.id.read_direct_chunk((number * data.chunks[0], *rest))[1] for number in numbers]


def zarr_chunks(root: Path, numbers: Sequence[int], rest: str) -> list[bytes]:
    """Return the encoded bytes of these chunks, one to a file."""
    return [(root / "x" / f"c.{number}{rest}").read_bytes() for number in numbers]


def _decoder(codec: str, chunk_bytes: int) -> Callable[[bytes], Any]:
    from numcodecs.blosc import Blosc
    from numcodecs.zstd import Zstd

    if codec == "gzip":
        return partial(zlib.decompress, bufsize=chunk_bytes)
    decode = (Zstd() if codec == "zstd" else Blosc()).decode
    out = np.empty(chunk_bytes, np.uint8)
    # Both threads write into the same place, which nobody reads.
    return lambda chunk: decode(chunk, out=out)


def _read(path: str, buffer_bytes: int) -> None:
    file = os.open(path, os.O_RDONLY)
    os.read(file, buffer_bytes)
    os.close(file)


def _shared(work: Callable[[Any], Any], items: Sequence[Any]) -> float:
    def part(number: int) -> None:
        for item in items[number::_THREADS]:
            work(item)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(abs, range(_THREADS)))
        started = time.perf_counter()
        list(pool.map(part, range(_THREADS)))
        return time.perf_counter() - started
