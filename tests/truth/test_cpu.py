"""CPU seconds, against a plug-in that burns them and asks the kernel for those of its own thread and process."""

from __future__ import annotations

import pytest
from told import BATCH, KINDS, Told, measured

BATCHES = 40
BURN_MS = 200
"""Long beside what handing over a batch takes, which differs with how busy the cores are."""


def reported_s(told: Told) -> float:
    return told.epoch().cpu_user_s + told.epoch().cpu_system_s


def true_s(told: Told) -> float:
    """Return the CPU seconds of the processes that read, from the beginning of their first batch on."""
    total_s = 0.0
    for pid in {act["pid"] for act in told.acts}:
        own = [act for act in told.of_epoch(0) if act["pid"] == pid]
        total_s += own[-1]["process_cpu_s"] - own[0]["process_cpu_s"] + own[0]["cpu_s"]
    return total_s


@pytest.mark.parametrize("kind", KINDS)
def test_cpu_time_of_workers_is_counted(bench_environment, tmp_path_factory, kind: str) -> None:
    arguments = (bench_environment, tmp_path_factory, "truth-reads", "--epochs", "1", *KINDS[kind])
    idle, busy = (measured(*arguments, how="pread", ms=ms, side=8, count=BATCH * BATCHES) for ms in (0, BURN_MS))
    assert busy.true("cpu_s") == pytest.approx(BATCHES * BURN_MS / 1000, rel=0.05)
    assert reported_s(busy) - reported_s(idle) == pytest.approx(true_s(busy) - true_s(idle), rel=0.05)


def test_cpu_time_of_a_child_that_came_and_went_is_counted_once(bench_environment, tmp_path_factory) -> None:
    arguments = (bench_environment, tmp_path_factory, "truth-child", "--epochs", "1")
    idle, busy = (measured(*arguments, how="burn", ms=ms, side=8, count=BATCH * BATCHES) for ms in (50, 2050))
    assert reported_s(busy) - reported_s(idle) == pytest.approx(2.0, rel=0.05)
