"""Arrays of the user's own: ``x.npy`` and ``y.npy`` in a folder, one pair for each split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.contracts.source import OwnData, RawData, SampleBlock, Schema, SourceError, Split

# Part of the fingerprint: raise it with every change that alters a sample or their order.
_VERSION = 1

_SUFFIXES: dict[Split, tuple[str, ...]] = {"train": ("", "_train"), "val": ("_val",), "test": ("_test",)}
# Those of NumPy that PyTorch has as well.
_DTYPES = frozenset({"bool", "float16", "float32", "float64"}) | {
    f"{u}int{8 << k}" for u in ("", "u") for k in range(4)
}
_BLOCK_BYTES = 8 << 20
_LABEL_BYTES = 8
_MAX_CLASSES = 100_000


class Npy(OwnData):
    """Samples ``x.npy`` (n, ...) and their classes ``y.npy`` (n,), whole numbers from zero.

    ``x_train.npy`` and ``y_train.npy`` are the same by another name; pairs that end in
    ``_val`` and ``_test`` are further splits. Samples of any shape and of any type of
    number that PyTorch has; a sample without a dimension is a number. Networks take samples
    of (channels, height, width). They stay in the order of the file.
    """

    name: ClassVar[str] = "npy"
    splits: ClassVar[tuple[Split, ...]] = ("train", "val", "test")
    whole_folder: ClassVar[bool] = False

    def locate(self, path: Path, *, official_only: bool) -> RawData | None:
        """See DataSource.locate. Whatever is not as described above is an error."""
        if official_only:
            return None
        if not path.is_dir():
            raise SourceError(f"{path} is no folder. Name the one that holds x.npy and y.npy.")
        return NpyFiles({split: pair for split in self.splits if (pair := _open_pair(path, split)) is not None})


@dataclass(frozen=True, slots=True)
class _Pair:
    """The mapped arrays of one split, and their files."""

    x: NDArray[Any]
    y: NDArray[Any]
    paths: tuple[Path, Path]


class NpyFiles(RawData):
    """Mapped arrays, read in blocks; all splits have the same classes and samples of the same shape and type."""

    def __init__(self, pairs: Mapping[Split, _Pair]) -> None:
        self._pairs = pairs
        first = pairs["train"]
        for pair in pairs.values():
            if (pair.x.shape[1:], pair.x.dtype.name) != (first.x.shape[1:], first.x.dtype.name):
                raise SourceError(
                    f"{pair.paths[0]} has samples of {_kind(pair.x)}, but {first.paths[0]} of {_kind(first.x)}. "
                    "Make them the same."
                )
        largest = max(_largest_label(pair) for pair in pairs.values())
        if largest < 1:
            raise SourceError(f"{first.paths[1]} has class 0 alone; at least 2 classes are needed.")
        self._classes = tuple(map(str, range(largest + 1)))

    def fingerprint(self) -> str:
        """See RawData.fingerprint."""
        stats = [(path.name, path.stat()) for pair in self._pairs.values() for path in pair.paths]
        # Inode and time of change tell copies apart whose sizes and modification times are the same.
        files = " ".join(f"{n}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}:{s.st_dev}:{s.st_ino}" for n, s in stats)
        return f"npy-v{_VERSION} {files}"

    def schema(self, split: Split) -> Schema:
        """See RawData.schema."""
        x = self._pair(split).x
        return Schema(
            name=Npy.name,
            split=split,
            count=len(x),
            shape=x.shape[1:],
            dtype=x.dtype.name,
            classes=self._classes,
            licence="your own data",
            origin="local",
        )

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        """See RawData.samples. In the order of the file, in blocks of 8 MiB or one sample."""
        pair = self._pair(split)
        dtype = pair.x.dtype.newbyteorder("=")
        size = max(1, _BLOCK_BYTES // (pair.x[:1].nbytes + _LABEL_BYTES))
        for start in range(0, len(pair.x), size):
            part = slice(start, start + size)
            yield SampleBlock(np.array(pair.x[part], dtype, order="C"), np.array(pair.y[part], np.int64))

    def has(self, split: Split) -> bool:
        """See RawData.has."""
        return split in self._pairs

    def _pair(self, split: Split) -> _Pair:
        if split not in self._pairs:
            raise SourceError(f"npy has no {split} samples here; it has: {', '.join(self._pairs)}.")
        return self._pairs[split]


def _open_pair(folder: Path, split: Split) -> _Pair | None:
    suffixes = _SUFFIXES[split]
    present = [s for s in suffixes if (folder / f"x{s}.npy").is_file() or (folder / f"y{s}.npy").is_file()]
    if not present:
        if split == "train":
            raise SourceError(f"{folder} lacks x.npy and y.npy (or x_train.npy and y_train.npy). Name another folder.")
        return None
    if len(present) > 1:
        raise SourceError(f"{folder} holds both x.npy or y.npy and x_train.npy or y_train.npy. Remove one pair.")
    paths = (folder / f"x{present[0]}.npy", folder / f"y{present[0]}.npy")
    x, y = map(_mapped, paths)
    if x.ndim == 0 or x.size == 0:
        raise SourceError(f"{paths[0]} has shape {x.shape}: it must be (n, ...), and none of it zero.")
    if x.dtype.name not in _DTYPES:
        raise SourceError(f"{paths[0]} is of type {x.dtype}, which PyTorch cannot take. Use {_listed(_DTYPES)}.")
    if y.dtype.kind not in "iu":
        raise SourceError(f"{paths[1]} is of type {y.dtype}: classes must be whole numbers. Convert them.")
    if y.shape != x.shape[:1]:
        raise SourceError(f"{paths[1]} has shape {y.shape}, but {paths[0]} needs ({len(x)},): one class per sample.")
    return _Pair(x, y, paths)


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # on damaged headers NumPy raises nearly anything
        text = " ".join(str(error).split())
        raise SourceError(
            f"{path} is no .npy file that can be mapped ({text}). Save it anew with numpy.save."
        ) from error


def _largest_label(pair: _Pair) -> int:
    least, largest = int(pair.y.min()), int(pair.y.max())
    if least < 0 or largest >= _MAX_CLASSES:
        wrong = least if least < 0 else largest
        raise SourceError(f"{pair.paths[1]} has class {wrong}: classes must be from 0 to {_MAX_CLASSES - 1}.")
    return largest


def _kind(x: NDArray[Any]) -> str:
    return f"shape {x.shape[1:]} and type {x.dtype.name}"


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
