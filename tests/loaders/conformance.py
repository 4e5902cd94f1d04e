"""What every storage backend must hold, for the ones in this package and for anybody else's.

Subclass ``BackendConformance``, say which backends to test, and run pytest:

    class TestMine(BackendConformance):
        @pytest.fixture(params=[MineOptions(), MineOptions(level=3)], ids=repr)
        def backend(self, request):
            return MineBackend(request.param)

Truth is the arrays handed to ``write``, never what a store says about itself.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from bench.contracts.backend import Backend, BackendError
from bench.contracts.reader import BatchReader, PerProcess, Reader, torch_dtype
from bench.contracts.source import SampleBlock, Schema

COUNT = 23
MAX_PICKLE_BYTES = 64 * 1024
# Mean absolute error of one sample; the truth of lossy backends is smooth, and its samples lie 9 apart.
LOSSY_TOLERANCE = 3.0
OTHER_KINDS = [("uint8", (1, 5, 7)), ("float32", (1, 4, 9)), ("int16", (2, 3)), ("float64", (6,))]


@dataclass(frozen=True, repr=False)
class Truth:
    """The samples as they were written."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def make(cls, dtype: str = "uint8", shape: tuple[int, ...] = (3, 8, 8), *, smooth: bool = False) -> Truth:
        rng = np.random.default_rng(7)
        if smooth:
            x = np.linspace(20, 218, COUNT).reshape(-1, *[1] * len(shape)) + np.linspace(0, 8, shape[-1])
            x = np.broadcast_to(x, (COUNT, *shape)).astype(dtype)
        elif np.dtype(dtype).kind == "f":
            x = rng.standard_normal((COUNT, *shape)).astype(dtype)
        else:
            info = np.iinfo(dtype)
            x = rng.integers(info.min, info.max, (COUNT, *shape), dtype=dtype, endpoint=True)
            # Zarr leaves out chunks of nothing but zeros unless told otherwise.
            x[4:12] = 0
        return cls(np.ascontiguousarray(x), rng.integers(0, 10, COUNT))

    @property
    def schema(self) -> Schema:
        classes = tuple("abcdefghij")
        return Schema("truth", "train", COUNT, self.x.shape[1:], self.x.dtype.name, classes, "none", "local")

    def blocks(self) -> Iterator[SampleBlock]:
        """Yield blocks of uneven sizes, as sources do."""
        ends = [1, 6, 16, 17, COUNT]
        for start, end in zip([0, *ends], ends, strict=False):
            yield SampleBlock(self.x[start:end], self.y[start:end])


@dataclass(frozen=True)
class Store:
    """A store on disk, and what must be in it."""

    backend: Backend[Any]
    root: Path
    truth: Truth

    @classmethod
    def write(cls, backend: Backend[Any], root: Path) -> Store:
        root.mkdir()
        truth = Truth.make(smooth=backend.capabilities.lossy)
        backend.write(truth.blocks(), truth.schema, root)
        return cls(backend, root, truth)

    def open(self) -> BatchReader:
        return self.backend.open(self.root)

    def check(self, indices: Sequence[int], batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Fail unless ``batch`` is what was written at ``indices``, in that order."""
        check_batch(self.truth, indices, batch, lossy=self.backend.capabilities.lossy)


_WRITTEN: dict[tuple[type[Backend[Any]], str], Store] = {}


def check_batch(
    truth: Truth, indices: Sequence[int], batch: tuple[torch.Tensor, torch.Tensor], *, lossy: bool = False
) -> None:
    x, y = batch
    wanted = np.asarray(indices, dtype=np.int64)
    assert tuple(x.shape) == (len(wanted), *truth.x.shape[1:])
    assert x.dtype == torch_dtype(truth.x.dtype)
    assert x.is_contiguous()
    assert tuple(y.shape) == (len(wanted),)
    assert y.dtype == torch.int64
    assert y.tolist() == truth.y[wanted].tolist()
    if lossy:
        for row, index in enumerate(wanted):
            assert np.abs(x[row].numpy().astype(np.float64) - truth.x[index]).mean() < LOSSY_TOLERANCE
    else:
        np.testing.assert_array_equal(x.numpy(), truth.x[wanted])


def read_all(reader: BatchReader, indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Read in another process; arrays, as tensors would travel through shared memory."""
    x, y = reader.__getitems__(indices)
    return x.numpy(), y.numpy()


@cache
def spawned() -> ProcessPoolExecutor:
    """One spawned process for all backends: importing torch takes seconds."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def first_item(items: Any) -> Any:
    """Collate what is a batch already."""
    return items


def files_of(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def some_files(root: Path, at_most: int = 8) -> list[Path]:
    """Return all files, or where there are many some of each kind, first and last included."""
    files = files_of(root)
    if len(files) <= at_most:
        return files
    spaced = {files[i] for i in np.linspace(0, len(files) - 1, at_most).round().astype(int)}
    return sorted(spaced | {path for path in files if path.parent == Path()})


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 9)


def overwrite(path: Path) -> None:
    path.write_bytes(b"\x5a" * path.stat().st_size)


class BackendConformance:
    """The suite. A subclass provides the fixture ``backend``."""

    @pytest.fixture
    def backend(self) -> Backend[Any]:
        raise NotImplementedError("provide the fixture 'backend'")

    @pytest.fixture
    def store(self, backend: Backend[Any], tmp_path_factory: pytest.TempPathFactory) -> Store:
        """Written once for all tests: what reading must not change, and damage is done to copies of, can be shared."""
        key = (type(backend), backend.options.model_dump_json())
        if key not in _WRITTEN:
            _WRITTEN[key] = Store.write(backend, tmp_path_factory.mktemp("conformance") / "store")
        return replace(_WRITTEN[key], backend=backend)

    # Delivering

    def test_round_trip(self, store: Store) -> None:
        store.check(range(COUNT), store.open().__getitems__(list(range(COUNT))))

    def test_length(self, store: Store) -> None:
        assert len(store.open()) == COUNT

    def test_a_sample_has_shape_dtype_and_integer_label(self, store: Store) -> None:
        x, y = store.open()[5]
        assert type(y) is int
        store.check([5], (x[None], torch.tensor([y])))

    def test_a_batch_equals_its_samples(self, store: Store) -> None:
        reader = store.open()
        indices = [22, 0, 7, 7, 13, 1]
        x, y = reader.__getitems__(indices)
        for row, index in enumerate(indices):
            single, label = reader[index]
            assert torch.equal(single, x[row])
            assert label == y[row]

    def test_unordered_and_repeated_indices(self, store: Store) -> None:
        reader = store.open()
        for indices in ([9, 3, 3, 21, 0, 9], list(reversed(range(COUNT))), [4] * 5, [22]):
            store.check(indices, reader.__getitems__(indices))

    def test_index_arrays_of_any_layout(self, store: Store) -> None:
        indices = np.array([8, 2, 19, 4])
        fixed = indices.copy()
        fixed.flags.writeable = False
        reader = store.open()
        for given_indices in (indices, indices[::-1], indices[::2], fixed, torch.from_numpy(indices).numpy()):
            store.check(given_indices.tolist(), reader.__getitems__(given_indices))

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(indices=st.lists(st.integers(0, COUNT - 1), max_size=2 * COUNT))
    def test_any_indices(self, store: Store, indices: list[int]) -> None:
        store.check(indices, store.open().__getitems__(indices))

    def test_nothing_is_left_to_open_once_it_is_ready(self, store: Store) -> None:
        reader = store.open()
        if not isinstance(reader, Reader):
            pytest.skip("is not one of ours")
        reader.make_ready()
        parts = list(vars(reader).values())
        parts += [inner for part in parts if hasattr(part, "__dict__") for inner in vars(part).values()]
        assert all(part._pid == os.getpid() for part in parts if isinstance(part, PerProcess))
        store.check([3, 1], reader.__getitems__([3, 1]))

    def test_no_indices_give_an_empty_batch(self, store: Store) -> None:
        store.check([], store.open().__getitems__([]))

    @pytest.mark.parametrize("bad", [-1, COUNT, 10 * COUNT])
    def test_an_index_out_of_range_raises_index_error(self, store: Store, bad: int) -> None:
        reader = store.open()
        with pytest.raises(IndexError):
            reader[bad]
        with pytest.raises(IndexError):
            reader.__getitems__([0, bad, 1])

    def test_iteration_ends(self, store: Store) -> None:
        assert sum(1 for _ in store.open()) == COUNT

    def test_read_into_fills_every_byte(self, store: Store) -> None:
        reader = store.open()
        if not isinstance(reader, Reader):
            pytest.skip("does not fill buffers")
        indices = np.array([3, 20, 3])
        x = torch.full((3, *store.truth.x.shape[1:]), 77, dtype=torch_dtype(store.truth.x.dtype))
        y = torch.full((3,), -5)
        reader.read_into(indices, x, y)
        store.check(indices.tolist(), (x, y))

    def test_a_batch_belongs_to_its_reader(self, store: Store) -> None:
        reader = store.open()
        for items in (reader.__getitems__([1, 2]), reader[1]):
            items[0].fill_(0)
        store.check([1, 2], reader.__getitems__([1, 2]))
        store.check([1, 2], store.open().__getitems__([1, 2]))

    def test_two_readers_are_independent(self, store: Store) -> None:
        first, second = store.open(), store.open()
        store.check([1], first.__getitems__([1]))
        store.check([2], second.__getitems__([2]))
        del first
        store.check([3], second.__getitems__([3]))

    # Workers

    def test_pickles_small_and_works_when_spawned(self, store: Store) -> None:
        reader = store.open()
        reader.__getitems__([0])
        assert len(pickle.dumps(reader)) < MAX_PICKLE_BYTES
        if not store.backend.capabilities.process_workers:
            pytest.skip("no process workers")
        indices = [22, 0, 5, 5]
        x, y = spawned().submit(read_all, reader, indices).result(timeout=120)
        store.check(indices, (torch.from_numpy(x), torch.from_numpy(y)))

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    @pytest.mark.parametrize("workers", [0, 2])
    def test_data_loader_workers_deliver_the_same(self, store: Store, workers: int) -> None:
        if workers and not store.backend.capabilities.process_workers:
            pytest.skip("no process workers")
        reader = store.open()
        # Used before the fork: handles that the children inherit are the dangerous ones.
        store.check([2, 1], reader.__getitems__([2, 1]))
        order = np.random.default_rng(3).permutation(COUNT).tolist()
        loader = DataLoader(
            reader,  # type: ignore[arg-type]
            batch_size=6,
            sampler=order,
            num_workers=workers,
            collate_fn=first_item,
            multiprocessing_context="fork" if workers else None,
        )
        for number, batch in enumerate(loader):
            store.check(order[6 * number : 6 * number + 6], batch)
        assert number == (COUNT - 1) // 6

    def test_threads_deliver_the_same(self, store: Store) -> None:
        if not store.backend.capabilities.thread_workers:
            pytest.skip("no thread workers")
        reader = store.open()
        rng = np.random.default_rng(5)
        batches = [rng.integers(0, COUNT, 7).tolist() for _ in range(24)]
        with ThreadPoolExecutor(4) as pool:
            for indices, batch in zip(batches, pool.map(reader.__getitems__, batches), strict=True):
                store.check(indices, batch)

    # Writing

    def test_other_kinds_of_samples(self, backend: Backend[Any], tmp_path: Path) -> None:
        for dtype, shape in OTHER_KINDS:
            truth = Truth.make(dtype, shape, smooth=backend.capabilities.lossy)
            refusal = backend.unsupported(truth.schema)
            if refusal is not None:
                assert refusal.strip()
                continue
            root = tmp_path / f"{dtype}-{len(shape)}"
            root.mkdir()
            backend.write(truth.blocks(), truth.schema, root)
            indices = [22, 0, 3, 3]
            check_batch(truth, indices, backend.open(root).__getitems__(indices), lossy=backend.capabilities.lossy)

    def test_lossy_is_what_it_says(self, store: Store) -> None:
        x, _ = store.open().__getitems__(list(range(COUNT)))
        assert np.array_equal(x.numpy(), store.truth.x) is not store.backend.capabilities.lossy

    def test_refuses_a_folder_that_is_not_empty(self, backend: Backend[Any], tmp_path: Path) -> None:
        truth = Truth.make(smooth=True)
        (tmp_path / "mine").write_text("keep")
        with pytest.raises(BackendError):
            backend.write(truth.blocks(), truth.schema, tmp_path)
        with pytest.raises(BackendError):
            backend.write(truth.blocks(), truth.schema, tmp_path / "absent")
        assert files_of(tmp_path) == [Path("mine")]

    def test_refuses_samples_that_break_the_schema(self, backend: Backend[Any], tmp_path: Path) -> None:
        truth = Truth.make(smooth=True)
        for name, blocks in (
            ("few", [SampleBlock(truth.x[:-1], truth.y[:-1])]),
            ("many", [*truth.blocks(), SampleBlock(truth.x[:1], truth.y[:1])]),
            ("shape", [SampleBlock(np.ascontiguousarray(truth.x[:, :, :7]), truth.y)]),
            ("dtype", [SampleBlock(truth.x.astype(np.int16), truth.y)]),
        ):
            root = tmp_path / name
            root.mkdir()
            with pytest.raises(BackendError):
                backend.write(blocks, truth.schema, root)

    def test_writes_nothing_outside_its_folder(
        self, backend: Backend[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = Store.write(backend, tmp_path / "store")
        store.check([0, 22], store.open().__getitems__([0, 22]))
        assert [path for path in files_of(tmp_path) if path.parts[0] != "store"] == []

    def test_reading_changes_nothing(self, store: Store) -> None:
        before = [(path, (store.root / path).read_bytes()) for path in files_of(store.root)]
        store.check([4, 2], store.open().__getitems__([4, 2]))
        assert [(path, (store.root / path).read_bytes()) for path in files_of(store.root)] == before

    def test_a_store_can_be_moved(self, store: Store, tmp_path: Path) -> None:
        shutil.copytree(store.root, tmp_path / "elsewhere")
        store.check([4, 2], store.backend.open(tmp_path / "elsewhere").__getitems__([4, 2]))

    # Damage

    def test_a_missing_store_is_an_error(self, backend: Backend[Any], tmp_path: Path) -> None:
        for root in (tmp_path, tmp_path / "absent"):
            with pytest.raises(BackendError):
                backend.open(root)

    @pytest.mark.parametrize("damage", [remove, empty, halve, shorten, overwrite])
    def test_damage_is_an_error(self, store: Store, tmp_path: Path, damage: Callable[[Path], None]) -> None:
        for number, path in enumerate(some_files(store.root)):
            root = tmp_path / str(number)
            shutil.copytree(store.root, root)
            damage(root / path)
            try:
                batch = store.backend.open(root).__getitems__(list(range(COUNT)))
            except BackendError as error:
                message = str(error)
            else:
                message = None
            if message is not None:
                assert "\n" not in message
                assert str(root) in message
                continue
            assert damage in (shorten, overwrite), f"{damage.__name__} {path} went unnoticed"
            if damage is shorten:
                # The last bytes of some formats (PNG, JPEG) say only that the file ends.
                store.check(range(COUNT), batch)

    # Options

    def test_options_survive_json(self, backend: Backend[Any]) -> None:
        options = backend.options
        assert type(options) is backend.options_type
        assert backend.options_type.model_validate_json(options.model_dump_json()) == options
        assert backend.read_options <= set(backend.options_type.model_fields)
        assert all(field.description for field in backend.options_type.model_fields.values())
        # `--backend NAME,workers=2` says how a cell is loaded.
        assert backend.options_type.model_fields.keys().isdisjoint(
            {"workers", "worker-kind", "worker_kind", "prefetch"}
        )


def failing_tests(backend: Backend[Any], folder: Path) -> set[str]:
    """Return the names of the tests, of those that need nothing but a store, that ``backend`` fails."""
    store = Store.write(backend, folder / "store")
    suite = BackendConformance()
    failed = set()
    for name in (
        "test_round_trip",
        "test_length",
        "test_a_batch_equals_its_samples",
        "test_unordered_and_repeated_indices",
        "test_no_indices_give_an_empty_batch",
        "test_a_batch_belongs_to_its_reader",
        "test_lossy_is_what_it_says",
    ):
        try:
            getattr(suite, name)(store)
        except (AssertionError, IndexError):
            failed.add(name)
    return failed
