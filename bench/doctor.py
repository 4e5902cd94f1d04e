"""What can be measured on this machine, how fast its parts are, and what puts numbers in doubt: for `bench doctor`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.measure import ceilings, disturbance, environment, gpu
from bench.measure.ceilings import CeilingError, CopyCeiling, StorageCeiling
from bench.measure.cgroup import MemoryLimit, MemoryLimitError
from bench.measure.disturbance import Snapshot
from bench.measure.mounts import PROC
from bench.measure.page_cache import PageCache
from bench.measure.storage_device import SYS, nearest_existing, read_text, storage_facts
from bench.report.tables import Table

SMALL_SHM_BYTES = 10**9
HIGH_STEAL = 0.01
HIGH_LOAD = 0.5
"""Runnable tasks per core before anything is measured."""

SHM = "/dev/shm"  # noqa: S108  # the memory that processes share
_TRIED_LIMIT_BYTES = 10**9
_SLOW_GOVERNORS = {"conservative", "ondemand", "powersave"}


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether something can be measured or done here, what it says now, and why not or what to do."""

    what: str
    usable: bool
    here: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Speeds:
    """The measured ceilings; ``reason`` says why those of the storage are missing."""

    storage: StorageCeiling | None
    reason: str | None
    copies: CopyCeiling


@dataclass(frozen=True, slots=True)
class Examination:
    """All that was found; ``speeds`` is None where nobody wanted them."""

    machine: Mapping[str, Any]
    storage: Mapping[str, Any]
    abilities: list[Ability]
    speeds: Speeds | None
    doubts: list[str]

    def facts(self) -> dict[str, Any]:
        """Return everything as plain data."""
        speeds = self.speeds
        return {
            "machine": dict(self.machine),
            "storage": dict(self.storage),
            "abilities": [asdict(ability) for ability in self.abilities],
            "ceilings": speeds
            and {
                "storage": speeds.storage and speeds.storage.facts(),
                "storage_reason": speeds.reason,
                "copies": speeds.copies.facts(),
            },
            "doubts": self.doubts,
        }

    def tables(self) -> list[Table]:
        """Return one table of abilities and, where they were measured, one of ceilings; the last has the doubts."""
        rows = [[ability.what, ability.here, ability.advice] for ability in self.abilities]
        columns = ["what", "here", "why not, or what to do"]
        notes = self.doubts or ["Nothing was found that puts numbers in doubt here."]
        if self.speeds is None:
            return [Table("What can be measured here", columns, rows, notes, text_columns=3)]
        found = _ceilings_table(self.speeds)
        return [
            Table("What can be measured here", columns, rows, text_columns=3),
            Table(found.title, found.columns, found.rows, [*found.notes, *notes]),
        ]


def examine(data_dir: Path, *, measure_ceilings: bool) -> Examination:
    """Find out what this machine offers to measurements of data in ``data_dir``.

    Writes only into files of its own, which are gone afterwards: in ``data_dir`` or, where that does not exist,
    in the nearest of its parents that does. With ceilings it takes up to about half a minute.
    """
    folder = nearest_existing(data_dir)
    before = disturbance.Watch(folder).start
    machine, storage = environment.machine(), storage_facts(folder)
    abilities = [
        *_counters(before),
        _cold_cache(folder),
        _drop_caches(),
        _memory_limit(),
        _frequency(machine, before),
        *_gpu(),
        _cpu_energy(),
        _cores(machine),
        _shared_memory(machine),
        _data_folder(storage),
    ]
    speeds = _speeds(folder) if measure_ceilings else None
    return Examination(machine, storage, abilities, speeds, doubts(machine, storage, before, speeds))


def doubts(
    machine: Mapping[str, Any], storage: Mapping[str, Any], now: Snapshot, speeds: Speeds | None = None
) -> list[str]:
    """Return what puts numbers of this machine in doubt, with a way out of each."""
    cores, quota, shm = machine["cpu_count"], machine["cpu_quota_cores"], machine["shm_bytes"]
    limit = machine["memory_limit_bytes"]
    steal = _steal_share(now)
    slow = _SLOW_GOVERNORS & set((machine["cpu_governor"] or "").split(","))
    ceiling = speeds.storage if speeds else None
    found = [
        (
            machine["virtual_machine"],
            "Virtual machine: others share its CPUs and disk, and the host may cache the disk. Interleave and repeat.",
        ),
        (
            steal is not None and steal > HIGH_STEAL,
            f"The hypervisor took {_percent(steal)} of the CPU time since boot: choose a quieter host.",
        ),
        (
            now.load_1m is not None and now.load_1m > HIGH_LOAD * cores,
            f"The load was {now.load_1m} on {cores} cores beforehand: wait until the machine is idle.",
        ),
        (
            slow,
            f"CPU governor {', '.join(sorted(slow))}: clocks follow the load. `cpupower frequency-set -g performance`.",
        ),
        (
            quota is not None and quota < cores,
            f"A quota of {quota} cores pauses all processes when it is used up: raise it, or use fewer workers.",
        ),
        (
            limit is not None and limit < machine["memory_bytes"],
            f"A memory limit of {_size(limit)} holds the page cache, too: larger data are read again from the disk.",
        ),
        (
            machine.get("proactive_reclaim"),
            "The kernel takes away memory that it believes unused (DAMON): --cache warm may not last for an epoch.",
        ),
        (
            shm is not None and shm < SMALL_SHM_BYTES,
            f"Workers pass batches through {SHM}, of {_size(shm)}: enlarge it (docker run --shm-size=8g).",
        ),
        (
            storage["network"],
            f"The data folder is on {storage['file_system']}: a cache of its server or host cannot be seen or emptied.",
        ),
        (
            storage["memory"],
            "The data folder is in memory: no disk is measured. Choose another --data-dir.",
        ),
        (
            ceiling is not None and ceiling.host_cache_suspected,
            "Reading the same bytes again was much faster: something beyond this system caches the disk.",
        ),
    ]
    return [text for holds, text in found if holds]


def _counters(now: Snapshot) -> list[Ability]:
    io, pss = _readable(PROC / "self/io"), _readable(PROC / "self/smaps_rollup")
    steal = _steal_share(now)
    throttling = now.throttle_events
    return [
        Ability("bytes read by each process", io, _yes(io), "" if io else "/proc/PID/io is not offered here"),
        Ability("memory of processes (PSS)", pss, _yes(pss), "" if pss else "/proc/PID/smaps_rollup is missing"),
        Ability(
            "pressure (PSI)",
            bool(now.stalled_us),
            _yes(bool(now.stalled_us)),
            "" if now.stalled_us else "boot Linux 4.20 or newer with psi=1",
        ),
        Ability(
            "stolen CPU time",
            steal is not None,
            "no" if steal is None else f"{_percent(steal)} since boot",
            "/proc/stat does not tell" if steal is None else "",
        ),
        Ability(
            "thermal throttling",
            throttling is not None,
            "no" if throttling is None else f"{throttling:,} times since boot",
            "only Intel CPUs show it, none in a VM" if throttling is None else "",
        ),
    ]


def _cold_cache(folder: Path) -> Ability:
    what = "proof of a cold cache"
    try:
        with tempfile.TemporaryDirectory(prefix=".bench-doctor-", dir=folder) as scratch:
            store = Path(scratch) / "store"
            store.mkdir()
            cache = PageCache(store)
    except OSError as error:
        return Ability(what, False, "no", f"{folder} is not writable ({error.strerror}): choose another --data-dir")
    return Ability(what, bool(cache.probe), f"yes, by {cache.probe}" if cache.probe else "no", cache.reason or "")


def _drop_caches() -> Ability:
    # Besides the owner's rights, this sees a /proc that a container has mounted read-only.
    usable = os.access(PROC / "sys/vm/drop_caches", os.W_OK)
    return Ability("emptying all caches", usable, _yes(usable), "" if usable else "needs root; file names stay cached")


def _memory_limit() -> Ability:
    try:
        with MemoryLimit(_TRIED_LIMIT_BYTES):
            return Ability("limiting memory", True, "yes")
    except MemoryLimitError as error:
        return Ability("limiting memory", False, "no", str(error).removeprefix("cannot limit memory: "))


def _frequency(machine: Mapping[str, Any], now: Snapshot) -> Ability:
    turbo = {True: "turbo on", False: "turbo off", None: None}[machine["cpu_turbo"]]
    mhz = f"{now.cpu_mhz:,.0f} MHz" if now.cpu_mhz else None
    here = ", ".join(part for part in (mhz, machine["cpu_governor"], turbo) if part)
    advice = "" if machine["cpu_governor"] else "governor and turbo are not shown"
    return Ability("CPU frequency", bool(here), here or "no", advice)


def _gpu() -> list[Ability]:
    found, reason = gpu.identities()
    sample = None
    for identity in found[:1]:
        sensor = gpu.GpuSensor(identity)
        sample, reason = sensor.sample(), sensor.reason
    if sample is None:
        return [Ability("GPU sensors and energy", False, "no", reason or "")]
    # Other processes are only known once there is one of our own.
    missing = [name for name, value in asdict(sample).items() if value is None and name != "other_pids"]
    energy = sample.energy_mj is not None
    return [
        Ability("GPU sensors", True, f"yes, {len(found)} GPU", f"without {', '.join(missing)}" if missing else ""),
        Ability(
            "GPU energy",
            energy,
            _yes(energy),
            f"only over {gpu.ENERGY_WINDOW_S:.0f} s and more" if energy else "this GPU has no counter (Volta or newer)",
        ),
    ]


def _cpu_energy() -> Ability:
    counters = sorted((SYS / "class/powercap").glob("intel-rapl:*/energy_uj"))
    usable = any(_readable(counter) for counter in counters)
    advice = "readable by root only" if counters else "no counter here, as in most VMs"
    return Ability("CPU energy (RAPL)", usable, _yes(usable), "" if usable else advice)


def _cores(machine: Mapping[str, Any]) -> Ability:
    quota = machine["cpu_quota_cores"]
    parts = [
        f"{machine['cpu_count']} of {machine['logical_cores']}",
        f"quota {quota:g}" if quota is not None else None,
        machine["container"],
        "VM" if machine["virtual_machine"] else None,
    ]
    return Ability("CPU cores", True, ", ".join(part for part in parts if part))


def _shared_memory(machine: Mapping[str, Any]) -> Ability:
    size, free = machine["shm_bytes"], machine["shm_free_bytes"]
    if size is None:
        return Ability(SHM, False, "no", "worker processes cannot pass batches: use --worker-kind thread")
    return Ability(SHM, True, f"{_size(size)}, {_size(free)} free")


def _data_folder(storage: Mapping[str, Any]) -> Ability:
    disks = storage["disks"] or []
    parts = [storage["file_system"] or "unknown file system", *(disk["model"] or disk["name"] for disk in disks)]
    here = f"{', '.join(parts)}, {_size(storage['free_bytes'])} free"
    return Ability("data folder", True, here, "" if disks else "no disk of this machine is to be seen below it")


def _speeds(folder: Path) -> Speeds:
    copies = ceilings.copies()
    try:
        return Speeds(ceilings.storage(folder), None, copies)
    except CeilingError as error:
        return Speeds(None, str(error), copies)


def _ceilings_table(speeds: Speeds) -> Table:
    storage, copies = speeds.storage, speeds.copies
    first, again = (speed.mb_per_s for speed in storage.sequential) if storage else (None, None)
    rows = [["storage, 1 MiB in order", _number(first), "MB/s"], ["storage, the same again", _number(again), "MB/s"]]
    for number, block_bytes in enumerate(ceilings.RANDOM_BYTES):
        speed = storage.random[number] if storage else None
        label = f"storage, {block_bytes // 1024} KiB at random"
        rows.append([label, _number(speed.mb_per_s if speed else None), "MB/s"])
        rows.append(["", _number(speed.reads_per_s if speed else None), "reads/s"])
    rows += [
        ["copying within memory", _number(copies.memory_gb_per_s), "GB/s"],
        ["pinned memory to GPU", _number(copies.pinned_gb_per_s), "GB/s"],
        ["pageable memory to GPU", _number(copies.pageable_gb_per_s), "GB/s"],
    ]
    notes = [f"To the GPU: {copies.reason}."] if copies.reason else []
    if storage is None:
        return Table("Ceilings of this machine", ["what", "value", "unit"], rows, [*notes, str(speeds.reason)])
    how = {
        "O_DIRECT": "past the page cache (O_DIRECT)",
        "evicted": "after evicting the file, for O_DIRECT is refused here",
        "memory": "from memory, where this file system lives",
    }[storage.method]
    notes.append(f"Storage: one read at a time of a file of {_size(storage.file_bytes)}, {how}.")
    return Table("Ceilings of this machine", ["what", "value", "unit"], rows, notes)


def _steal_share(now: Snapshot) -> float | None:
    return now.cpu.steal_s / now.cpu.total_s if now.cpu and now.cpu.total_s else None


def _readable(path: Path) -> bool:
    return bool(read_text(path))


def _yes(usable: bool) -> str:
    return "yes" if usable else "no"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.1%}".replace("%", " %")


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "n/a"
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.0f} MB"


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
