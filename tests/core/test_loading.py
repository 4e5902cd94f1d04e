"""The same batches in the same order, whatever loads them."""

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from array_readers import ArrayReader, FailingReader, X, Y
from torch.utils.data import DataLoader

from bench import loading
from bench.contracts.backend import BackendError
from bench.contracts.reader import NaiveReader, Reader
from bench.loading import makers, order
from bench.loading.processes import WorkerDiedError
from bench.loading.sampler import IndexBatches
from bench.loading.shared import PageLockError, SharedRing
from bench.specs.spec import RunSpec


def spec(**fields) -> RunSpec:
    return RunSpec(backend="toy", dataset="toys", **{"batch_size": 32, **fields})


KINDS = [
    {},
    {"workers": 1, "worker_kind": "thread"},
    {"workers": 3, "worker_kind": "thread"},
    {"workers": 2, "start_method": "fork"},
    {"workers": 1, "start_method": "spawn"},
    {"workers": 1, "start_method": "forkserver"},
]
QUICK = KINDS[:4]
"""Those whose workers need not import torch anew, for tests of what workers do, however they were started."""


def test_a_full_shuffle_is_a_permutation_of_its_own_per_epoch_and_seed() -> None:
    orders = [np.concatenate(order.batch_indices(spec(seed=seed), 300, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    for found in orders:
        assert sorted(found) == list(range(300))
    assert len({found.tobytes() for found in orders}) == 4
    again = np.concatenate(order.batch_indices(spec(seed=1), 300, 1))
    assert np.array_equal(again, orders[3])


def test_the_order_is_numpys_seeded_permutation() -> None:
    batches = order.batch_indices(spec(seed=5), 300, 2)
    assert np.array_equal(np.concatenate(batches), np.random.default_rng([5, 2]).permutation(300))
    assert [len(batch) for batch in batches] == [32] * 9 + [12]


def test_no_shuffle_is_the_stored_order() -> None:
    assert np.array_equal(np.concatenate(order.batch_indices(spec(shuffle="none"), 300, 4)), np.arange(300))


BLOCK = {"shuffle": "block", "block_samples": 16, "buffer_blocks": 2}


@pytest.mark.parametrize("kind", [*KINDS, *(kind | BLOCK for kind in QUICK)], ids=str)
def test_every_loader_delivers_the_planned_batches_epoch_after_epoch(kind: dict) -> None:
    loader = loading.make_loader(ArrayReader(), spec(**kind))
    try:
        for epoch in range(2):
            plan = order.batch_indices(spec(**kind), 300, epoch)
            delivered = [(x.clone(), y.clone()) for x, y in loader.epoch(epoch)]
            assert len(delivered) == len(plan)
            for indices, (x, y) in zip(plan, delivered, strict=True):
                assert x.dtype == torch.uint8
                assert np.array_equal(x.numpy(), X[indices])
                assert np.array_equal(y.numpy(), Y[indices])
    finally:
        loader.close()


class TracingReader(ArrayReader):
    """Leaves a line for each batch that some process reads."""

    def __init__(self, trace: Path) -> None:
        super().__init__()
        self.trace = trace

    def read_into(self, indices, x, y) -> None:
        with self.trace.open("a") as file:
            file.write(f"{os.getpid()} {threading.get_ident()}\n")
        super().read_into(indices, x, y)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_starting_brings_up_all_workers_and_reads_nothing(kind: dict, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    loader = loading.make_loader(TracingReader(trace), spec(**kind))
    before = {*psutil.Process().children(recursive=True)}
    threads = threading.active_count()
    try:
        loader.start()
        workers = {*psutil.Process().children(recursive=True)} - before
        if kind.get("worker_kind") == "thread":
            assert threading.active_count() == threads + kind["workers"]
        elif kind:
            assert len(workers) >= kind["workers"]
        assert not trace.exists()
        assert len(list(loader.epoch(0))) == 10
        assert len(trace.read_text().splitlines()) == 10
        if "start_method" in kind:
            assert {int(line.split()[0]) for line in trace.read_text().splitlines()} <= {p.pid for p in workers}
    finally:
        loader.close()


@pytest.mark.parametrize("kind", QUICK, ids=str)
def test_part_of_an_epoch_reads_no_more_than_that(kind: dict, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    loader = loading.make_loader(TracingReader(trace), spec(**kind))
    try:
        delivered = [(x.clone(), y.clone()) for x, y in loader.epoch(1, batches=3)]
        plan = order.batch_indices(spec(**kind), 300, 1)[:3]
        assert [y.tolist() for _, y in delivered] == [Y[indices].tolist() for indices in plan]
        assert len(trace.read_text().splitlines()) == 3
    finally:
        loader.close()


@pytest.mark.parametrize("kind", QUICK, ids=str)
def test_an_error_arrives_at_its_batch_with_its_own_text(kind: dict) -> None:
    loader = loading.make_loader(FailingReader(), spec(shuffle="none", **kind))
    batches = loader.epoch(0)
    try:
        for _ in range(7):
            next(batches)
        with pytest.raises(BackendError, match=r"^sample 250 cannot be read\.$"):
            next(batches)
    finally:
        loader.close()


class MakingReader(TracingReader):
    """Makes batches of its own, as readers that read one sample at a time do."""

    def __getitems__(self, indices):
        with self.trace.open("a") as file:
            file.write("made\n")
        return torch.from_numpy(X[indices]), torch.from_numpy(Y[indices])


@pytest.mark.parametrize("prefetch", [{}, {"prefetch": 1}, {"prefetch": 3}], ids=str)
@pytest.mark.parametrize("reader", [TracingReader, MakingReader])
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_workers_read_as_far_ahead_as_they_are_told_and_no_further(
    kind: str, reader: type[TracingReader], prefetch: dict, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    loader = loading.make_loader(reader(trace), spec(workers=2, worker_kind=kind, **prefetch))
    batches = loader.epoch(0)
    next(batches)
    next(batches)
    # The consumer's own batch is read as well as those ahead of it; where workers fill buffers, it holds one meanwhile.
    most = 2 + 2 * prefetch.get("prefetch", loading.PREFETCH_BATCHES)
    if reader is MakingReader and kind == "thread":
        most -= 1
    deadline = time.monotonic() + 30
    while len(trace.read_text().splitlines()) < most:
        assert time.monotonic() < deadline, "the workers do not read ahead"
        time.sleep(0.01)
    time.sleep(0.2)  # enough for a read that should not be
    batches.close()
    loader.close()
    assert len(trace.read_text().splitlines()) == most


def test_closing_ends_worker_processes() -> None:
    before = set(psutil.Process().children(recursive=True))
    loader = loading.make_loader(ArrayReader(), spec(workers=2))
    batches = loader.epoch(0)
    next(batches)
    workers = set(psutil.Process().children(recursive=True)) - before
    assert len(workers) >= 2
    batches.close()
    loader.close()
    assert not [p for p in workers if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


WORKERS = [kind for kind in QUICK if kind]


@pytest.mark.parametrize("kind", WORKERS, ids=str)
def test_an_epoch_that_is_left_early_does_not_spoil_the_next(kind: dict) -> None:
    loader = loading.make_loader(ArrayReader(), spec(**kind))
    try:
        for epoch in range(4):
            left = loader.epoch(epoch)
            next(left)
            left.close()
            plan = order.batch_indices(spec(**kind), 300, epoch)
            for indices, (x, y) in zip(plan, loader.epoch(epoch), strict=True):
                assert np.array_equal(x.numpy(), X[indices])
                assert np.array_equal(y.numpy(), Y[indices])
    finally:
        loader.close()


class GatheringReader(ArrayReader):
    gathers = True

    def __init__(self, trace: Path) -> None:
        super().__init__()
        self.trace = trace

    def read_into(self, indices, x, y) -> None:
        with self.trace.open("a") as file:
            file.write(f"{len(indices)}\n")
        super().read_into(indices, x, y)


@pytest.mark.parametrize("kind", QUICK, ids=str)
def test_workers_take_several_cheap_batches_at_a_time_and_deliver_each(kind: dict, tmp_path: Path) -> None:
    loader = loading.make_loader(GatheringReader(tmp_path / "trace"), spec(**kind))
    try:
        plan = order.batch_indices(spec(**kind), 300, 0)
        for indices, (x, y) in zip(plan, loader.epoch(0), strict=True):
            assert np.array_equal(x.numpy(), X[indices])
            assert np.array_equal(y.numpy(), Y[indices])
    finally:
        loader.close()
    calls = sorted(map(int, (tmp_path / "trace").read_text().split()))
    assert calls == ([44, 256] if kind else [12] + 9 * [32])


class BeginningReader(ArrayReader):
    """Learns the order before it is asked for a sample, and fails where it is not the one that is asked for."""

    def begin(self, order) -> None:
        self.coming = order.tolist()

    def read_into(self, indices, x, y) -> None:
        if not set(indices.tolist()) <= set(self.coming):
            raise BackendError("not what was announced.")
        super().read_into(indices, x, y)


@pytest.mark.parametrize("kind", QUICK, ids=str)
def test_readers_are_told_the_order_of_each_epoch(kind: dict) -> None:
    loader = loading.make_loader(BeginningReader(), spec(**kind))
    try:
        for epoch, batches in ((0, 3), (1, None), (2, 2)):
            delivered = sum(len(y) for _, y in loader.epoch(epoch, batches))
            assert delivered == (300 if batches is None else 32 * batches)
    finally:
        loader.close()


class OpeningReader(ArrayReader):
    """Counts how often it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    def make_ready(self) -> None:
        self.opened += 1


@pytest.mark.parametrize("kind", KINDS[:3], ids=str)
def test_no_epoch_pays_for_opening(kind: dict) -> None:
    reader = OpeningReader()
    loader = loading.make_loader(reader, spec(**kind))
    try:
        loader.start()
        for epoch in range(3):
            assert sum(len(y) for _, y in loader.epoch(epoch)) == 300
    finally:
        loader.close()
    assert reader.opened == 1


class StumblingReader(ArrayReader):
    def begin(self, order) -> None:
        raise BackendError("the store is gone.")


@pytest.mark.parametrize("kind", QUICK, ids=str)
def test_an_error_at_the_beginning_of_an_epoch_is_told(kind: dict) -> None:
    loader = loading.make_loader(StumblingReader(), spec(**kind))
    try:
        with pytest.raises(BackendError, match=r"^the store is gone\.$"):
            next(loader.epoch(0))
    finally:
        loader.close()


class OneByOne(NaiveReader):
    """Knows of an epoch before it is asked for a sample, and of how it was opened."""

    def __init__(self) -> None:
        super().__init__(len(Y), X.shape[1:], X.dtype)
        self.ready, self.coming = False, []

    def make_ready(self) -> None:
        self.ready = True

    def begin(self, order) -> None:
        self.coming = order.tolist()

    def read_one(self, index: int):
        if not self.ready:
            raise BackendError("it was not made ready.")
        if index not in self.coming:
            raise BackendError("not what was announced.")
        return X[index].copy(), int(Y[index])


@pytest.mark.parametrize("kind", QUICK, ids=str)
def test_readers_that_make_batches_of_their_own_are_told_the_order_too(kind: dict) -> None:
    loader = loading.make_loader(OneByOne(), spec(**kind))
    loader.start()
    try:
        for epoch, batches in ((0, 3), (1, None), (2, 2)):
            plan = order.batch_indices(spec(**kind), 300, epoch, batches)
            for indices, (x, y) in zip(plan, loader.epoch(epoch, batches), strict=True):
                assert np.array_equal(x.numpy(), X[indices])
                assert np.array_equal(y.numpy(), Y[indices])
    finally:
        loader.close()


class Unopenable(ArrayReader):
    def make_ready(self) -> None:
        raise BackendError("the store is gone.")


class UnopenableOneByOne(OneByOne):
    def make_ready(self) -> None:
        raise BackendError("the store is gone.")


@pytest.mark.parametrize("reader", [Unopenable, UnopenableOneByOne])
def test_worker_processes_open_the_store_when_they_start(reader: type[Reader]) -> None:
    loader = loading.make_loader(reader(), spec(workers=2))
    try:
        with pytest.raises(BackendError, match=r"^the store is gone\.$"):
            loader.start()
    finally:
        loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_made_by_readers_are_page_locked_where_that_is_asked_for(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: locked.append(tensor.dtype) or tensor)
    kind = spec(workers=workers, worker_kind="thread")
    plan = order.Order(kind, 300)
    maker = (
        makers.ThreadMaker(OneByOne(), kind, plan, pin=True)
        if workers
        else makers.InlineMaker(OneByOne(), plan, pin=True)
    )
    maker.start()
    try:
        delivered = list(maker.epoch(0, 2))
    finally:
        maker.close()
    assert sorted(map(str, locked)) == sorted(str(x.dtype) for batch in delivered for x in batch)


def test_an_epoch_may_end_after_its_loader(recwarn: pytest.WarningsRecorder) -> None:
    loader = loading.make_loader(ArrayReader(), spec(workers=2))
    batches = loader.epoch(0)
    next(batches)
    loader.close()
    batches.close()
    assert not [str(warning.message) for warning in recwarn]


def test_closing_the_ring_raises_nothing_after_an_error_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda *_: 710)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: device)
    ring = SharedRing(ArrayReader(), 2, 32, 32, pin=True)
    ring.close()
    ring.close()


def test_memory_that_cuda_refuses_to_lock_is_one_line_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(cudaHostRegister=lambda *_: 801, cudaHostUnregister=lambda *_: pytest.fail("not locked"))
    monkeypatch.setattr(torch.cuda, "cudart", lambda: device)
    descriptors = Path("/proc/self/fd")
    opened = len(list(descriptors.iterdir()))
    with pytest.raises(PageLockError, match=r"bytes .* \(cudaHostRegister: error 801\)\. Use --worker-kind thread"):
        SharedRing(ArrayReader(), 2, 32, 32, pin=True)
    assert len(list(descriptors.iterdir())) == opened


class ExitingReader(ArrayReader):
    def read_into(self, indices, x, y) -> None:
        os._exit(7)


def test_a_worker_that_ends_is_told_with_how() -> None:
    loader = loading.make_loader(ExitingReader(), spec(workers=2))
    try:
        with pytest.raises(WorkerDiedError, match=r"^A loader worker \(process \d+\) ended with exit code 7\.$"):
            next(loader.epoch(0))
    finally:
        loader.close()


def test_buffers_are_used_again_and_again() -> None:
    for kind in KINDS[:4]:
        loader = loading.make_loader(ArrayReader(), spec(**kind))
        try:
            places = {x.data_ptr() for epoch in range(4) for x, _ in loader.epoch(epoch)}
        finally:
            loader.close()
        assert len(places) <= kind.get("workers", 0) * loading.PREFETCH_BATCHES + 1


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_loader_delivers_the_same_batches_from_index_tensors(workers: int) -> None:
    sampler = IndexBatches(300, 32, seed=4)
    theirs = DataLoader(ArrayReader(), batch_size=None, sampler=sampler, num_workers=workers)
    assert len(theirs) == 10
    for epoch in (0, 1, 5):
        if epoch == 5:
            sampler.set_epoch(5)
        plan = order.batch_indices(spec(seed=4), 300, epoch)
        for indices, (x, y) in zip(plan, theirs, strict=True):
            assert np.array_equal(x.numpy(), X[indices])
            assert np.array_equal(y.numpy(), Y[indices])
    in_order = [indices.tolist() for indices in IndexBatches(5, 2, shuffle=False)]
    assert in_order == [[0, 1], [2, 3], [4]]
