"""The conformance suite over the backends of this package, and proof that it can fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance import COUNT, BackendConformance, Store, Truth, failing_tests
from pydantic import ValidationError

from bench.contracts.backend import Backend, BackendError
from bench.loaders.filesystem import FilesystemBackend, FilesystemOptions
from bench.loaders.hdf5 import Hdf5Backend, Hdf5Options
from bench.loaders.memmap import MemmapBackend, MemmapOptions
from bench.loaders.memory import MemoryBackend, MemoryOptions
from bench.loaders.zarr_ import ZarrBackend, ZarrOptions
from bench.registry import BACKENDS, backend_class


@dataclass(frozen=True)
class Case:
    backend: type[Backend[Any]]
    options: dict[str, Any] = field(default_factory=dict)
    needs: str | None = None

    def __str__(self) -> str:
        return "-".join([self.backend.name, *(f"{name}={value}" for name, value in self.options.items())])

    def make(self) -> Backend[Any]:
        if self.needs:
            pytest.importorskip(self.needs)
        return self.backend(self.backend.options_type(**self.options))


CASES = [
    Case(MemoryBackend),
    Case(MemoryBackend, {"reader": "naive"}),
    Case(MemmapBackend),
    Case(MemmapBackend, {"reader": "naive"}),
    Case(FilesystemBackend),
    Case(FilesystemBackend, {"format": "png"}),
    Case(FilesystemBackend, {"format": "png", "reader": "naive"}),
    Case(FilesystemBackend, {"format": "npy"}),
    Case(FilesystemBackend, {"format": "npy", "reader": "naive"}),
    Case(FilesystemBackend, {"format": "jpeg"}),
    Case(FilesystemBackend, {"format": "jpeg", "quality": 90, "reader": "naive"}),
    Case(Hdf5Backend),
    Case(Hdf5Backend, {"reader": "naive"}),
    Case(Hdf5Backend, {"chunk": 1}),
    Case(Hdf5Backend, {"chunk": 7}),
    Case(Hdf5Backend, {"chunk": 7, "compression": "gzip"}),
    Case(Hdf5Backend, {"chunk": 7, "compression": "gzip", "reader": "naive"}),
    Case(Hdf5Backend, {"compression": "lzf"}),
    Case(Hdf5Backend, {"chunk": 7, "compression": "zstd"}, needs="hdf5plugin"),
    Case(Hdf5Backend, {"compression": "blosc"}, needs="hdf5plugin"),
    Case(Hdf5Backend, {"reader": "mapped"}),
    Case(Hdf5Backend, {"chunk": 7, "reader": "mapped"}),
    Case(Hdf5Backend, {"compression": "gzip", "reader": "mapped"}),
    Case(Hdf5Backend, {"chunk": 7, "compression": "lzf", "reader": "mapped"}),
    Case(Hdf5Backend, {"chunk": 7, "compression": "zstd", "reader": "mapped"}, needs="hdf5plugin"),
    Case(Hdf5Backend, {"chunk": 7, "compression": "blosc", "reader": "mapped"}, needs="hdf5plugin"),
    Case(ZarrBackend),
    Case(ZarrBackend, {"chunk": 4, "reader": "naive"}),
    Case(ZarrBackend, {"chunk": 4}),
    Case(ZarrBackend, {"chunk": 2, "shard": 8}),
    Case(ZarrBackend, {"chunk": 2, "shard": 8, "codec": "zstd", "reader": "naive"}),
    Case(ZarrBackend, {"chunk": 5, "codec": "zstd", "clevel": 1}),
    Case(ZarrBackend, {"chunk": 4, "codec": "blosc"}),
    Case(ZarrBackend, {"chunk": 4, "codec": "blosc", "reader": "naive"}),
    Case(ZarrBackend, {"chunk": 4, "reader": "mapped"}),
    Case(ZarrBackend, {"chunk": 2, "shard": 8, "reader": "mapped"}),
    Case(ZarrBackend, {"chunk": 1, "codec": "zstd", "reader": "mapped"}),
    Case(ZarrBackend, {"chunk": 5, "codec": "blosc", "reader": "mapped"}),
    Case(ZarrBackend, {"chunk": 2, "shard": 8, "codec": "zstd", "reader": "mapped"}),
]


# A backend that is registered is tested, also while nobody has thought of its variants.
CASES += [Case(backend_class(name)) for name in sorted(set(BACKENDS) - {case.backend.name for case in CASES})]


class TestBackends(BackendConformance):
    @pytest.fixture(params=CASES, ids=str)
    def backend(self, request: pytest.FixtureRequest) -> Backend[Any]:
        return request.param.make()


# The suite must notice each of these.


class WrongByte(MemoryBackend):
    def open(self, root: Path) -> Any:
        return Spoilt(super().open(root), lambda x, y: (x ^ (torch.arange(x.numel()).reshape(x.shape) == 17), y))


class SwappedLabels(MemoryBackend):
    def open(self, root: Path) -> Any:
        return Spoilt(super().open(root), lambda x, y: (x, y.flip(0)))


class DroppedSample(MemoryBackend):
    def write(self, samples: Any, schema: Any, root: Path) -> None:
        from dataclasses import replace

        kept = [block for block in samples if len(block.y) != 1]
        super().write(kept, replace(schema, count=sum(len(block.y) for block in kept)), root)


class SortedOrder(MemoryBackend):
    def open(self, root: Path) -> Any:
        return Spoilt(super().open(root), lambda x, y: (x, y), order=sorted)


class FloatSamples(MemoryBackend):
    def open(self, root: Path) -> Any:
        return Spoilt(super().open(root), lambda x, y: (x.float(), y))


class SecretlyLossy(MemoryBackend):
    def open(self, root: Path) -> Any:
        return Spoilt(super().open(root), lambda x, y: (x & 0xFE, y))


class Spoilt:
    def __init__(self, reader: Any, spoil: Callable[..., Any], order: Callable[..., Any] = list) -> None:
        self.reader, self.spoil, self.order = reader, spoil, order

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Any:
        x, y = self.__getitems__([index])
        return x[0], int(y[0])

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return self.spoil(*self.reader.__getitems__(self.order(indices)))


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (WrongByte, "test_round_trip"),
        (SwappedLabels, "test_round_trip"),
        (DroppedSample, "test_length"),
        (SortedOrder, "test_unordered_and_repeated_indices"),
        (FloatSamples, "test_round_trip"),
        (SecretlyLossy, "test_lossy_is_what_it_says"),
    ],
)
def test_a_broken_backend_fails_the_suite(broken: type[Backend[Any]], caught_by: str, tmp_path: Path) -> None:
    assert caught_by in failing_tests(broken(MemoryOptions()), tmp_path)


def test_a_sound_backend_passes_the_same_tests(tmp_path: Path) -> None:
    assert failing_tests(MemoryBackend(MemoryOptions()), tmp_path) == set()


# What is particular to one backend.


@pytest.mark.parametrize(
    ("options_type", "given", "named"),
    [
        (Hdf5Options, {"layout": "contiguous", "chunk": 4}, "layout=contiguous cannot be combined with chunk"),
        (Hdf5Options, {"layout": "contiguous", "compression": "gzip"}, "compression"),
        (Hdf5Options, {"chunk": 0}, "chunk"),
        (ZarrOptions, {"chunk": 3, "shard": 8}, "shard=8 must be a multiple of chunk, but chunk=3"),
        (ZarrOptions, {"shard": 8}, "chunk is not given"),
        (ZarrOptions, {"clevel": 3}, "needs codec=zstd"),
        (ZarrOptions, {"codec": "blosc", "clevel": 12}, "clevel=12"),
        (FilesystemOptions, {"quality": 80}, "format=jpeg"),
        (FilesystemOptions, {"format": "jpeg", "quality": 0}, "quality"),
        (MemmapOptions, {"reader": "fast"}, "reader"),
        (MemoryOptions, {"chunk": 1}, "chunk"),
    ],
)
def test_options_that_make_no_sense_are_refused(options_type: type, given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        options_type(**given)


def test_hdf5_chunk_or_compression_imply_chunked() -> None:
    assert Hdf5Options().layout == "contiguous"
    assert Hdf5Options(chunk=4).layout == "chunked"
    assert Hdf5Options(compression="lzf").layout == "chunked"


def test_hdf5_says_how_to_get_its_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(BackendError, match="pip install hdf5plugin"):
        Hdf5Backend(Hdf5Options(compression="zstd")).write(Truth.make().blocks(), Truth.make().schema, tmp_path)


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"),
    [("uint8", (3, 4, 4), "png"), ("uint8", (1, 4, 4), "png"), ("float32", (1, 4, 4), "npy"), ("uint8", (4,), "npy")],
)
def test_files_are_images_where_samples_are(dtype: str, shape: tuple[int, ...], expected: str, tmp_path: Path) -> None:
    truth = Truth.make(dtype, shape)
    backend = FilesystemBackend(FilesystemOptions())
    assert backend.unsupported(truth.schema) is None
    assert backend.resolved(truth.schema).format == expected
    backend.write(truth.blocks(), truth.schema, tmp_path)
    assert {path.suffix for path in tmp_path.glob("0*/*")} == {f".{expected}"}
    x, y = backend.open(tmp_path).__getitems__([3, 0])
    np.testing.assert_array_equal(x.numpy(), truth.x[[3, 0]])
    assert y.tolist() == truth.y[[3, 0]].tolist()


def test_images_are_refused_where_a_format_cannot_hold_them() -> None:
    backend = FilesystemBackend(FilesystemOptions(format="png"))
    for truth in (Truth.make("int16"), Truth.make(shape=(2, 4, 4)), Truth.make(shape=(4, 4))):
        assert "format=npy" in (backend.unsupported(truth.schema) or "")
        assert FilesystemBackend(FilesystemOptions(format="npy")).unsupported(truth.schema) is None


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    Store.write(FilesystemBackend(FilesystemOptions(format="png")), tmp_path / "store")
    with pytest.raises(BackendError, match="format=npy"):
        FilesystemBackend(FilesystemOptions(format="npy")).open(tmp_path / "store")


@pytest.mark.parametrize("options", [{}, {"chunk": 2}])
def test_hdf5_reads_large_samples_in_place(options: dict[str, Any], tmp_path: Path) -> None:
    truth = Truth.make("int16", (3, 100, 80))
    backend = Hdf5Backend(Hdf5Options(**options))
    backend.write(truth.blocks(), truth.schema, tmp_path)
    indices = [22, 0, 3, 3, 1]
    x, y = backend.open(tmp_path).__getitems__(indices)
    np.testing.assert_array_equal(x.numpy(), truth.x[indices])
    assert y.tolist() == truth.y[indices].tolist()


def test_zarr_chunks_fit_the_sample_size() -> None:
    options = ZarrOptions()
    assert options.samples_per_chunk(Truth.make(shape=(3, 512, 512)).schema) == 1
    assert options.samples_per_chunk(Truth.make().schema) == COUNT
