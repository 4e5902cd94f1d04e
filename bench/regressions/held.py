"""What is held from one day to another, and how: times by ratio, deterministic counters exactly. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.records.metrics import METRICS, Metric
from bench.records.record import RunRecord
from bench.specs.spec import NO_MODEL
from bench.stats import Summary, summarise

Kind = Literal["time", "fastest", "amount", "counter"]
"""``time``: in units of the machine's speed, ``fastest`` in those of its undisturbed speed. ``amount``: by ratio as it
is. ``counter``: exactly, where equal runs agree."""

TIMES: tuple[Kind, ...] = ("time", "fastest")

OWN_READS_MB = 0.004096
"""What the harness itself reads of procfs differs by some bytes between equal runs; 4 KiB are no read of a store."""

LEAST_CPU_S = 0.1
"""Of CPU time per epoch: ten ticks of most kernels, one of which is then 10 %, and less in the median of epochs."""

MEMORY_EFFECT = 0.05
"""Equal runs of one series differed by up to 4 % either way from their median in the peak of their own memory (96
recorded runs of 6 cells), by when the sampler looked and what the allocator kept."""


@dataclass(frozen=True, slots=True)
class Held:
    """A metric and how it is held; ``why_not`` says why a run has nothing to hold there, None where it has.

    ``slack`` is by how much a counter may differ and still count as equal, and what counts as hardly more than zero, in
    the metric's unit.
    """

    metric: Metric
    kind: Kind
    why_not: Callable[[RunRecord], str | None] = lambda record: None  # noqa: ARG005  # nothing speaks against it
    slack: float = 0.0


def _wait_s(record: RunRecord) -> Summary | None:
    return summarise([epoch.wait_s for epoch in record.measured()])


def _fastest_s(record: RunRecord) -> Summary | None:
    return summarise(sorted(epoch.epoch_s for epoch in record.measured())[:1])


def _own_mb(record: RunRecord) -> Summary | None:
    anonymous, shared = record.memory.anon_bytes, record.memory.shmem_bytes
    return None if anonymous is None or shared is None else summarise([(anonymous + shared) / 1e6])


def _store_mb(record: RunRecord) -> Summary | None:
    return summarise([record.store.size_bytes / 1e6]) if record.store else None


def _nothing_but_waiting(record: RunRecord) -> str | None:
    return "loading alone is nothing but waiting" if record.spec.model == NO_MODEL else None


def _too_short(record: RunRecord) -> str | None:
    cpu = METRICS["cpu_s"].of(record)
    return "the system counts CPU time in steps too coarse for it" if cpu and cpu.median < LEAST_CPU_S else None


def _not_cold(record: RunRecord) -> str | None:
    if record.cache.asked == "cold" and record.cache.achieved == "verified":
        return None
    return "the cache was not proved cold, so it depends on what was in memory (use --cache cold)"


HELD: tuple[Held, ...] = (
    Held(METRICS["epoch_s"], "time"),
    # What disturbs a run on a shared machine only ever adds to its epochs, so the fastest one varies least from run to
    # run (Chen and Revels 2016, "Robust benchmarking in noisy environments"). It misses what slows only some epochs.
    Held(Metric("fastest_s", "fastest epoch", "s", "lower", _fastest_s), "fastest"),
    # Waiting for a processor that others use is no part of it: on a busy machine it tells most.
    Held(METRICS["cpu_s"], "fastest", _too_short),
    Held(Metric("wait_s", "waiting for data (stall)", "s per epoch", "lower", _wait_s), "time", _nothing_but_waiting),
    # Not PSS: of mapped libraries it counts a share, which changes with what else runs on the machine.
    Held(Metric("own_mb", "peak RAM without mapped files", "MB", "lower", _own_mb), "amount"),
    Held(METRICS["storage_read_mb"], "amount", _not_cold, slack=OWN_READS_MB),
    Held(METRICS["read_calls"], "counter"),
    Held(METRICS["read_call_mb"], "counter", slack=OWN_READS_MB),
    # Not what it takes of the disk: that is also the file system's, and unknown in older baselines.
    Held(Metric("store_size_mb", "size of the store", "MB", "lower", _store_mb), "counter"),
    Held(METRICS["files"], "counter"),
)
