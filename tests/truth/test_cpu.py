"""CPU seconds, against a plug-in that burns them and asks the kernel for those of its own thread and process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from told import BATCH, KINDS, Told, measured

BATCHES = 40
BURN_MS = 200
"""Long beside what handing over a batch takes, which differs with how busy the cores are."""


def reported_s(told: Told, epoch: int) -> float:
    return told.epoch(epoch).cpu_user_s + told.epoch(epoch).cpu_system_s


def true_s(told: Told, epoch: int) -> float:
    """Return the CPU seconds of the processes that read, from the beginning of their first batch on."""
    total_s = 0.0
    for pid in {act["pid"] for act in told.acts}:
        own = [act for act in told.of_epoch(epoch) if act["pid"] == pid]
        total_s += own[-1]["process_cpu_s"] - own[0]["process_cpu_s"] + own[0]["cpu_s"]
    return total_s


@pytest.fixture
def half_idle(bench_environment, tmp_path_factory) -> Callable[..., Told]:
    """Run two epochs, of which the first is idle: what else a run does with the CPU is in both."""

    def ran(backend: str, *more: str, **acts: object) -> Told:
        arguments = (bench_environment, tmp_path_factory, backend, "--epochs", "2", *more)
        return measured(*arguments, only_second="true", side=8, count=BATCH * BATCHES, **acts)

    return ran


@pytest.mark.parametrize("kind", KINDS)
def test_cpu_time_of_workers_is_counted(half_idle, kind: str) -> None:
    told = half_idle("truth-reads", *KINDS[kind], how="pread", ms=BURN_MS)
    assert told.true("cpu_s", epoch=1) == pytest.approx(BATCHES * BURN_MS / 1000, rel=0.05)
    expected = true_s(told, 1) - true_s(told, 0)
    assert reported_s(told, 1) - reported_s(told, 0) == pytest.approx(expected, rel=0.05)


def test_cpu_time_of_a_child_that_came_and_went_is_counted_once(half_idle) -> None:
    told = half_idle("truth-child", how="burn", ms=2050)
    assert reported_s(told, 1) - reported_s(told, 0) == pytest.approx(2.0, rel=0.05)
