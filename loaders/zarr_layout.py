"""Where the chunks of a Zarr v3 array lie in its files, found out from its metadata and its shard indices alone.

Follows the Zarr v3 core specification and that of its codec ``sharding_indexed`` (https://zarr-specs.readthedocs.io).
Only what can be read without a codec pipeline is taken: chunks of whole samples, little-endian, raw or in one Zstandard
or Blosc frame each. Everything that the metadata or an index claims is compared with the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import BackendError

from .store import damaged

Codec = Literal["none", "zstd", "blosc"]
T = TypeVar("T")

_DTYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
    | {"float16", "float32", "float64", "complex64", "complex128"}
)
_FIELDS = frozenset(
    {"zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs"}
)
_OTHER_FIELDS = frozenset({"attributes", "dimension_names", "storage_transformers"})
_MISSING = np.uint64(2**64 - 1)
_CRC_BYTES = 4


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """How the index of a shard is stored."""

    chunks: int
    at_end: bool
    checked: bool
    """Whether a CRC-32C of it follows it."""

    @property
    def size_bytes(self) -> int:
        """Size of the index: offset and length of each chunk, 8 bytes each, and its checksum."""
        return 16 * self.chunks + _CRC_BYTES * self.checked


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """What the metadata of an array says."""

    folder: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows_per_chunk: int
    """Samples in a chunk; in an inner chunk where there are shards."""

    codec: Codec
    index: ShardIndex | None
    """None where each chunk is a file."""

    key: Callable[[int], str]
    """The path within ``folder`` of the file with this number."""

    @property
    def sample_bytes(self) -> int:
        """Size of a decoded sample."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Size of a decoded chunk; the last one is as large as the others."""
        return self.rows_per_chunk * self.sample_bytes

    @property
    def chunks(self) -> int:
        """The number of chunks that hold samples."""
        return -(-self.shape[0] // self.rows_per_chunk)


@dataclass(frozen=True, slots=True)
class Chunks:
    """Where chunk ``i`` lies: ``sizes[i]`` bytes from ``offsets[i]`` on in ``files[file_of[i]]``; int64 all."""

    files: Sequence[Path]
    file_sizes: NDArray[np.int64]
    file_of: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


def read_layout(folder: Path) -> ArrayLayout:
    """Read the metadata of the array in ``folder``. Raises BackendError where it is damaged or not understood."""
    path = folder / "zarr.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    try:
        return _layout(folder, meta)
    except _Unknown as error:
        raise BackendError(f"{path}: {error}; reader=mapped does not read that. Use reader=library.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"not the metadata of a Zarr array: {type(error).__name__} {error}") from error


def find_chunks(layout: ArrayLayout) -> Chunks:
    """Find all chunks. Raises BackendError where one is missing, too short, or lies outside of its file."""
    index = layout.index
    chunks_per_file = index.chunks if index else 1
    files: list[Path] = []
    sizes_of_files: list[int] = []
    tables: list[NDArray[np.uint64]] = []
    for number in range(-(-layout.chunks // chunks_per_file)):
        files.append(layout.folder / layout.key(number))
        sizes_of_files.append(_size(files[-1]))
        if index is not None:
            tables.append(_read_index(files[-1], sizes_of_files[-1], index))
    numbers = np.arange(layout.chunks, dtype=np.int64)
    file_sizes = np.array(sizes_of_files, np.int64)
    if index is None:
        found = Chunks(files, file_sizes, numbers, np.zeros_like(numbers), file_sizes)
    else:
        table = np.concatenate([np.empty((0, 2), np.uint64), *tables])[: layout.chunks]
        _check_entries(table, files, file_sizes, index)
        offsets, sizes = table.astype(np.int64).T
        found = Chunks(files, file_sizes, numbers // chunks_per_file, offsets, sizes)
    _check_sizes(layout, found)
    return found


class _Unknown(ValueError):  # noqa: N818  # not damage, but something that is not read here
    """Valid metadata that is not understood here; its text says which."""


def _layout(folder: Path, meta: Any) -> ArrayLayout:
    absent = _FIELDS - set(_typed(meta, dict))
    if absent:
        raise ValueError(f"it has no {min(absent)}")
    for name in sorted(set(meta) - _FIELDS - _OTHER_FIELDS):
        if not isinstance(meta[name], dict) or meta[name].get("must_understand") is not False:
            raise _Unknown(f"field {name}")
    if meta["zarr_format"] != 3 or meta["node_type"] != "array":
        raise ValueError(f"zarr_format {meta['zarr_format']}, node_type {meta['node_type']}")
    if meta.get("storage_transformers"):
        raise _Unknown("storage_transformers")
    type_name, _ = _named(meta["data_type"])
    if type_name not in _DTYPES:
        raise _Unknown(f"data_type {type_name}")
    dtype = np.dtype(type_name)
    shape = _sizes(meta["shape"], least=0)
    name, grid = _named(meta["chunk_grid"])
    if name != "regular":
        raise _Unknown(f"chunk_grid {name}")
    outer = _sizes(grid["chunk_shape"], least=1)
    codecs = _typed(meta["codecs"], list)
    inner, index = outer, None
    if codecs and _named(codecs[0])[0] == "sharding_indexed":
        if len(codecs) > 1:
            raise _Unknown(f"codec {_named(codecs[1])[0]} after sharding_indexed")
        inner, codecs, index = _sharding(_named(codecs[0])[1], outer)
    for chunk_shape in (outer, inner):
        if not shape or len(chunk_shape) != len(shape) or chunk_shape[1:] != shape[1:]:
            raise _Unknown(f"chunks of shape {chunk_shape} in an array of shape {shape}, which are not whole samples")
    key = _key(meta["chunk_key_encoding"], len(shape))
    return ArrayLayout(folder, shape, dtype, inner[0], _codec(codecs, dtype), index, key)


def _sharding(given: dict[str, Any], outer: tuple[int, ...]) -> tuple[tuple[int, ...], list[Any], ShardIndex]:
    inner = _sizes(given["chunk_shape"], least=1)
    if len(inner) != len(outer) or any(whole % part for whole, part in zip(outer, inner, strict=True)):
        raise ValueError(f"chunks of shape {inner} do not divide shards of shape {outer}")
    location = given.get("index_location", "end")
    if location not in ("start", "end"):
        raise ValueError(f"index_location {location}")
    index_codecs = [_named(codec) for codec in _typed(given["index_codecs"], list)]
    names = [name for name, _ in index_codecs]
    if names not in (["bytes"], ["bytes", "crc32c"]):
        raise _Unknown(f"index_codecs {' '.join(names)}")
    _check_little_endian(index_codecs[0][1], np.dtype(np.uint64))
    index = ShardIndex(outer[0] // inner[0], location == "end", len(names) == 2)
    return inner, _typed(given["codecs"], list), index


def _codec(codecs: list[Any], dtype: np.dtype[Any]) -> Codec:
    names = [_named(codec)[0] for codec in codecs]
    if names[:1] != ["bytes"]:
        raise _Unknown(f"codecs {' '.join(names) or 'none'}")
    _check_little_endian(_named(codecs[0])[1], dtype)
    if names == ["bytes"]:
        return "none"
    if names == ["bytes", "zstd"]:
        return "zstd"
    if names == ["bytes", "blosc"]:
        return "blosc"
    raise _Unknown(f"codecs {' '.join(names)}")


def _check_little_endian(configuration: dict[str, Any], dtype: np.dtype[Any]) -> None:
    endian = configuration.get("endian")
    if dtype.itemsize > 1 and endian != "little":
        raise _Unknown(f"codec bytes with endian {endian}")


def _key(given: Any, dimensions: int) -> Callable[[int], str]:
    name, configuration = _named(given)
    if name not in ("default", "v2"):
        raise _Unknown(f"chunk_key_encoding {name}")
    separator = configuration.get("separator", "/" if name == "default" else ".")
    if separator not in ("/", "."):
        raise ValueError(f"separator {separator}")
    before = f"c{separator}" if name == "default" else ""
    after = f"{separator}0" * (dimensions - 1)
    return lambda number: f"{before}{number}{after}"


def _named(given: Any) -> tuple[str, dict[str, Any]]:
    """Return name and configuration of an extension point, which may be written as its name alone."""
    if isinstance(given, str):
        return given, {}
    return _typed(given["name"], str), _typed(given.get("configuration", {}), dict)


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{json.dumps(value)[:80]} where a {kind.__name__} should be")
    return value


def _sizes(given: Any, least: int) -> tuple[int, ...]:
    sizes = tuple(_typed(given, list))
    if any(type(size) is not int or not least <= size < 1 << 48 for size in sizes):
        raise ValueError(f"sizes {sizes}")
    return sizes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise damaged(path, f"this chunk is missing: {error.strerror}") from error


def _read_index(path: Path, file_bytes: int, index: ShardIndex) -> NDArray[np.uint64]:
    """Return offset and length of each chunk of a shard, ``(chunks, 2)``."""
    from google_crc32c import value as crc32c  # which zarr requires

    if file_bytes < index.size_bytes:
        raise damaged(path, f"{file_bytes} bytes, where the index alone has {index.size_bytes}")
    try:
        with path.open("rb") as file:
            file.seek(file_bytes - index.size_bytes if index.at_end else 0)
            content = file.read(index.size_bytes)
    except OSError as error:
        raise damaged(path, error.strerror) from error
    entries = content[: 16 * index.chunks]
    if len(content) != index.size_bytes or (
        index.checked and crc32c(entries) != int.from_bytes(content[len(entries) :], "little")
    ):
        raise damaged(path, "the checksum of the shard's index is wrong")
    return np.frombuffer(entries, "<u8").reshape(-1, 2)


def _check_entries(
    table: NDArray[np.uint64], files: Sequence[Path], file_sizes: NDArray[np.int64], index: ShardIndex
) -> None:
    """Raise BackendError for the first chunk that is missing, or lies outside of what its shard holds."""
    ends = np.repeat(file_sizes - (index.size_bytes if index.at_end else 0), index.chunks)[: len(table)]
    begin = 0 if index.at_end else index.size_bytes
    offsets, sizes = table.T
    limits = ends.astype(np.uint64)
    # Not offset + size, which may be beyond 64 bits.
    inside = (offsets >= begin) & (sizes <= limits - np.minimum(offsets, limits))
    if not inside.all():
        bad = int(np.argmin(inside))
        path = files[bad // index.chunks]
        if offsets[bad] == _MISSING and sizes[bad] == _MISSING:
            raise damaged(path, f"chunk {bad % index.chunks} of this shard is missing")
        raise damaged(path, f"chunk {bad % index.chunks} lies outside of this shard, by its index")


def _check_sizes(layout: ArrayLayout, chunks: Chunks) -> None:
    exact = layout.chunk_bytes if layout.codec == "none" else None
    wrong = chunks.sizes <= 0 if exact is None else chunks.sizes != exact
    if wrong.any():
        bad = int(np.argmax(wrong))
        wanted = "" if exact is None else f", where a chunk has {exact}"
        path = chunks.files[int(chunks.file_of[bad])]
        raise damaged(path, f"chunk {bad} has {chunks.sizes[bad]} bytes{wanted}")
