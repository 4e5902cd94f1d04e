"""The mapped reader of Zarr: chunk files or shards are mapped, and read by their published layout alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .chunks import Decode, KeptChunks
from .frames import decoder
from .mapped import Opened
from .rows import MappedFiles, MappedRows, Pieces
from .store import damaged
from .zarr_layout import ArrayLayout, Chunks, find_chunks, read_layout


def _read_layouts(root: Path) -> tuple[ArrayLayout, ArrayLayout]:
    """Return the layouts of ``x`` and ``y``. Raises BackendError where they are damaged or do not belong together."""
    path = root / "zarr.json"
    try:
        group = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    if not isinstance(group, dict) or (group.get("zarr_format"), group.get("node_type")) != (3, "group"):
        raise damaged(path, "not the metadata of a Zarr v3 group")
    x, y = read_layout(root / "x"), read_layout(root / "y")
    if y.shape != x.shape[:1] or y.dtype != np.int64:
        raise damaged(root, f"labels are {y.dtype} {y.shape} for samples of shape {x.shape}")
    return x, y


def checked_layout(root: Path) -> ArrayLayout:
    """Return the layout of ``x``. Raises BackendError as open_mapped does, but maps nothing."""
    x, y = _read_layouts(root)
    for layout in (y, x):
        find_chunks(layout)
    return x


def open_mapped(root: Path) -> Opened:
    """Map the store. Raises BackendError where something is missing, too short, or not what the layout says."""
    x, y = _read_layouts(root)
    labels = np.empty(y.shape, np.int64)
    _rows(y).gather(np.arange(len(labels)), labels)
    return Opened(_rows(x), labels)


def _rows(layout: ArrayLayout) -> MappedRows | _EncodedRows:
    chunks = find_chunks(layout)
    if layout.codec == "none":
        pieces = Pieces(chunks.files, chunks.file_of, chunks.offsets, layout.rows_per_chunk)
        return MappedRows(pieces, layout.shape[0], layout.sample_bytes)
    return _EncodedRows(layout, chunks)


class _EncodedRows(KeptChunks):
    """Rows in compressed chunks, decoded out of a mapping of their files."""

    def __init__(self, layout: ArrayLayout, chunks: Chunks) -> None:
        self._files = MappedFiles(chunks.files, chunks.file_sizes)
        decode = _decode(layout, chunks, self._files)
        super().__init__(decode, layout.chunks, layout.rows_per_chunk, layout.sample_bytes)

    def begin(self) -> None:
        """See RowSource.begin."""
        super().begin()
        self._files.begin()


def _decode(layout: ArrayLayout, chunks: Chunks, files: MappedFiles) -> Decode:
    begins = chunks.file_of * files.spacing + chunks.offsets
    ends = begins + chunks.sizes
    mapped, decode = files.bytes, decoder(layout.codec)

    def decode_chunk(chunk: int, out: NDArray[np.uint8]) -> None:
        try:
            decode(mapped[begins[chunk] : ends[chunk]], out)
        except (ValueError, RuntimeError) as error:
            raise damaged(chunks.files[int(chunks.file_of[chunk])], f"chunk {chunk}: {error}") from error

    return decode_chunk
