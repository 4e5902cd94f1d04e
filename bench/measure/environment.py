"""What a run ran on: machine, system, libraries, the file system of its store."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("torch", "torchvision", "numpy", "h5py", "hdf5plugin", "zarr", "numcodecs", "pillow", "cupy")


def machine() -> dict[str, Any]:
    """Return facts about the machine and its system; None where unknown."""
    return {
        "cpu": _cpu_model(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def libraries() -> dict[str, str]:
    """Return the versions of the installed libraries that take part in a run."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "h5py" in sys.modules:
        versions["libhdf5"] = sys.modules["h5py"].version.hdf5_version
    return versions


def file_system(path: Path) -> str | None:
    """Return the type of the file system that holds ``path`` (ext4, tmpfs, overlay, …)."""
    resolved = path.resolve()
    best: tuple[int, str] | None = None
    for partition in psutil.disk_partitions(all=True):
        mount = Path(partition.mountpoint)
        if resolved.is_relative_to(mount) and (best is None or len(mount.parts) >= best[0]):
            best = (len(mount.parts), partition.fstype)
    return best[1] if best else None


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None
