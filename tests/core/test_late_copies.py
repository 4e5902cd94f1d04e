"""Buffers that a device copies from long after it was told to, on a simulated one.

Here work of the device is done as late as can be: when somebody waits for it. What a loader fills again too early shows
as wrong bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_plugins

from bench import loading
from bench.contracts.reader import Indices, Reader
from bench.loading import order
from bench.loading.batches import Slot
from bench.specs.spec import RunSpec

X, Y = toy_plugins.toy_arrays()
CUDA = torch.device("cuda", 0)


class ArrayReader(Reader):
    def __init__(self, *, gathers: bool) -> None:
        super().__init__(len(Y), X.shape[1:], X.dtype)
        self.gathers = gathers

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        x.numpy()[:], y.numpy()[:] = X[indices], Y[indices]


class LateDevice:
    """Work in order, and the events that mark places in it."""

    def __init__(self) -> None:
        self._work: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self.users: set[tuple[int, int]] = set()
        """Threads that have named their device, and its number."""

    def put(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._work.append(work)

    def work_until(self, done: Callable[[], bool]) -> None:
        with self._lock:
            while not done() and self._work:
                self._work.popleft()()

    def event(self, **_: Any) -> Any:
        marks: list[list[bool]] = [[True]]

        def record() -> None:
            mark = [False]
            marks.append(mark)
            self.put(lambda: mark.__setitem__(0, True))

        return SimpleNamespace(record=record, synchronize=lambda: self.work_until(lambda: marks[-1][0]))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[LateDevice]:
    late = LateDevice()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", late.event)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: late.users.add((threading.get_ident(), number)))
    locked = SimpleNamespace(cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda *_: 0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: locked)
    allocated = Slot.allocated
    monkeypatch.setattr(Slot, "allocated", lambda *given, pin: allocated(*given, pin=False))
    return late


@pytest.mark.parametrize("gathers", [True, False], ids=["several at once", "one by one"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"workers": 1, "worker_kind": "thread"}, {"workers": 3, "worker_kind": "thread"}, {"workers": 2}],
    ids=["inline", "thread", "threads", "processes"],
)
def test_no_buffer_is_filled_again_while_the_device_has_still_to_copy_from_it(
    fields: dict[str, Any], gathers: bool, device: LateDevice
) -> None:
    spec = RunSpec(backend="memory", dataset="toys", batch_size=4, seed=1, **fields)
    loader = loading.make_loader(ArrayReader(gathers=gathers), spec, CUDA)
    copied: list[tuple[np.ndarray, np.ndarray]] = []

    def copy(x: torch.Tensor, y: torch.Tensor) -> None:
        copied.append((x.numpy().copy(), y.numpy().copy()))

    loader.start()
    try:
        for epoch in range(2):
            for x, y in loader.epoch(epoch):
                device.put(lambda x=x, y=y: copy(x, y))
        device.work_until(lambda: False)
    finally:
        loader.close()
    wanted = [indices for epoch in range(2) for indices in order.batch_indices(spec, len(Y), epoch)]
    assert len(copied) == len(wanted)
    for indices, (x, y) in zip(wanted, copied, strict=True):
        np.testing.assert_array_equal(x, X[indices])
        np.testing.assert_array_equal(y, Y[indices])


def test_threads_work_on_the_device_of_the_one_that_started_them(device: LateDevice) -> None:
    spec = RunSpec(backend="memory", dataset="toys", batch_size=4, workers=3, worker_kind="thread")
    loader = loading.make_loader(ArrayReader(gathers=True), spec, CUDA)
    loader.start()
    threads = {thread.ident for thread in threading.enumerate() if thread.name.startswith("loader-")}
    loader.close()
    assert len(threads) == 3
    assert device.users == {(thread, 1) for thread in threads}
