"""A process that watches another: it sees peaks between its own looks, and its death costs figures, not the run."""

import multiprocessing
import os
import signal
import time

import pytest

from bench.measure.gpu import GpuSample, summarise
from bench.measure.sampler import Sampler, _Watch

MB = 1_000_000


def hold_for_a_moment(ready, go, done) -> None:
    ready.set()
    go.wait()
    block = bytearray(200 * MB)
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(1.5)
    del block
    done.wait()


@pytest.fixture
def target():
    """A process that holds 200 MB for a moment once told to."""
    context = multiprocessing.get_context("fork")
    ready, go, done = context.Event(), context.Event(), context.Event()
    process = context.Process(target=hold_for_a_moment, args=(ready, go, done))
    process.start()
    assert ready.wait(60)
    yield process, go
    for event in (go, done):
        event.set()
    process.join()


def test_a_peak_that_nobody_asked_about_is_seen(target) -> None:
    process, go = target
    with Sampler(process.pid) as sampler:
        before = sampler.sample()
        go.set()
        time.sleep(3)
        after = sampler.sample()
        seen = sampler.finish()
    assert after.total_bytes - before.total_bytes < 50 * MB, "it is over"
    assert seen.peak.anon_bytes - before.anon_bytes == pytest.approx(200 * MB, rel=0.05)
    assert seen.rss_peaks_sum_bytes >= 200 * MB
    assert seen.samples >= 3
    assert 0 < seen.cpu_s < seen.duration_s
    assert seen.gpu is None


def test_what_happens_in_a_pause_is_not_seen(target) -> None:
    process, go = target
    with Sampler(process.pid) as sampler:
        before = sampler.sample()
        sampler.pause(begins=True)
        go.set()
        time.sleep(2.5)
        sampler.pause(begins=False)
        seen = sampler.finish()
    assert seen.peak.anon_bytes - before.anon_bytes < 50 * MB


def test_time_and_energy_between_windows_do_not_count() -> None:
    class Sensor:
        at_s = 100.0

        def sample(self, own_pids) -> GpuSample:
            busy = 1.0 if self.at_s < 150 else 0.5
            return GpuSample(self.at_s, used_bytes=int(self.at_s), utilisation=busy, energy_mj=int(1000 * self.at_s))

    watch, sensor = _Watch(os.getpid()), Sensor()
    watch._sensor = sensor
    for at_s, topic, value in (
        (100, "gpu-window", True),
        (140, "gpu-window", False),
        (150, "pause", True),
        (190, "gpu-sample", None),
        (195, "pause", False),
        (200, "gpu-window", True),
        (210, "gpu-sample", None),
        (220, "gpu-window", False),
        (300, "gpu-window", True),
        (310, "gpu-window", False),
    ):
        sensor.at_s = at_s
        watch.answer(topic, value)
    found = summarise(watch._gpu_window)
    assert (found.window_s, found.energy_j) == (70, 70)
    assert found.mean_utilisation == pytest.approx((40 * 1.0 + 30 * 0.5) / 70)
    assert watch._gpu_peak_used_bytes == 310


def test_a_sampler_that_dies_leaves_figures_unknown_and_nothing_else(target) -> None:
    process, _ = target
    before = set(multiprocessing.active_children())
    with Sampler(process.pid) as sampler:
        assert sampler.sample() is not None
        (child,) = set(multiprocessing.active_children()) - before
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert sampler.sample() is None
        sampler.gpu_window(begins=True)
        assert sampler.finish() is None


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(target, monkeypatch: pytest.MonkeyPatch) -> None:
    process, _ = target
    with Sampler(process.pid) as sampler:
        with monkeypatch.context() as patched:
            patched.setattr(sampler, "_pipe", Interrupted(sampler._pipe))
            with pytest.raises(KeyboardInterrupt):
                sampler.sample()
        assert sampler.finish().samples >= 1


class Interrupted:
    """A pipe whose reader is interrupted while it waits."""

    def __init__(self, pipe) -> None:
        self.send = pipe.send

    def recv(self):
        raise KeyboardInterrupt


def test_a_target_that_is_gone_is_unknown() -> None:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    with Sampler(process.pid) as sampler:
        assert sampler.sample() is None
        assert sampler.finish().peak is None
