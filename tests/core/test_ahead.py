"""Batches that threads read ahead, through torch's own DataLoader."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from array_readers import ArrayReader, FailingReader, X, Y
from torch.utils.data import DataLoader

from bench.contracts.backend import BackendError
from bench.contracts.reader import NaiveReader
from bench.loading.ahead import ReadAhead, WorkerProcessError
from bench.loading.sampler import IndexBatches


class NotingReader(ArrayReader):
    """Notes what it was asked for, and of what it heard before."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[np.ndarray] = []
        self.read: list[int] = []

    def begin(self, order) -> None:
        self.begun.append(order)

    def read_into(self, indices, x, y) -> None:
        self.read.append(int(indices[0]))
        super().read_into(indices, x, y)


class GatheringReader(NotingReader):
    """One of which threads read several batches at once."""

    gathers = True


class OneByOne(NaiveReader):
    def __init__(self) -> None:
        super().__init__(len(Y), X.shape[1:], X.dtype)

    def read_one(self, index):
        return X[index].copy(), int(Y[index])


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader-")]


@pytest.mark.parametrize("reader", [ArrayReader, GatheringReader, OneByOne])
@pytest.mark.parametrize("ahead", [{}, {"threads": 1, "prefetch": 1}, {"threads": 5, "prefetch": 9}], ids=str)
def test_it_delivers_what_the_reader_does_epoch_after_epoch(reader: type, ahead: dict) -> None:
    batches = IndexBatches(300, 32, seed=4)
    loader = DataLoader(ReadAhead(reader(), batches, **ahead), batch_size=None)
    assert len(loader) == 10
    seen = []
    for epoch in range(2):
        # The order that the documentation of IndexBatches promises.
        order = np.random.default_rng([4, epoch]).permutation(300)
        # All at once: each batch is the consumer's own.
        delivered = list(loader)
        assert [len(y) for _, y in delivered] == [32] * 9 + [12]
        assert np.array_equal(torch.cat([x for x, _ in delivered]).numpy(), X[order])
        assert np.array_equal(torch.cat([y for _, y in delivered]).numpy(), Y[order])
        seen.append(order.tobytes())
    assert seen[0] != seen[1]
    assert loader_threads() == []


def test_small_batches_are_read_several_at_once_into_memory_that_is_used_again() -> None:
    reader = GatheringReader()
    loader = DataLoader(ReadAhead(reader, IndexBatches(300, 10, shuffle=False), threads=1), batch_size=None)
    places = set()
    for _ in range(20):
        for x, _ in loader:
            places.add(x.data_ptr())
    # 300 samples are 30 batches, in four tasks of up to eight.
    assert sorted(reader.read) == sorted([0, 80, 160, 240] * 20)
    # Three tasks ahead and two with the consumer, each of eight batches, however many epochs.
    assert len(places) <= (3 + 2) * 8


def test_what_is_kept_stays_as_it_was_while_others_are_read() -> None:
    loader = DataLoader(ReadAhead(GatheringReader(), IndexBatches(300, 10, shuffle=False)), batch_size=None)
    kept = [batch for number, batch in enumerate(loader) if number % 8 == 3]
    for _ in range(5):
        assert sum(len(y) for _, y in loader) == 300
    for number, (x, y) in enumerate(kept):
        first = 80 * number + 30
        assert np.array_equal(x.numpy(), X[first : first + 10])
        assert np.array_equal(y.numpy(), Y[first : first + 10])


def test_batches_can_be_lists_of_numbers_as_torchs_own_samplers_make_them() -> None:
    sampler = torch.utils.data.BatchSampler(range(10), 4, drop_last=False)
    delivered = list(DataLoader(ReadAhead(ArrayReader(), sampler), batch_size=None))
    assert [y.tolist() for _, y in delivered] == [Y[:4].tolist(), Y[4:8].tolist(), Y[8:10].tolist()]


def test_the_reader_hears_of_each_epoch_and_its_order() -> None:
    reader = NotingReader()
    loader = DataLoader(ReadAhead(reader, IndexBatches(300, 32)), batch_size=None)
    for epoch in range(2):
        assert len(list(loader)) == 10
        assert np.array_equal(reader.begun[epoch], np.random.default_rng([0, epoch]).permutation(300))
    assert len(reader.begun) == 2


def test_an_order_of_nothing_delivers_nothing() -> None:
    assert list(DataLoader(ReadAhead(ArrayReader(), IndexBatches(0, 32)), batch_size=None)) == []


def test_it_reads_ahead_and_no_further_than_it_was_told() -> None:
    reader = NotingReader()
    batches = IndexBatches(300, 10, shuffle=False)
    coming = iter(DataLoader(ReadAhead(reader, batches, threads=2, prefetch=3), batch_size=None))
    next(coming)
    # Six ahead of the one that is being used.
    until = time.monotonic() + 10
    while len(reader.read) < 7 and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.1)
    assert sorted(reader.read) == [0, 10, 20, 30, 40, 50, 60]


def test_an_error_comes_at_its_batch_and_the_threads_end() -> None:
    loader = DataLoader(ReadAhead(FailingReader(), IndexBatches(300, 100, shuffle=False)), batch_size=None)
    coming = iter(loader)
    assert [len(next(coming)[1]) for _ in range(2)] == [100, 100]
    with pytest.raises(BackendError, match="sample 250 cannot be read"):
        next(coming)
    assert loader_threads() == []


def test_threads_end_where_an_epoch_is_left_early() -> None:
    for _ in DataLoader(ReadAhead(ArrayReader(), IndexBatches(300, 10), threads=3), batch_size=None):
        assert len(loader_threads()) == 3
        break
    gc.collect()
    assert loader_threads() == []


def test_a_batch_that_the_consumer_lets_go_of_is_held_by_nobody() -> None:
    held: list[weakref.ref] = []
    gone: list[bool] = []

    class Waiting(ArrayReader):
        def read_into(self, indices, x, y) -> None:
            if indices[0] == 10:
                # Read while the first batch is with the consumer, who then asks for this one.
                until = time.monotonic() + 5
                while not (held and held[0]() is None) and time.monotonic() < until:
                    time.sleep(0.005)
                gone.append(held[0]() is None)
            super().read_into(indices, x, y)

    batches = IndexBatches(300, 10, shuffle=False)
    coming = iter(DataLoader(ReadAhead(Waiting(), batches, threads=1, prefetch=1), batch_size=None))
    first = next(coming)
    held.append(weakref.ref(first[0]))
    del first
    next(coming)
    assert gone == [True]


def test_worker_processes_are_refused_as_each_would_deliver_everything() -> None:
    loader = DataLoader(ReadAhead(ArrayReader(), IndexBatches(300, 100)), batch_size=None, num_workers=1)
    with pytest.raises(WorkerProcessError, match="num_workers=0"):
        next(iter(loader))


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"prefetch": 0}], ids=str)
def test_nothing_to_read_by_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be 1 at least"):
        ReadAhead(ArrayReader(), IndexBatches(300, 100), **wrong)
