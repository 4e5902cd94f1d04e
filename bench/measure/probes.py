"""Counters of a process tree: bytes from storage, read calls, page faults, CPU seconds.

Read from procfs (proc_pid_io(5), proc_pid_stat(5)) for each process. The kernel adds the
counters of a child to those of the parent that waits for it; read here with those of waited-for
children included, the sum over all processes grows by exactly what was used, whether a child
still lives, lived all along, or came and went in between.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

import psutil


@dataclass(frozen=True, slots=True)
class Counters:
    """What a process has used since it started, and its children for which it has waited."""

    storage_read_bytes: int = 0
    read_call_bytes: int = 0
    read_calls: int = 0
    major_faults: int = 0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LONGEST = 1 << 14


def process_counters(pid: int) -> Counters | None:
    """Return the counters of one process, or None where there is none, or procfs does not tell."""
    texts = _texts(pid)
    return None if texts is None else _counters(*texts)


def _texts(pid: int) -> tuple[bytes, bytes] | None:
    """Return what the kernel tells of a process in ``io`` and ``stat``, in one call each."""
    try:
        return _read(f"/proc/{pid}/io"), _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _LONGEST)
    finally:
        os.close(descriptor)


def _counters(io_text: bytes, stat: bytes) -> Counters:
    io = dict(line.split(b": ") for line in io_text.splitlines())
    # The command name may hold spaces and parentheses; fields are counted after its last one.
    after_name = stat[stat.rindex(b")") + 2 :].split()
    major, children_major, user, system, children_user, children_system = map(int, after_name[9:15])
    return Counters(
        storage_read_bytes=int(io[b"read_bytes"]),
        read_call_bytes=int(io[b"rchar"]),
        read_calls=int(io[b"syscr"]),
        major_faults=major + children_major,
        cpu_user_s=(user + children_user) / _TICKS_PER_S,
        cpu_system_s=(system + children_system) / _TICKS_PER_S,
    )


Snapshot = dict[int, Counters]


def snapshot_before() -> Snapshot | None:
    """Return the counters of this process and all its descendants, or None without procfs.

    Looking for descendants reads much of procfs; here it comes before this process's own
    counters are read, and in ``snapshot_after`` behind, so that it is in neither difference.
    """
    children, texts = _children(), _texts(os.getpid())
    if texts is None:
        return None
    # Reading the counters is counted only behind what they tell.
    reading = Counters(read_calls=len(texts), read_call_bytes=sum(map(len, texts)))
    return _with_own(children, _counters(*texts) + reading)


def snapshot_after() -> Snapshot | None:
    """Return the counters at the end of what ``snapshot_before`` began."""
    own = process_counters(os.getpid())
    return _with_own(_children(), own)


def _children() -> Snapshot:
    pids = [child.pid for child in psutil.Process().children(recursive=True)]
    return {pid: counters for pid in pids if (counters := process_counters(pid)) is not None}


def _with_own(children: Snapshot, own: Counters | None) -> Snapshot | None:
    return None if own is None else {**children, os.getpid(): own}


def used_by_each(before: Snapshot | None, after: Snapshot | None) -> dict[int, Counters]:
    """Return what each process used that was there at the second snapshot, by process id; empty where unknown.

    One that appeared in between counts from its start, and one that waited for others has theirs in its own.
    """
    if before is None or after is None:
        return {}
    return {pid: counters - before.get(pid, Counters()) for pid, counters in after.items()}


def used_between(before: Snapshot | None, after: Snapshot | None) -> Counters | None:
    """Return what the tree used between two snapshots, or None where that is unknown.

    A process that is gone by the second snapshot must have been waited for by one of the tree:
    one that was not took its counters with it, and the rest cannot be told.
    """
    if before is None or after is None:
        return None
    used = sum(after.values(), Counters()) - sum(before.values(), Counters())
    return used if all(getattr(used, f.name) >= 0 for f in fields(used)) else None
