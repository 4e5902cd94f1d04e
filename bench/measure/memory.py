"""Host memory: resident peaks of this process, and proportional set size (PSS) of a process tree.

Summed RSS counts pages that workers share once per worker; PSS divides them (see
proc_pid_smaps_rollup in the kernel's documentation), so only PSS may be added up.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Pss:
    """Proportional set size of a process tree and its parts, in bytes."""

    total_bytes: int = 0
    anon_bytes: int = 0
    file_bytes: int = 0
    shmem_bytes: int = 0

    def __add__(self, other: Pss) -> Pss:
        return Pss(
            self.total_bytes + other.total_bytes,
            self.anon_bytes + other.anon_bytes,
            self.file_bytes + other.file_bytes,
            self.shmem_bytes + other.shmem_bytes,
        )


_PAGE_BYTES = resource.getpagesize()
_FIELDS = {"Pss": "total_bytes", "Pss_Anon": "anon_bytes", "Pss_File": "file_bytes", "Pss_Shmem": "shmem_bytes"}


def tree_pids(pid: int) -> list[int]:
    """Return a process and its descendants; empty where it does not exist.

    Asks each process for its children (proc_tid_children(5)), as looking through all processes of a machine
    for them takes milliseconds. Kernels built without that list leave no other way.
    """
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        return _searched_pids(pid)
    found = [pid]
    for parent in found:
        found += _children(parent)
    return found


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        # It, or one of its threads, has ended meanwhile.
        return []


def _searched_pids(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def pss_of(pids: Sequence[int]) -> Pss | None:
    """Return the summed PSS of processes, or None where the kernel tells that of none.

    Processes that end while being read count as zero.
    """
    total = Pss()
    readable = False
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        readable = True
        values = {}
        for line in text.splitlines():
            name, _, rest = line.partition(":")
            if name in _FIELDS:
                values[_FIELDS[name]] = int(rest.split()[0]) * 1024
        total += Pss(**values)
    return total if readable else None


def tree_pss(pid: int) -> Pss | None:
    """Return the PSS of a process and its descendants, or None where the kernel does not tell."""
    return pss_of(tree_pids(pid))


class Rss:
    """Summed resident set size of processes: cheap, but shared pages count repeatedly.

    The files in procfs stay open, as opening them anew costs five times as much as reading them.
    """

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def watch(self, pids: Sequence[int]) -> None:
        """Choose the processes."""
        for pid in self._files.keys() - set(pids):
            os.close(self._files.pop(pid))
        for pid in pids:
            if pid not in self._files:
                with suppress(FileNotFoundError, ProcessLookupError):
                    self._files[pid] = os.open(f"/proc/{pid}/statm", os.O_RDONLY)

    def size_bytes(self) -> int:
        """Return the sum now; processes that have ended count as zero."""
        pages = 0
        for file in self._files.values():
            with suppress(ProcessLookupError):
                pages += int(os.pread(file, 128, 0).split()[1])
        return pages * _PAGE_BYTES


def rss_peaks_of(pids: Sequence[int]) -> int | None:
    """Return the sum of the processes' own peaks of resident set size (VmHWM), in bytes."""
    peaks = [peak for pid in pids if (peak := _peak_of(f"/proc/{pid}/status")) is not None]
    return sum(peaks) if peaks else None


def _peak_of(status: str) -> int | None:
    try:
        for line in Path(status).read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


class PeakPss:
    """Samples the PSS of a process's tree from a thread; use as a context manager.

    For work that is not timed; ``bench.measure.sampler`` does it from a process of its own.

    Reading PSS walks the page tables of the target, so the pause between samples is at
    least ``interval_s`` and at least 50 times what a sample cost.
    """

    def __init__(self, pid: int, interval_s: float = 0.5, read: Callable[[int], Pss | None] = tree_pss) -> None:
        self._pid = pid
        self._interval_s = interval_s
        self._read = read
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.peak: Pss | None = None
        self.cost_s = 0.0
        self.samples = 0
        self._thread = threading.Thread(target=self._loop, name="peak-pss", daemon=True)
        self._thread.start()

    def sample(self) -> Pss | None:
        """Take one sample now; it counts towards the peak."""
        with self._lock:
            started = time.perf_counter()
            pss = self._read(self._pid)
            self.cost_s += time.perf_counter() - started
            self.samples += 1
            if pss is not None and (self.peak is None or pss.total_bytes > self.peak.total_bytes):
                self.peak = pss
            return pss

    def _loop(self) -> None:
        pause_s = self._interval_s
        while not self._stop.wait(pause_s):
            before_s = self.cost_s
            self.sample()
            pause_s = max(self._interval_s, 50 * (self.cost_s - before_s))

    def __enter__(self) -> PeakPss:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def oom_kills() -> int | None:
    """Return how many processes the kernel has killed for want of memory since it started, None where unknown.

    Those killed at the limit of a control group are among them (``oom_kill`` in /proc/vmstat).
    """
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    counts = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
    return counts[0] if counts else None


def current_rss_bytes() -> int:
    """Return the resident set size of this process now."""
    return int(psutil.Process().memory_info().rss)


def reset_peak_rss() -> None:
    """Start a new peak for ``peak_rss_bytes``, where the kernel allows it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        # The peak then covers the whole life of the process: an upper bound.
        return


def peak_rss_bytes() -> int:
    """Return the peak resident set size of this process since ``reset_peak_rss``."""
    peak = _peak_of("/proc/self/status")
    if peak is not None:
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
