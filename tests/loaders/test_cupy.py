"""The cupy backend without a GPU: its decisions, its ring on a simulated device, and what it asks of CuPy.

Here a device is NumPy with streams whose work is done late and in any order that events allow: a batch that is read
before it is filled, or overwritten while it is read, shows as wrong bytes. tests/test_gpu.py has the real thing.
"""

from __future__ import annotations

import ctypes
import importlib
import pickle
import random
import shutil
import subprocess
import sys
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conformance import COUNT, Truth, check_batch

from bench.contracts.backend import BackendError
from bench.contracts.reader import BatchReader, DeviceReader
from bench.loaders import cupy_, cupy_device, cupy_order, cupy_sources
from bench.loaders.cupy_ import CupyBackend, CupyOptions
from bench.loaders.cupy_device import CudaDevice, gather_source
from bench.loaders.cupy_plan import choose, runs, word_bytes

CUDA = torch.device("cuda", 0)
MODES = ["resident", "mapped", "staged", "gds"]


class Mark:
    passed = False


class SimEvent:
    def __init__(self, world: SimDevice) -> None:
        self.world, self.mark = world, None

    def record(self, stream: SimStream) -> None:
        mark = self.mark = Mark()
        stream.put(lambda: setattr(mark, "passed", True))

    def synchronize(self) -> None:
        while self.mark is not None and not self.mark.passed:
            self.world.step()


class SimStream:
    """Work that is done later; ``None`` and a mark stand for waiting."""

    def __init__(self, world: SimDevice, weight: float = 1.0) -> None:
        self.world, self.weight = world, weight
        self.work: deque[tuple[Mark | None, Any]] = deque()

    def put(self, work: Any, after: Mark | None = None) -> None:
        self.work.append((after, work))
        self.world.passes()

    def wait_event(self, event: SimEvent) -> None:
        if event.mark is not None:
            self.put(lambda: None, event.mark)

    def wait_stream(self, stream: SimStream) -> None:
        event = SimEvent(self.world)
        event.record(stream)
        self.wait_event(event)

    def synchronize(self) -> None:
        while self.work:
            self.world.step()

    def ready(self) -> bool:
        return bool(self.work) and (self.work[0][0] is None or self.work[0][0].passed)


class SimDevice:
    """A Device; ``consumer_weight`` is how likely the consumer's work is done before that of others."""

    def __init__(self, seed: int, consumer_weight: float = 1.0, free_bytes: int = 1 << 30) -> None:
        self.random = random.Random(seed)
        self.streams: list[SimStream] = []
        self.consumer, self.on_now = self.new_stream(consumer_weight), self.new_stream()
        self.free, self.refuses_to_register, self.built = free_bytes, False, 0
        self.xp = SimpleNamespace(take=self.take)

    def step(self) -> None:
        ready = [stream for stream in self.streams if stream.ready()]
        assert ready, "everybody waits for somebody"
        stream = self.random.choices(ready, [s.weight for s in ready])[0]
        stream.work.popleft()[1]()

    def passes(self) -> None:
        """Time passes for the host: some work gets done, or none."""
        for _ in range(self.random.choice((0, 0, 1, 3))):
            if any(stream.ready() for stream in self.streams):
                self.step()

    def current_stream(self) -> SimStream:
        return self.consumer

    def new_stream(self, weight: float = 1.0) -> SimStream:
        self.streams.append(SimStream(self, weight))
        return self.streams[-1]

    def new_event(self) -> SimEvent:
        return SimEvent(self)

    @contextmanager
    def on(self, stream: SimStream) -> Any:
        before, self.on_now = self.on_now, stream
        yield
        self.on_now = before

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        found = self.pinned(shape, dtype)
        # An allocator in the order of a stream: whoever had the memory before may still have to write to it.
        self.on_now.put(lambda: found.view(np.uint8).fill(0xEE))
        return found

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def copy_in(self, target: np.ndarray, source: np.ndarray) -> None:
        assert target.nbytes == source.nbytes
        self.on_now.put(lambda: np.copyto(target, source))

    def take(self, rows: np.ndarray, indices: np.ndarray, axis: int, out: np.ndarray) -> None:
        assert out.base is not None
        assert out.dtype == rows.dtype
        self.on_now.put(lambda: np.copyto(out, rows[indices]))

    def build(self, rows: np.ndarray) -> None:
        self.built += 1

    def gather(self, rows: np.ndarray, labels: np.ndarray, indices: np.ndarray, out: np.ndarray, y: np.ndarray) -> None:
        def work() -> None:
            out[: len(indices)], y[: len(indices)] = rows[indices], labels[indices]

        self.on_now.put(work)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    def registered(self, mapping: np.ndarray) -> np.ndarray:
        if self.refuses_to_register:
            raise BackendError("no registering here.")
        return mapping

    def free_bytes(self) -> int:
        return self.free


class SimFile:
    """Reads as KvikIO's threads do them: sooner or later, or when somebody waits for them; in no order with streams."""

    def __init__(self, path: Path, device: SimDevice, short: int = 0) -> None:
        self.data, self.device, self.short = path.read_bytes(), device, short
        self.threads = [device.new_stream(0.2) for _ in range(3)]

    def pread(self, buffer: np.ndarray, size: int, file_offset: int) -> Any:
        data = np.frombuffer(self.data[file_offset : file_offset + size], np.uint8)
        thread = self.device.random.choice(self.threads)
        thread.put(lambda: np.copyto(buffer.reshape(-1), data))
        done = SimEvent(self.device)
        done.record(thread)

        def get() -> int:
            done.synchronize()
            return len(data) - self.short

        return SimpleNamespace(get=get)


def written(root: Path, truth: Truth) -> Path:
    root.mkdir()
    CupyBackend(CupyOptions()).write(truth.blocks(), truth.schema, root)
    return root


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return written(tmp_path / "store", Truth.make())


def opened(
    root: Path, mode: str, device: SimDevice, monkeypatch: pytest.MonkeyPatch, short: int = 0, batch_size: int = 0
) -> Any:
    def by_kvikio(path: Path, row_bytes: int) -> cupy_sources.FileReads:
        return cupy_sources.FileReads(SimFile(path, device, short).pread, {"path": "simulated"})

    monkeypatch.setattr(cupy_, "CudaDevice", lambda _: device)
    monkeypatch.setattr(cupy_, "open_by_kvikio", by_kvikio)
    reader = CupyBackend(CupyOptions(mode=mode)).open(root)
    reader.open_device(CUDA, batch_size)
    return reader


def consumed(reader: Any, device: SimDevice, order: list[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Read all batches as training does: its work is given to the stream, and done much later."""
    seen: list[Any] = []

    def use(x: torch.Tensor, y: torch.Tensor) -> None:
        seen.append((x.clone(), y.clone()))

    for x, y in reader.device_batches(iter(order), CUDA):
        device.consumer.put(lambda x=x, y=y: use(x, y))
    device.consumer.synchronize()
    return seen


def epoch(seed: int, batch: int = 4, batches: int = 9) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, COUNT, batch) for _ in range(batches)] + [rng.integers(0, COUNT, 1)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("consumer_weight", [0.02, 1.0, 50.0], ids=["slow", "even", "quick"])
def test_every_batch_is_whole_whatever_is_done_first(
    mode: str, consumer_weight: float, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = Truth.make()
    for seed in range(25):
        device = SimDevice(seed, consumer_weight)
        reader = opened(store, mode, device, monkeypatch)
        for number in range(2):
            order = epoch(2 * seed + number)
            found = consumed(reader, device, order)
            assert len(found) == len(order)
            for indices, batch in zip(order, found, strict=True):
                check_batch(truth, indices, batch)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dtype", "shape"), [("float32", (1, 4, 9)), ("int16", (2, 3)), ("uint8", (5, 7)), ("float64", (6,))]
)
def test_other_kinds_of_samples(
    mode: str, dtype: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = Truth.make(dtype, shape)
    device = SimDevice(1)
    reader = opened(written(tmp_path / "store", truth), mode, device, monkeypatch)
    order = [np.array([22, 0, 3, 3]), np.arange(4, 7), np.empty(0, np.int64)]
    for indices, batch in zip(order, consumed(reader, device, order), strict=True):
        check_batch(truth, indices, batch)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("group", [1, 7, 12])
def test_the_order_may_take_many_copies_to_the_device(
    mode: str, group: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy_order, "GROUP_INDICES", group)
    for seed in range(25):
        device = SimDevice(seed, consumer_weight=0.02)
        reader = opened(store, mode, device, monkeypatch)
        order = epoch(seed, batches=17)
        for _ in range(2):
            for indices, batch in zip(order, consumed(reader, device, order), strict=True):
                check_batch(Truth.make(), indices, batch)


def test_a_set_of_many_pieces_is_loaded_whole(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_sources, "_PIECE_BYTES", 100)
    for seed in range(5):
        device = SimDevice(seed)
        found = consumed(opened(store, "resident", device, monkeypatch), device, [np.arange(COUNT)])
        check_batch(Truth.make(), range(COUNT), found[0])


@pytest.mark.parametrize("mode", MODES)
def test_an_epoch_may_be_left_early(mode: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(25):
        device = SimDevice(seed)
        reader = opened(store, mode, device, monkeypatch)
        batches = reader.device_batches(iter(epoch(1)), CUDA)
        next(batches)
        batches.close()
        order = epoch(2)
        for indices, batch in zip(order, consumed(reader, device, order), strict=True):
            check_batch(Truth.make(), indices, batch)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("moved", [False, True], ids=["used where asked", "used elsewhere"])
def test_a_consumer_may_change_its_stream(mode: str, moved: bool, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(25):
        device = SimDevice(seed, consumer_weight=0.02)
        streams = [device.consumer, device.new_stream(0.02)]
        reader = opened(store, mode, device, monkeypatch)
        order = epoch(seed)
        seen: dict[int, Any] = {}
        batches = reader.device_batches(iter(order), CUDA)
        for number in range(len(order)):
            device.consumer = streams[number % 2]
            x, y = next(batches)
            if moved:
                streams[1 - number % 2].wait_stream(device.consumer)
                device.consumer = streams[1 - number % 2]
            device.consumer.put(lambda to=seen, n=number, x=x, y=y: to.update({n: (x.clone(), y.clone())}))
        batches.close()
        for stream in device.streams:
            stream.synchronize()
        for number, indices in enumerate(order):
            check_batch(Truth.make(), indices, seen[number])


@pytest.mark.parametrize("mode", MODES)
def test_what_is_freed_after_an_epoch_is_not_written_any_more(
    mode: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(25):
        device = SimDevice(seed, consumer_weight=50)
        reader = opened(store, mode, device, monkeypatch)
        buffers = [x for x, _ in reader.device_batches(iter(epoch(0)), CUDA)]
        batches = reader.device_batches(iter(epoch(1)), CUDA)
        next(batches)
        batches.close()
        device.consumer.put(lambda buffers=buffers: [x.fill_(7) for x in buffers])
        for stream in device.streams:
            stream.synchronize()
        assert all((x == 7).all() for x in buffers)


def test_batches_are_views_of_a_few_buffers_and_larger_ones_get_larger_ones(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimDevice(0)
    reader = opened(store, "staged", device, monkeypatch)
    places = {x.data_ptr() for x, _ in reader.device_batches(iter(epoch(0)), CUDA)}
    assert len(places) == 3
    assert reader.facts()["ring_bytes"] == 3 * 4 * (3 * 8 * 8 + 8)
    consumed(reader, device, epoch(0, batch=9))
    assert reader.facts()["ring_bytes"] == 3 * 9 * (3 * 8 * 8 + 8)


@pytest.mark.parametrize("mode", MODES)
def test_what_the_first_batch_needs_is_made_when_a_store_is_opened(
    mode: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimDevice(0)
    reader = opened(store, mode, device, monkeypatch, batch_size=4)
    assert device.built == (mode in {"resident", "mapped"})
    assert reader.facts()["ring_bytes"] > 0
    ring = reader._open.ring
    order = epoch(0)
    for indices, batch in zip(order, consumed(reader, device, order), strict=True):
        check_batch(Truth.make(), indices, batch)
    assert reader._open.ring is ring


def test_indices_and_sizes_are_checked_before_a_kernel_sees_them(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimDevice(0)
    reader = opened(store, "mapped", device, monkeypatch)
    for bad in (-1, COUNT):
        with pytest.raises(IndexError):
            consumed(reader, device, [np.array([0, bad])])
    with pytest.raises(ValueError, match="3 samples after a first one of 2"):
        consumed(reader, device, [np.arange(2), np.arange(3)])
    assert consumed(reader, device, []) == []


# Modes


@pytest.mark.parametrize(
    ("asked", "set_bytes", "mode"),
    [
        ("auto", 600, "resident"),
        ("auto", 601, "mapped"),
        ("auto", 2501, "staged"),
        ("gds", 600, "gds"),
        ("staged", 1, "staged"),
    ],
)
def test_auto_takes_the_first_mode_that_fits(asked: Any, set_bytes: int, mode: str) -> None:
    assert choose(asked, set_bytes, free_vram_bytes=1000, available_ram_bytes=5000).mode == mode


@pytest.mark.parametrize(("free", "chosen"), [(1 << 30, "resident"), (1000, "mapped")])
def test_facts_tell_what_was_chosen_and_what_it_took(
    free: int, chosen: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimDevice(0, free_bytes=free)
    reader = opened(store, "auto", device, monkeypatch)
    facts = reader.facts()
    assert (facts["mode"], facts["chosen"]) == ("auto", chosen)
    assert facts["set_bytes"] == COUNT * (3 * 8 * 8 + 8)
    assert facts["resident_bytes"] == (facts["set_bytes"] if chosen == "resident" else 8 * COUNT)
    assert facts["load_s"] > 0
    assert pickle.loads(pickle.dumps(reader)).facts() == {"mode": "auto"}


def test_a_refused_registration_is_told_and_only_auto_goes_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimDevice(0, free_bytes=0)
    device.refuses_to_register = True
    with pytest.raises(BackendError, match="no registering here"):
        opened(store, "mapped", device, monkeypatch)
    reader = opened(store, "auto", device, monkeypatch)
    assert reader.facts()["chosen"] == "staged"
    assert "no registering here" in reader.facts()["why"]


def test_rows_that_follow_each_other_are_one_read() -> None:
    assert [tuple(run) for run in runs(np.array([4, 5, 6, 6, 2, 3, 9]))] == [(0, 4, 3), (3, 6, 1), (4, 2, 2), (6, 9, 1)]
    assert runs(np.empty(0, np.int64)) == []


@pytest.mark.parametrize(("row_bytes", "offset", "expected"), [(3072, 128, 16), (3072, 8, 8), (20, 0, 4), (7, 128, 1)])
def test_words_divide_rows_and_offsets(row_bytes: int, offset: int, expected: int) -> None:
    assert word_bytes(row_bytes, offset) == expected


# Damage and what is missing


def test_a_read_that_falls_short_is_an_error(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimDevice(0)
    reader = opened(store, "gds", device, monkeypatch, short=1)
    with pytest.raises(BackendError, match=r"x\.npy: a read returned 191 bytes of 192"):
        consumed(reader, device, [np.array([3])])


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_was_cut_since_is_an_error(mode: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = opened(store, mode, SimDevice(0), monkeypatch)
    reader.close_device()
    data = (store / "x.npy").read_bytes()
    (store / "x.npy").write_bytes(data[:-1])
    with pytest.raises(BackendError, match=r"x\.npy"):
        reader.open_device(CUDA)


def test_values_of_another_byte_order_are_refused(store: Path) -> None:
    np.save(store / "x.npy", np.load(store / "x.npy").astype(">i2"))
    with pytest.raises(BackendError, match=">i2"):
        CupyBackend(CupyOptions()).open(store)


def test_without_cuda_or_cupy_a_run_is_unsupported_and_a_store_can_be_read(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = CupyBackend(CupyOptions())
    assert "--backend memmap" in backend.unsupported_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in backend.unsupported_device("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cupy_.importlib.util, "find_spec", lambda name: None)
    assert "pip install cupy-cuda13x" in backend.unsupported_device("cuda:0")
    monkeypatch.setattr(cupy_.importlib.util, "find_spec", lambda name: None if name == "kvikio" else object())
    assert backend.unsupported_device("cuda") is None
    assert "kvikio-cu13" in CupyBackend(CupyOptions(mode="gds")).unsupported_device("cuda")
    monkeypatch.setitem(sys.modules, "cupy", None)
    reader = backend.open(store)
    assert isinstance(reader, BatchReader)
    assert isinstance(reader, DeviceReader)
    with pytest.raises(BackendError, match="pip install cupy-cuda13x"):
        reader.open_device(CUDA)
    with pytest.raises(BackendError, match="not on cpu"):
        next(reader.device_batches(iter(epoch(0)), torch.device("cpu")))
    check_batch(Truth.make(), [5, 1], reader.__getitems__([5, 1]))


@pytest.mark.parametrize(
    ("mode", "also"), [("auto", []), ("gds", ["kvikio", "kvikio.cufile_driver", "kvikio.defaults"])]
)
def test_libraries_are_imported_before_a_store_is_opened_and_missing_ones_are_told_later(
    mode: Any, also: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def imported(name: str) -> None:
        asked.append(name)
        raise ImportError(name)

    monkeypatch.setattr(cupy_.importlib, "import_module", imported)
    CupyBackend(CupyOptions(mode=mode)).import_libraries()
    assert asked == ["cupy", "cupyx", *also]


# What is asked of CuPy and KvikIO


class CudaError(RuntimeError):
    pass


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A double of the parts of CuPy that are used; ``log`` has the calls in order."""
    log: list[Any] = []

    def called(name: str, result: Any = None) -> Any:
        def call(*given: Any) -> Any:
            log.append((name, *given))
            return result

        return call

    @contextmanager
    def entered(name: str, value: Any) -> Any:
        log.append((name, value))
        yield

    class PythonFunctionAllocator:
        def __init__(self, malloc: Any, free: Any) -> None:
            self.pointer_of, self.free = malloc, free

        def malloc(self, size: int) -> Any:
            return self.pointer_of(size, 0)

    runtime = SimpleNamespace(
        CUDARuntimeError=CudaError,
        cudaDevAttrHostRegisterReadOnlySupported=113,
        deviceGetAttribute=called("deviceGetAttribute", 1),
        deviceSynchronize=called("deviceSynchronize"),
        hostRegister=called("hostRegister"),
        hostUnregister=called("hostUnregister"),
        pointerGetAttributes=lambda address: SimpleNamespace(devicePointer=address + 0x1000),
    )
    cuda = SimpleNamespace(
        Device=lambda index: entered("Device", index),
        MemoryPointer=lambda memory, offset: (memory, offset),
        PythonFunctionAllocator=PythonFunctionAllocator,
        Stream=SimpleNamespace(from_external=lambda stream: entered("Stream", stream)),
        UnownedMemory=lambda *given: SimpleNamespace(given=given),
        get_current_stream=lambda: SimpleNamespace(ptr=77),
        runtime=runtime,
        set_allocator=called("set_allocator"),
    )

    class Kernel:
        def __init__(self, code: str, name: str) -> None:
            log.append(("RawKernel", name, code))

        def compile(self) -> None:
            log.append(("compile",))

        def __call__(self, *given: Any) -> None:
            log.append(("launch", *given))

    module = ModuleType("cupy")
    module.__dict__.update(
        cuda=cuda, RawKernel=Kernel, ndarray=lambda shape, dtype, memory: SimpleNamespace(shape=shape, memory=memory)
    )
    extra = ModuleType("cupyx")
    extra.__dict__.update(empty_pinned=np.empty)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupyx", extra)
    return SimpleNamespace(module=module, log=log, runtime=runtime)


def test_the_double_of_cupy_has_only_names_that_cupy_has(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    real = pytest.importorskip("cupy")
    cuda = cupy.module.cuda
    assert [name for name in vars(cupy.runtime) if not hasattr(real.cuda.runtime, name)] == []
    assert [name for name in vars(cuda) if not hasattr(real.cuda, name)] == []
    assert hasattr(real.cuda.Stream, "from_external")
    assert hasattr(real.cuda.MemoryPointer, "copy_from_host_async")
    assert hasattr(real.cuda.runtime.PointerAttributes, "devicePointer")
    assert real.cuda.runtime.cudaDevAttrHostRegisterReadOnlySupported == 113
    assert {"take", "empty", "ndarray", "RawKernel"} <= set(dir(real))
    assert hasattr(real.RawKernel, "compile")
    assert hasattr(importlib.import_module("cupyx"), "empty_pinned")


def test_cupy_allocates_from_torch_on_its_current_stream(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, freed = [], []
    monkeypatch.setattr(torch.cuda, "caching_allocator_alloc", lambda *given: asked.append(given) or 4096)
    monkeypatch.setattr(torch.cuda, "caching_allocator_delete", freed.append)
    CudaDevice(CUDA)
    ((_, malloc),) = (call for call in cupy.log if call[0] == "set_allocator")
    allocator = malloc.__self__
    assert allocator.malloc(100) == 4096
    allocator.free(4096, 0)
    assert (asked, freed) == ([(100, 0, 77)], [4096])


def test_a_cupy_that_is_too_old_says_so(cupy: Any) -> None:
    cupy.module.cuda.Stream, cupy.module.__version__ = SimpleNamespace(), "13.6.0"
    with pytest.raises(BackendError, match=r"CuPy 13\.6\.0 cannot use torch's streams: install CuPy 14\.2"):
        CudaDevice(CUDA)


def test_work_is_put_on_the_stream_of_the_device(cupy: Any) -> None:
    stream = object()
    with CudaDevice(CUDA).on(stream):
        assert cupy.log[-2:] == [("Device", 0), ("Stream", stream)]


@pytest.mark.parametrize(("supported", "flags"), [(1, 0x0A), (0, 0x02)])
def test_a_mapping_is_registered_read_only_and_given_back(cupy: Any, supported: int, flags: int) -> None:
    cupy.runtime.deviceGetAttribute = lambda attribute, device: supported
    mapping = np.zeros(8192, np.uint8)
    address = mapping.ctypes.data
    array = CudaDevice(CUDA).registered(mapping)
    assert ("hostRegister", address, 8192, flags) in cupy.log
    memory, offset = array.memory
    assert (array.shape, offset) == ((8192,), 0)
    assert (*memory.given[:2], memory.given[3]) == (address + 0x1000, 8192, 0)
    assert memory.given[2].mapping is mapping
    assert "hostUnregister" not in {call[0] for call in cupy.log}
    del array, memory
    assert cupy.log[-2:] == [("deviceSynchronize",), ("hostUnregister", address)]


def test_a_mapping_that_cuda_refuses_is_one_line(cupy: Any) -> None:
    def refuse(*given: Any) -> None:
        raise CudaError("cudaErrorInvalidValue: invalid argument")

    cupy.runtime.hostRegister = refuse
    with pytest.raises(BackendError, match=r"cannot be registered with cuda:0: cudaErrorInvalidValue.*mode=staged"):
        CudaDevice(CUDA).registered(np.zeros(64, np.uint8))
    assert "hostUnregister" not in {call[0] for call in cupy.log}


def test_the_kernel_is_built_once_and_told_sizes_in_words(cupy: Any) -> None:
    rows = SimpleNamespace(shape=(50, 3072), data=SimpleNamespace(ptr=0x7000_0080))
    device = CudaDevice(CUDA)
    device.build(rows)
    assert [call[0] for call in cupy.log[-2:]] == ["RawKernel", "compile"]
    for count in (64, 0, 1):
        device.gather(rows, "labels", range(count), "out", "labels out")
    built = [call for call in cupy.log if call[0] == "RawKernel"]
    assert [call[1:] for call in built] == [("gather_rows", gather_source(16))]
    launches = [call for call in cupy.log if call[0] == "launch"]
    given = (rows, "labels", range(64), "out", "labels out", 192, 64 * 192, 64)
    assert launches[0] == ("launch", (48,), (256,), given)
    assert [call[1] for call in launches] == [(48,), (1,)]
    assert all(isinstance(value, np.int64) for value in launches[0][3][5:])


def test_a_kernel_that_cannot_be_compiled_is_one_line(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("CuPy failed to load libnvrtc.so.13: not found.\n\nmore of that")

    monkeypatch.setattr(cupy.module.RawKernel, "compile", refuse)
    rows = SimpleNamespace(shape=(50, 3072), data=SimpleNamespace(ptr=0x7000_0080))
    with pytest.raises(
        BackendError, match=r"^CuPy cannot compile .* libnvrtc\.so\.13: not found\. If .*pip install .*\[ctk\]"
    ):
        CudaDevice(CUDA).build(rows)


SERIAL = """
#define __global__
struct Place { int x; };
static Place gridDim = {2}, blockDim = {3}, blockIdx, threadIdx;
struct uint4 { unsigned int x, y, z, w; };
"""
SERIALLY = """
extern "C" void run_SIZE(const void* rows, const long long* labels, const long long* indices, void* out,
                         long long* labels_out, long long per_row, long long words, long long count) {
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
            gather_rows((const WORD*)rows, labels, indices, (WORD*)out, labels_out, per_row, words, count);
}
"""


def test_the_kernel_gathers_rows_when_a_cpu_runs_it(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or pytest.skip("needs a C++ compiler")
    source, library = tmp_path / "gather.cpp", tmp_path / "gather.so"
    # All in one library: a loader that knows libraries by inode takes a later one for an earlier one that is deleted.
    parts = [
        f"#define gather_rows gather_rows_{word}\n{gather_source(word)}"
        f"{SERIALLY.replace('WORD', name).replace('SIZE', str(word))}#undef gather_rows\n"
        for word, name in cupy_device._WORDS.items()
    ]
    source.write_text(SERIAL + "".join(parts))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    loaded = ctypes.CDLL(str(library))
    labels, indices = np.arange(100, 109), np.array([8, 0, 3, 3, 7])
    for word in cupy_device._WORDS:
        rows = np.random.default_rng(0).integers(0, 256, (9, 3 * word), dtype=np.uint8)
        out, labels_out = np.zeros((5, 3 * word), np.uint8), np.zeros(5, np.int64)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (rows, labels, indices, out, labels_out)]
        loaded[f"run_{word}"](*pointers, *(ctypes.c_longlong(value) for value in (3, 15, 5)))
        np.testing.assert_array_equal(out, rows[indices])
        np.testing.assert_array_equal(labels_out, labels[indices])


@pytest.mark.parametrize(
    ("compatible", "available", "row_bytes", "path"),
    [
        (True, True, 1 << 20, "compatibility mode"),
        (False, True, 3072, "bypass GPUDirect Storage"),
        (False, False, 1 << 20, "cuFile without"),
        (False, True, 1 << 20, "GPUDirect Storage"),
    ],
)
def test_facts_tell_which_way_kvikio_reads(
    compatible: bool, available: bool, row_bytes: int, path: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"gds_threshold": 16384, "num_threads": 4}
    fake = ModuleType("kvikio")
    defaults, driver = ModuleType("kvikio.defaults"), ModuleType("kvikio.cufile_driver")
    defaults.__dict__.update(is_compat_mode_preferred=lambda: compatible, get=settings.__getitem__)
    driver.__dict__.update(get={"is_gds_available": available}.__getitem__)
    fake.__dict__.update(
        CuFile=lambda path, flags: SimpleNamespace(pread=(path, flags)), defaults=defaults, cufile_driver=driver
    )
    for module in (fake, defaults, driver):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    reads = cupy_sources.open_by_kvikio(store / "x.npy", row_bytes)
    assert reads.pread == (store / "x.npy", "r")
    assert path in reads.facts["path"]
    assert (reads.facts["gds_available"], reads.facts["threads"]) == (available and not compatible, 4)


def test_without_kvikio_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kvikio", None)
    with pytest.raises(BackendError, match="pip install kvikio-cu13"):
        cupy_sources.open_by_kvikio(Path("x.npy"), 64)
