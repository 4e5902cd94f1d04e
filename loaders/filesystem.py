"""One file per sample in a folder per class: what most people have, and what packing is measured against."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.contracts.backend import Backend, BackendError, Capabilities, require_empty
from bench.contracts.options import Options
from bench.contracts.reader import BatchReader, Indices, NaiveReader, PerProcess, Reader
from bench.contracts.source import SampleBlock, Schema

from . import npy
from .sample_files import Codec, ImageCodec, NpyCodec, decoder_name
from .store import checked_blocks, damaged

if TYPE_CHECKING:
    import torch

_SAMPLES_PER_TASK = 32
_SUFFIX = {"png": "png", "npy": "npy", "jpeg": "jpg"}


class FilesystemOptions(Options):
    """Options of the filesystem backend."""

    format: Literal["auto", "png", "npy", "jpeg"] = Field(
        "auto",
        description="png: lossless images; npy: raw arrays of any kind; jpeg: lossy images, colour not subsampled; "
        "auto: png where samples are images of bytes, else npy",
    )
    quality: int | None = Field(None, ge=1, le=100, description="JPEG quality; only for format=jpeg, 95 if not given")
    reader: Literal["mapped", "library", "naive"] | None = Field(
        None,
        description="mapped, the default of npy: header and samples read by one call straight into the batch; library, "
        "the default of images: decoded into the batch by torchcodec, or by Pillow where that is not installed (npy: "
        "np.load); naive: Image.open or np.load, one sample at a time",
    )

    @model_validator(mode="after")
    def _quality_needs_jpeg(self) -> FilesystemOptions:
        if self.quality is not None and self.format != "jpeg":
            raise ValueError(f"quality={self.quality} applies only to format=jpeg, not to format={self.format}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _choose_reader(cls, given: Any) -> Any:
        """Fill in the reader where the format tells which is the default."""
        if not isinstance(given, Mapping) or given.get("reader") is not None:
            return given
        default = {"npy": "mapped", "png": "library", "jpeg": "library"}.get(str(given.get("format")))
        return {**given, "reader": default}

    @model_validator(mode="after")
    def _mapped_needs_npy(self) -> FilesystemOptions:
        if self.reader == "mapped" and self.format not in {"npy", "auto"}:
            raise ValueError(
                f"reader=mapped applies only to format=npy, not to format={self.format}; use reader=library"
            )
        return self


class _Layout(BaseModel):
    """``schema.json``: what the files of a store hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["png", "npy", "jpeg"]
    count: int = Field(ge=0)
    shape: tuple[int, ...]
    dtype: str

    def codec(self, quality: int = 95) -> Codec:
        """Return what turns one sample into the bytes of its file, and back."""
        if self.format == "npy":
            return NpyCodec(self.shape, self.dtype)
        return ImageCodec(self.format, self.shape, quality)

    def path(self, root: str, index: int, label: int) -> str:
        """Return the path of a sample: computed, as lists of strings are copied into every forked worker."""
        return f"{root}/{label:04d}/{index:08d}.{_SUFFIX[self.format]}"


class FilesystemBackend(Backend[FilesystemOptions]):
    """``<class>/<index>.<format>``, the labels once more in ``labels.npy``, the rest in ``schema.json``."""

    name: ClassVar[str] = "filesystem"
    options_type: ClassVar[type[Options]] = FilesystemOptions

    @property
    def capabilities(self) -> Capabilities:
        """See Backend.capabilities."""
        return Capabilities(lossy=self.options.format == "jpeg")

    def resolved(self, schema: Schema) -> FilesystemOptions:
        """See Backend.resolved."""
        if self.options.format != "auto":
            return self.options
        return self.options.model_copy(update={"format": "png" if _holds_images(schema) else "npy"})

    def unsupported(self, schema: Schema) -> str | None:
        """See Backend.unsupported."""
        if not schema.shape:
            return "a sample without a dimension is a number, and no file of its own."
        if self.options.format in {"auto", "npy"} or _holds_images(schema):
            return None
        return (
            f"format={self.options.format} holds uint8 images of 1 or 3 channels, "
            f"not {schema.dtype} {schema.shape}; use format=npy."
        )

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        """See Backend.write."""
        require_empty(root)
        files = self.resolved(schema).format
        layout = _Layout.model_validate(
            {"format": files, "count": schema.count, "shape": schema.shape, "dtype": schema.dtype}
        )
        codec = layout.codec(self.options.quality or 95)
        labels = np.empty(schema.count, np.int64)
        threads = max(2, min(8, len(os.sched_getaffinity(0))))
        group = threads * _SAMPLES_PER_TASK
        done = 0

        def write_some(x: NDArray[Any], first: int) -> None:
            for index, sample in enumerate(x, first):
                # Not Path: 50,000 of them cost as much as writing the files.
                with open(layout.path(str(root), index, int(labels[index])), "wb") as file:  # noqa: PTH123
                    file.write(codec.encode(sample))

        with ThreadPoolExecutor(threads) as pool:
            for x, y in checked_blocks(samples, schema):
                labels[done : done + len(y)] = y
                for label in np.unique(y):
                    Path(layout.path(str(root), 0, int(label))).parent.mkdir(exist_ok=True)
                for start in range(0, len(y), group):
                    # Group by group, so that no more than one is ever queued.
                    firsts = range(start, min(start + group, len(y)), _SAMPLES_PER_TASK)
                    parts = (x[first : first + _SAMPLES_PER_TASK] for first in firsts)
                    list(pool.map(write_some, parts, (done + first for first in firsts)))
                done += len(y)
        np.save(root / "labels.npy", labels)
        (root / "schema.json").write_text(layout.model_dump_json() + "\n")

    def open(self, root: Path) -> BatchReader:
        """See Backend.open."""
        path = root / "schema.json"
        try:
            layout = _Layout.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise damaged(path, error) from error
        if self.options.format not in {"auto", layout.format}:
            raise damaged(path, f"holds {layout.format} files where format={self.options.format} was asked for")
        labels = npy.read_layout(root / "labels.npy")
        if labels.shape != (layout.count,) or labels.dtype != np.int64:
            raise damaged(root / "labels.npy", f"{labels.shape[:1]} labels for {layout.count} samples")
        reader = self.options.reader or ("mapped" if layout.format == "npy" else "library")
        if reader == "mapped" and layout.format != "npy":
            raise BackendError(f"reader=mapped reads npy files, and {root} holds {layout.format}: use reader=library.")
        if reader == "naive":
            return _Naive(root, layout)
        return _Library(root, layout, loads=reader == "library" and layout.format == "npy")


def _holds_images(schema: Schema) -> bool:
    return schema.dtype == "uint8" and len(schema.shape) == 3 and schema.shape[0] in (1, 3) and 0 not in schema.shape


class _Files:
    """The sample files of one store; a pickle carries no labels."""

    def __init__(self, root: Path, layout: _Layout) -> None:
        self.layout = layout
        self.codec = layout.codec()
        self._root = str(root)
        self._labels = PerProcess(partial(npy.load, root / "labels.npy"))

    def make_ready(self) -> None:
        self._labels()

    def labels(self, indices: Indices) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self._labels()[indices]
        return found

    def path(self, index: int, label: int) -> str:
        return self.layout.path(self._root, index, label)


class _Library(Reader):
    """Decodes each file into its row of the batch, or with ``loads`` has NumPy load it first."""

    def __init__(self, root: Path, layout: _Layout, *, loads: bool) -> None:
        super().__init__(layout.count, layout.shape, np.dtype(layout.dtype))
        self._files = _Files(root, layout)
        self._loads = loads

    def facts(self) -> dict[str, Any]:
        """See Reader.facts."""
        return {} if self._files.layout.format == "npy" else {"decoder": decoder_name()}

    def make_ready(self) -> None:
        """See Reader.make_ready."""
        self._files.make_ready()
        if self._files.layout.format != "npy" and not self._loads:
            # The first to ask for the decoder imports it.
            decoder_name()

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        files = self._files
        labels = files.labels(indices)
        y.numpy()[:] = labels
        decode_into, load = files.codec.decode_into, files.codec.load
        for row, index, label in zip(x.numpy(), indices.tolist(), labels.tolist(), strict=True):
            path = files.path(index, label)
            if self._loads:
                row[...] = load(path)
            else:
                decode_into(path, row)


class _Naive(NaiveReader):
    def __init__(self, root: Path, layout: _Layout) -> None:
        super().__init__(layout.count, layout.shape, np.dtype(layout.dtype))
        self._files = _Files(root, layout)

    def make_ready(self) -> None:
        self._files.make_ready()

    def read_one(self, index: int) -> tuple[NDArray[Any], int]:
        label = int(self._files.labels(np.array([index]))[0])
        return self._files.codec.load(self._files.path(index, label)), label
