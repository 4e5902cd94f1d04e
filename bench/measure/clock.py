"""Where an epoch's time goes: waiting for data, copying it to the device, changing it at random, computing.

These are laid end to end, so they add up to the epoch. On the CPU they are read off
the monotonic clock. On CUDA the host only launches work, so events on the stream mark the
phases and nothing is synchronised inside the epoch: what counts as waiting is the time in
which the GPU had nothing to do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of one epoch; ``batch_wait_s`` has one per batch, ``augment_s`` is None where nothing is augmented."""

    epoch_s: float
    first_batch_s: float
    wait_s: float
    copy_s: float
    compute_s: float
    batch_wait_s: list[float]
    augment_s: float | None = None


class PhaseClock(Protocol):
    """Called at the seams of the training loop, in the order of its methods."""

    def start(self) -> None:
        """The epoch begins; the loader has not been asked for anything yet."""

    def waited(self) -> None:
        """A batch has arrived."""

    def copied(self) -> None:
        """The batch is on the device, or on its way."""

    def augmented(self) -> None:
        """The batch has been changed at random, or that is launched; left out in epochs that change none."""

    def computed(self) -> None:
        """The step is done, or launched."""

    def stop(self) -> Phases:
        """The loader has no more batches; wait for the device and sum up."""


def make_clock(device: torch.device) -> PhaseClock:
    """Return the clock for a device."""
    return CudaClock() if device.type == "cuda" else HostClock()


@dataclass(slots=True)
class HostClock:
    """Phases by the monotonic clock, for synchronous devices."""

    _started: int = 0
    _last: int = 0
    _waits: list[int] = field(default_factory=list)
    _copy: int = 0
    _compute: int = 0
    _augment: int | None = None

    def start(self) -> None:
        """See PhaseClock."""
        self._waits, self._copy, self._compute, self._augment = [], 0, 0, None
        self._started = self._last = time.perf_counter_ns()

    def waited(self) -> None:
        """See PhaseClock."""
        now = time.perf_counter_ns()
        self._waits.append(now - self._last)
        self._last = now

    def copied(self) -> None:
        """See PhaseClock."""
        now = time.perf_counter_ns()
        self._copy += now - self._last
        self._last = now

    def augmented(self) -> None:
        """See PhaseClock."""
        now = time.perf_counter_ns()
        self._augment = (self._augment or 0) + now - self._last
        self._last = now

    def computed(self) -> None:
        """See PhaseClock."""
        now = time.perf_counter_ns()
        self._compute += now - self._last
        self._last = now

    def stop(self) -> Phases:
        """See PhaseClock."""
        end = time.perf_counter_ns()
        waits = [wait / 1e9 for wait in self._waits]
        return Phases(
            epoch_s=(end - self._started) / 1e9,
            first_batch_s=waits[0] if waits else 0.0,
            # The loader's way of saying that it is empty is waiting, too.
            wait_s=sum(waits) + (end - self._last) / 1e9,
            copy_s=self._copy / 1e9,
            compute_s=self._compute / 1e9,
            batch_wait_s=waits,
            augment_s=None if self._augment is None else self._augment / 1e9,
        )


class CudaClock:
    """Phases by CUDA events on the current stream; needs a GPU."""

    def start(self) -> None:
        """See PhaseClock."""
        torch.cuda.synchronize()
        self._events: list[Any] = []
        self._started = time.perf_counter_ns()
        self._first_batch_s: float | None = None
        self._augments = False
        self._mark()

    def _mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch annotates no argument
        event.record()
        self._events.append(event)

    def waited(self) -> None:
        """See PhaseClock."""
        if self._first_batch_s is None:
            self._first_batch_s = (time.perf_counter_ns() - self._started) / 1e9
        self._mark()

    def copied(self) -> None:
        """See PhaseClock."""
        self._mark()

    def augmented(self) -> None:
        """See PhaseClock."""
        self._augments = True
        self._mark()

    def computed(self) -> None:
        """See PhaseClock."""
        self._mark()

    def stop(self) -> Phases:
        """See PhaseClock."""
        self._mark()
        torch.cuda.synchronize()
        epoch_s = (time.perf_counter_ns() - self._started) / 1e9
        gaps = [a.elapsed_time(b) / 1e3 for a, b in zip(self._events, self._events[1:], strict=False)]
        marks = 4 if self._augments else 3  # of each batch
        waits = gaps[0:-1:marks]
        return Phases(
            epoch_s=epoch_s,
            first_batch_s=self._first_batch_s or 0.0,
            wait_s=sum(waits) + gaps[-1],
            copy_s=sum(gaps[1::marks]),
            compute_s=sum(gaps[marks - 1 :: marks]),
            batch_wait_s=waits,
            augment_s=sum(gaps[2::marks]) if self._augments else None,
        )
