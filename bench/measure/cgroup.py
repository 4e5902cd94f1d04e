"""A limit on the memory of a process tree, page cache included: the regime of data that do not fit in memory.

A child cgroup of our own is made for it (Control Group v2, "Memory" and "Delegation" in the kernel's documentation).
That takes version 2 of the hierarchy and, without root, a cgroup that is delegated to the user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from types import TracebackType

import psutil

from bench.contracts.errors import BenchError
from bench.measure.mounts import unescape

_WAY_OUT = "start bench in a cgroup of its own: systemd-run --user --scope -p Delegate=yes bench run …"
_GONE_AFTER_S = 5.0


class MemoryLimitError(BenchError):
    """Memory cannot be limited here."""


class MemoryLimit:
    """A child cgroup with a memory limit; use as a context manager and add processes to it.

    What a process has used before it is added stays with the cgroup it came from, so add it before it loads
    anything. A page of a file is charged to the first who reads it: evict the store beforehand. Swapping is
    switched off, where there is such a switch. The processes must have ended before the context does.

    A cgroup that shares out memory may hold no processes itself. Where ours holds this program and nothing
    else, its processes wait in a second child meanwhile and are moved back at the end.

    Args:
        limit_bytes: For memory.max; the kernel rounds it down to whole pages.
        proc: Where procfs is mounted.
    """

    def __init__(self, limit_bytes: int, *, proc: Path = Path("/proc")) -> None:
        self._limit_bytes = limit_bytes
        self._proc = proc
        self._undo = contextlib.ExitStack()
        self.path: Path | None = None

    def __enter__(self) -> MemoryLimit:
        """Make the cgroup.

        Raises:
            MemoryLimitError: There is no cgroup v2 with the memory controller, or none that we may divide.
        """
        own = _own_cgroup(self._proc)
        with contextlib.ExitStack() as undo:
            self._share_out_memory(own, undo)
            path = own / f"bench-limit-{os.getpid()}"
            _make(path)
            undo.callback(_remove, path)
            _write(path / "memory.max", str(self._limit_bytes))
            if (path / "memory.swap.max").exists():
                _write(path / "memory.swap.max", "0")
            self.path = path
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path = None
        try:
            self._undo.__exit__(kind, error, trace)
        except MemoryLimitError:
            # What ended the context early is what the user has to know.
            if error is None:
                raise

    def add(self, pid: int) -> None:
        """Move a process in; its later children follow.

        Raises:
            MemoryLimitError: The process is gone, or may not be moved.
        """
        try:
            self._file("cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise MemoryLimitError(f"cannot limit the memory of process {pid}: {error.strerror}") from error

    def peak_bytes(self) -> int | None:
        """Return the most memory that was used, page cache included; None before Linux 5.19."""
        text = _read(self._file("memory.peak"))
        return int(text) if text is not None else None

    def _file(self, name: str) -> Path:
        if self.path is None:
            raise RuntimeError("the memory limit is not in force")
        return self.path / name

    def _share_out_memory(self, own: Path, undo: contextlib.ExitStack) -> None:
        """Enable the memory controller for children of ``own``."""
        if "memory" not in (_read(own / "cgroup.controllers") or "").split():
            raise MemoryLimitError(f"cannot limit memory: the memory controller is not delegated to {own}; {_WAY_OUT}")
        if "memory" in (_read(own / "cgroup.subtree_control") or "").split():
            return
        waiting = own / f"bench-main-{os.getpid()}"
        # The root of the hierarchy, which has no cgroup.type, may share out memory and hold processes.
        if (own / "cgroup.type").exists() and (held := _processes(own)):
            if not held <= _this_program():
                raise MemoryLimitError(f"cannot limit memory: {own} holds other processes, too; {_WAY_OUT}")
            _make(waiting)
            undo.callback(_remove, waiting)
            undo.callback(_move_all, waiting, own)
            _move_all(own, waiting)
        _write(own / "cgroup.subtree_control", "+memory")
        undo.callback(_write, own / "cgroup.subtree_control", "-memory")


def _own_cgroup(proc: Path) -> Path:
    """Return the folder of this process's cgroup."""
    lines = (_read(proc / "self/cgroup") or "").splitlines()
    entries = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    # A hybrid system mounts version 2 as well, but leaves memory to version 1.
    if any("memory" in controllers.split(",") for controllers in entries):
        raise MemoryLimitError(
            "cannot limit memory: this system uses cgroup v1 for it; boot with systemd.unified_cgroup_hierarchy=1"
        )
    for line in (_read(proc / "self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[:1] == ["cgroup2"] and "" in entries:
            root, mount_point = (unescape(field) for field in before.split()[3:5])
            path = Path(entries[""])
            if ".." not in path.parts and path.is_relative_to(root):
                return Path(mount_point) / path.relative_to(root)
    raise MemoryLimitError(f"cannot limit memory: no cgroup v2 of this process can be seen; {_WAY_OUT}")


def _this_program() -> set[int]:
    """Return the ids of this process and its descendants."""
    return {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}


def _processes(cgroup: Path) -> set[int]:
    return {int(pid) for pid in (_read(cgroup / "cgroup.procs") or "").split()}


def _move_all(source: Path, target: Path) -> None:
    for pid in sorted(_processes(source)):
        try:
            (target / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            continue  # it has ended meanwhile
        except OSError as error:
            raise MemoryLimitError(f"cannot limit memory: {target}: {error.strerror}; {_WAY_OUT}") from error


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise MemoryLimitError(f"cannot limit memory: {path}: {error.strerror}; {_WAY_OUT}") from error


def _make(cgroup: Path) -> None:
    try:
        cgroup.mkdir()
    except OSError as error:
        raise MemoryLimitError(f"cannot limit memory: {cgroup}: {error.strerror}; {_WAY_OUT}") from error


def _remove(cgroup: Path) -> None:
    """Remove a cgroup as soon as its processes are gone."""
    deadline = time.monotonic() + _GONE_AFTER_S
    while True:
        try:
            cgroup.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise MemoryLimitError(f"cannot remove {cgroup}: {error.strerror}; end its processes") from error
            time.sleep(0.05)
        else:
            return
