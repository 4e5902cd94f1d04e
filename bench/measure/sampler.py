"""Memory and GPU of a measured process, sampled from a process of its own whose cost is known.

Reading PSS walks the page tables of the target (14 ms for 1 GiB), so it is rationed: the cheap
resident set size is read often, and PSS when that has grown or when it is due, as long as the
sampler stays within its share of one core. What is sampled on request does not count towards that:
requests come between epochs. Nothing is sampled before the first request.

A peak is seen if it lasts for two ``POLL_S`` and the time that a sample takes (in a process that was
born less than ``PIDS_EVERY_S`` ago, that much more), unless others used up ``GROWTH_ALLOWANCE_S``
shortly before.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from bench.child import die_with, ignore_sigint, start_held
from bench.measure.gpu import GpuSample, GpuSensor, GpuUse, summarise
from bench.measure.memory import Pss, Rss, pss_of, rss_peaks_of, tree_pids

POLL_S = 0.2
PIDS_EVERY_S = 1.0
PSS_EVERY_S = 1.0
GPU_EVERY_S = 1.0
CPU_SHARE = 0.005
GROWTH_ALLOWANCE_S = 0.1
"""What the sampler may spend beyond its share when memory has grown; what is merely due has to wait."""

GROWN = 1.01
STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was seen of a process tree, and what seeing it cost.

    ``gpu`` covers the windows, ``gpu_peak_used_bytes`` everything since the GPU was first looked at.
    """

    peak: Pss | None
    rss_peaks_sum_bytes: int | None
    samples: int
    cpu_s: float
    duration_s: float
    gpu: GpuUse | None
    gpu_peak_used_bytes: int | None


class Sampler:
    """Samples the tree of process ``pid`` until ``stop``; use as a context manager."""

    def __init__(self, pid: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, pipe = context.Pipe()
        self._process = context.Process(target=_serve, args=(pipe, pid), name="bench-sampler")
        start_held(self._process)
        pipe.close()
        self._final: Sampled | None = None
        self._asked = 0

    def sample(self) -> Pss | None:
        """Take a sample of memory and GPU now; it counts towards the peaks. None where that is unknown."""
        pss: Pss | None = self._ask("sample")
        return pss

    def watch_gpu(self, identity: str) -> int | None:
        """Begin to sample a GPU (see GpuSensor); return the bytes in use on it, None where that is unknown."""
        used: int | None = self._ask("gpu", identity)
        return used

    def sample_gpu(self) -> int | None:
        """Take a sample of the GPU now; return the bytes in use on it, None where that is unknown."""
        used: int | None = self._ask("gpu-sample")
        return used

    def gpu_window(self, *, begins: bool) -> None:
        """Let clocks, utilisation and energy count from now on, or up to now; what lies between windows is left out."""
        self._ask("gpu-window", begins)

    def pause(self, *, begins: bool) -> None:
        """Let nothing count from now on, or let everything count again."""
        self._ask("pause", begins)

    def finish(self) -> Sampled | None:
        """End sampling and return what was seen; None where the sampler is gone."""
        if self._final is None:
            self._final = self._ask("finish")
        return self._final

    def _ask(self, topic: str, value: Any = None) -> Any:
        # A sampler that has died (out of memory, say) costs the record some fields, not the run.
        self._asked += 1
        try:
            self._pipe.send((self._asked, topic, value))
            while True:
                # An interruption may have left the answer to an earlier question.
                number, answer = self._pipe.recv()
                if number == self._asked:
                    return answer
        except (EOFError, OSError):
            return None

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(timeout=STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, pid: int) -> None:
    ignore_sigint()
    die_with(os.getppid())
    watch = _Watch(pid)
    # Not the pipe's own poll(), which builds a selector each time.
    requests = select.poll()
    requests.register(pipe.fileno(), select.POLLIN)
    gc.disable()
    while True:
        try:
            if not requests.poll(1e3 * POLL_S):
                watch.poll()
                continue
            number, topic, value = pipe.recv()
            pipe.send((number, watch.answer(topic, value)))
        except (EOFError, OSError):
            return


@dataclass(slots=True)
class _Watch:
    pid: int
    peak: Pss | None = None
    rss_peaks_sum_bytes: int | None = None
    samples: int = 0
    _sensor: GpuSensor | None = None
    _gpu_window: list[GpuSample] = field(default_factory=list)
    _gpu_peak_used_bytes: int | None = None
    _in_window: bool = False
    _paused: bool = False
    _edge: GpuSample | None = None
    """The last reading of a window: the time and energy from there to the beginning of the next one are left out."""

    _left_out_s: float = 0.0
    _left_out_mj: int = 0
    _pids: list[int] = field(default_factory=list)
    _rss: Rss = field(default_factory=Rss)
    _highest_rss_bytes: int = 0
    _last_rss_bytes: int = 0
    _pids_at: float = 0.0
    _pss_at: float = 0.0
    _gpu_at: float = 0.0
    _started: float = field(default_factory=time.monotonic)
    _cpu_before_s: float = field(default_factory=time.process_time)
    _polling_cpu_s: float = 0.0
    _sample_cpu_s: float = 0.0

    def answer(self, topic: str, value: Any) -> Any:
        match topic:
            case "sample":
                return self._sample(time.monotonic(), tree_pids(self.pid))
            case "gpu":
                self._sensor = GpuSensor(value)
                return self._used_bytes()
            case "gpu-sample":
                return self._used_bytes()
            case "gpu-window":
                self._window(begins=value)
                return None
            case "pause":
                self._paused = value
                return None
        self._sample(time.monotonic(), tree_pids(self.pid))
        return Sampled(
            peak=self.peak,
            rss_peaks_sum_bytes=self.rss_peaks_sum_bytes,
            samples=self.samples,
            cpu_s=time.process_time() - self._cpu_before_s,
            duration_s=time.monotonic() - self._started,
            gpu=summarise(self._gpu_window) if self._gpu_window else None,
            gpu_peak_used_bytes=self._gpu_peak_used_bytes,
        )

    def _window(self, *, begins: bool) -> None:
        if begins and self._edge is not None:
            # Its reading is that of the edge before, as nothing counts that lies between.
            edge = self._sample_gpu()
            if edge is not None:
                self._left_out_s += edge.at_s - self._edge.at_s
                self._left_out_mj += (edge.energy_mj or 0) - (self._edge.energy_mj or 0)
            self._in_window, self._edge = True, None
            return
        # Both edges belong to it: energy is the difference of the first and the last reading.
        self._in_window = True
        edge = self._sample_gpu()
        self._in_window, self._edge = begins, None if begins else edge

    def poll(self) -> None:
        if not self.samples or self._paused:
            return
        cpu_before_s = time.process_time()
        self._poll(time.monotonic())
        self._polling_cpu_s += time.process_time() - cpu_before_s

    def _poll(self, now: float) -> None:
        if now - self._pids_at >= PIDS_EVERY_S:
            self._pids, self._pids_at = tree_pids(self.pid), now
            self._rss.watch(self._pids)
        allowed_s = CPU_SHARE * (now - self._started)
        # A short epoch must not pay at once for a sample that only a longer one can afford.
        due = now - self._pss_at >= PSS_EVERY_S and self._polling_cpu_s + self._sample_cpu_s <= allowed_s
        rss_bytes = self._rss.size_bytes()
        # While it still grows, a sample would be spent on less than the peak.
        grown = GROWN * self._highest_rss_bytes < rss_bytes <= GROWN * self._last_rss_bytes
        self._last_rss_bytes = rss_bytes
        if due or (grown and self._polling_cpu_s <= allowed_s + GROWTH_ALLOWANCE_S):
            self._sample(now, self._pids)
        if now - self._gpu_at >= GPU_EVERY_S:
            self._sample_gpu()

    def _sample(self, now: float, pids: list[int]) -> Pss | None:
        self._pss_at = now
        cpu_before_s = time.process_time()
        # Not that at the peak of PSS: pages that are shared more widely would count as growth time and again.
        self._rss.watch(pids)
        self._highest_rss_bytes = max(self._rss.size_bytes(), self._highest_rss_bytes)
        pss = pss_of(pids)
        self.samples += 1
        self.rss_peaks_sum_bytes = rss_peaks_of(pids) or self.rss_peaks_sum_bytes
        if pss is not None and (self.peak is None or pss.total_bytes > self.peak.total_bytes):
            self.peak = pss
        self._sample_cpu_s = time.process_time() - cpu_before_s
        return pss

    def _used_bytes(self) -> int | None:
        reading = self._sample_gpu()
        return None if reading is None else reading.used_bytes

    def _sample_gpu(self) -> GpuSample | None:
        self._gpu_at = time.monotonic()
        reading = self._sensor.sample(tree_pids(self.pid)) if self._sensor is not None else None
        if reading is None or self._paused:
            return reading
        if self._in_window:
            energy_mj = None if reading.energy_mj is None else reading.energy_mj - self._left_out_mj
            self._gpu_window.append(replace(reading, at_s=reading.at_s - self._left_out_s, energy_mj=energy_mj))
        if reading.used_bytes is not None:
            self._gpu_peak_used_bytes = max(reading.used_bytes, self._gpu_peak_used_bytes or 0)
        return reading
