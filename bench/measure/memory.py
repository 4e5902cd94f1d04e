"""Host memory: resident peaks of this process, and proportional set size (PSS) of a process tree.

Summed RSS counts pages that workers share once per worker; PSS divides them (see
proc_pid_smaps_rollup in the kernel's documentation), so only PSS may be added up.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
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


_FIELDS = {"Pss": "total_bytes", "Pss_Anon": "anon_bytes", "Pss_File": "file_bytes", "Pss_Shmem": "shmem_bytes"}


def tree_pss(pid: int) -> Pss | None:
    """Return the PSS of a process and its descendants, or None where the kernel does not tell.

    Processes that end while being read count as zero.
    """
    total = Pss()
    try:
        root = psutil.Process(pid)
        pids = [pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return None
    readable = False
    for member in pids:
        try:
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
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


class PeakPss:
    """Samples the PSS of another process's tree from a thread; use as a context manager.

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
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no procfs: getrusage below
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
