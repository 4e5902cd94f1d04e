"""What else went on while something was measured: stolen CPU time, pressure, swapping, throttling, foreign reads.

Counters of the whole machine, read before and after from procfs and sysfs (proc_stat(5), proc_vmstat(5), and the
kernel's documents on pressure stall information, block statistics and its sysfs ABI).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench.measure.mounts import PROC, mount_of
from bench.measure.storage_device import SYS, device_folder, nearest_existing, read_int, read_text

CANARY_ITERATIONS = 500_000
CANARY_RUNS = 3

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SECTOR_BYTES = 512
_PRESSURES = tuple((resource, kind) for resource in ("cpu", "io", "memory") for kind in ("some", "full"))


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of all CPUs together since boot: executing anything, taken by the hypervisor, and all there was."""

    busy_s: float
    steal_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters at one instant; None where the system does not tell."""

    at_s: float
    cpu: CpuTime | None
    stalled_us: Mapping[tuple[str, str], int] = field(default_factory=dict)
    load_1m: float | None = None
    swapped_in_bytes: int | None = None
    device_read_bytes: int | None = None
    throttle_events: int | None = None
    cpu_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What the whole machine did between two snapshots, this program included; None where unknown.

    Shares run from 0 to 1: of all CPU time for ``busy_share`` and ``steal_share``, of the duration for pressure
    (``some``: at least one task waited for the resource, ``full``: all did). ``cpu_busy_s`` minus the CPU seconds
    of the own processes is what others used. ``device_read_bytes`` is what the block device below the watched
    folder delivered, to whomever. ``throttle_events`` counts thermal throttling, once per logical CPU it slowed.
    Frequencies are those of the CPU that was fastest at that instant.
    """

    duration_s: float
    cpu_busy_s: float | None
    cpu_total_s: float | None
    busy_share: float | None
    steal_share: float | None
    cpu_some_share: float | None
    cpu_full_share: float | None
    io_some_share: float | None
    io_full_share: float | None
    memory_some_share: float | None
    memory_full_share: float | None
    load_1m_before: float | None
    load_1m_after: float | None
    swapped_in_bytes: int | None
    device_read_bytes: int | None
    throttle_events: int | None
    cpu_mhz_before: float | None
    cpu_mhz_after: float | None

    def facts(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        return asdict(self)


class Watch:
    """Counts from its creation on what the machine does; a snapshot takes about a millisecond.

    ``path`` lies on the device whose reads are counted; without one they are unknown.
    """

    def __init__(self, path: Path | None = None, *, proc: Path = PROC, sys: Path = SYS) -> None:
        self._proc, self._sys = proc, sys
        mount = mount_of(nearest_existing(path), proc) if path is not None else None
        self._device = device_folder(mount, sys=sys) if mount is not None else None
        self.start = self.snapshot()

    def snapshot(self) -> Snapshot:
        """Return all counters now."""
        return Snapshot(
            at_s=time.monotonic(),
            cpu=cpu_time(self._proc),
            stalled_us=_stalled_us(self._proc),
            load_1m=_load_1m(self._proc),
            swapped_in_bytes=_swapped_in_bytes(self._proc),
            device_read_bytes=_device_read_bytes(self._device) if self._device is not None else None,
            throttle_events=_throttle_events(self._sys),
            cpu_mhz=_cpu_mhz(self._proc, self._sys),
        )

    def leave_out(self, since: Snapshot) -> None:
        """Count nothing of what has happened since a snapshot."""
        self.start = _later(self.start, since, self.snapshot())

    def difference(self) -> Disturbance:
        """Return what happened between the creation of this object and now, without what was left out."""
        return between(self.start, self.snapshot())


def _later(start: Snapshot, before: Snapshot, after: Snapshot) -> Snapshot:
    """Return ``start`` with all counters as much higher as they grew between two snapshots."""

    def moved(value: float | None, low: float | None, high: float | None) -> Any:
        return None if value is None or (grown := _grown(low, high)) is None else value + grown

    cpu = [snapshot.cpu for snapshot in (start, before, after)]
    return replace(
        start,
        at_s=start.at_s + after.at_s - before.at_s,
        cpu=CpuTime(*(moved(*(getattr(one, field.name) for one in cpu)) for field in fields(CpuTime)))
        if all(one is not None for one in cpu)
        else None,
        stalled_us={
            key: value + int(_grown(before.stalled_us.get(key), after.stalled_us.get(key)) or 0)
            for key, value in start.stalled_us.items()
        },
        **{
            name: moved(*(getattr(one, name) for one in (start, before, after)))
            for name in ("swapped_in_bytes", "device_read_bytes", "throttle_events")
        },
    )


def between(before: Snapshot, after: Snapshot) -> Disturbance:
    """Return what happened between two snapshots; a counter that ran backwards is unknown."""
    duration_s = after.at_s - before.at_s
    stalled = {
        f"{resource}_{kind}_share": _share(
            _grown(before.stalled_us.get((resource, kind)), after.stalled_us.get((resource, kind))), duration_s * 1e6
        )
        for resource, kind in _PRESSURES
    }
    busy, steal, total = (
        _grown(getattr(before.cpu, name, None), getattr(after.cpu, name, None))
        for name in ("busy_s", "steal_s", "total_s")
    )
    if total is not None:
        # The time spent waiting for storage may fall (proc_stat(5) calls it unreliable), so the sum may lag behind.
        total = max(total, (busy or 0.0) + (steal or 0.0))
    return Disturbance(
        duration_s=duration_s,
        cpu_busy_s=busy,
        cpu_total_s=total,
        busy_share=_share(busy, total),
        steal_share=_share(steal, total),
        **stalled,
        load_1m_before=before.load_1m,
        load_1m_after=after.load_1m,
        swapped_in_bytes=_whole(_grown(before.swapped_in_bytes, after.swapped_in_bytes)),
        device_read_bytes=_whole(_grown(before.device_read_bytes, after.device_read_bytes)),
        throttle_events=_whole(_grown(before.throttle_events, after.throttle_events)),
        cpu_mhz_before=before.cpu_mhz,
        cpu_mhz_after=after.cpu_mhz,
    )


def canary_s() -> float:
    """Return how long a fixed amount of integer arithmetic takes here and now: the median of three runs of some 50 ms.

    The same number before and after a measurement says that this process got a CPU of the same speed.
    """
    return statistics.median(_spin_s() for _ in range(CANARY_RUNS))


def cpu_time(proc: Path = PROC) -> CpuTime | None:
    """Return the CPU seconds of the machine since boot, or None where the system does not tell."""
    words = (read_text(proc / "stat") or "").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    # Guest time, which follows, is part of user time already.
    user, nice, system, idle, io_wait, irq, soft_irq, steal = (int(word) / _TICKS_PER_S for word in words[1:9])
    busy = user + nice + system + irq + soft_irq
    return CpuTime(busy, steal, busy + idle + io_wait + steal)


def _spin_s() -> float:
    value = 1
    started = time.perf_counter()
    for _ in range(CANARY_ITERATIONS):
        value = (value * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
    return time.perf_counter() - started


def _stalled_us(proc: Path) -> dict[tuple[str, str], int]:
    found = {}
    for resource in ("cpu", "io", "memory"):
        for line in (read_text(proc / "pressure" / resource) or "").splitlines():
            kind, _, rest = line.partition(" ")
            total = rest.rpartition("total=")[2]
            if total.isdigit():
                found[resource, kind] = int(total)
    return found


def _load_1m(proc: Path) -> float | None:
    words = (read_text(proc / "loadavg") or "").split()
    return float(words[0]) if words else None


def _swapped_in_bytes(proc: Path) -> int | None:
    for line in (read_text(proc / "vmstat") or "").splitlines():
        if line.startswith("pswpin "):
            return int(line.split()[1]) * _PAGE_BYTES
    return None


def _device_read_bytes(device: Path) -> int | None:
    words = (read_text(device / "stat") or "").split()
    return int(words[2]) * _SECTOR_BYTES if len(words) > 2 else None


def _throttle_events(sys: Path) -> int | None:
    files = (sys / "devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    counts = [count for count in map(read_int, files) if count is not None]
    return sum(counts) if counts else None


def _cpu_mhz(proc: Path, sys: Path) -> float | None:
    scaled = [read_int(file) for file in (sys / "devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq")]
    known = [khz / 1000 for khz in scaled if khz]
    if not known:
        lines = (read_text(proc / "cpuinfo") or "").splitlines()
        known = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return max(known, default=None)


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or after < before else after - before


def _share(part: float | None, whole: float | None) -> float | None:
    # Two clocks: what fills the whole time may be seen as a little more than all of it.
    return None if part is None or not whole else min(1.0, part / whole)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
