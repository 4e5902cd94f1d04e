"""Where the time went, against a plug-in that sleeps and keeps the time itself."""

from __future__ import annotations

from statistics import median

import pytest
from told import BATCHES, KINDS, Told, measured


@pytest.fixture(scope="module")
def slept(bench_environment, tmp_path_factory) -> Told:
    # So long that what the harness does around a batch is little beside it on a busy machine, too.
    return measured(bench_environment, tmp_path_factory, "truth-sleeps", "--epochs", "3", ms=20, side=8)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_sleeping_is_waiting(slept: Told, epoch: int) -> None:
    waits_s, held_s = slept.epoch(epoch).batch_wait_s, slept.values("held_s", epoch)
    assert slept.true("slept_s", epoch) >= BATCHES * 0.02
    # The median, because a busy machine may take the CPU away between the two clocks.
    assert median(wait / held for wait, held in zip(waits_s, held_s, strict=True)) == pytest.approx(1, abs=0.03)
    assert slept.epoch(epoch).wait_s == pytest.approx(sum(waits_s), rel=0.01)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_every_sleep_is_in_the_wait_for_its_own_batch(slept: Told, epoch: int) -> None:
    info, sleeps_s = slept.epoch(epoch), slept.values("slept_s", epoch)
    assert all(wait_s >= sleep_s for wait_s, sleep_s in zip(info.batch_wait_s, sleeps_s, strict=True))
    assert info.first_batch_s == info.batch_wait_s[0]
    assert info.first_batch_s < info.wait_s / 2


def test_phases_add_up_to_the_epoch(slept: Told) -> None:
    for info in slept.record.epochs:
        assert info.wait_s + info.copy_s + info.compute_s == pytest.approx(info.epoch_s, rel=0.01)
        assert info.epoch_s >= sum(info.batch_wait_s)


def test_the_start_of_workers_is_no_part_of_an_epoch(bench_environment, tmp_path_factory) -> None:
    environment = {**bench_environment, "TRUTH_IMPORT_S": "1"}
    told = measured(environment, tmp_path_factory, "truth-sleeps", "--epochs", "1", *KINDS["spawn"], ms=5, side=8)
    info = told.epoch(0)
    began_s = min(act["at"] - act["held_s"] for act in told.acts[:4])
    ended_s = told.acts[BATCHES - 1]["at"]
    assert info.worker_start_s > 1
    # Workers that were still importing when the epoch began would lengthen it before the first read.
    assert info.epoch_s == pytest.approx(ended_s - began_s, abs=0.9)
