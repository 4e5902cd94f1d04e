"""The device below a folder: its file system, mount options, disks and their settings.

Read from proc_pid_mountinfo(5) and the kernel's sysfs ABI (``/sys/dev/block``, ``/sys/class/bdi``). Names of
servers, users and folders are left out: records are published.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.measure.file_systems import IN_MEMORY, REMOTE
from bench.measure.mounts import PROC, Mount, mount_of

SYS = Path("/sys")

_PRIVATE_OPTIONS = {"addr", "clientaddr", "domain", "mountaddr", "password", "user", "username"}


def read_text(path: Path) -> str | None:
    """Return a file's text without surrounding space, or None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """Return the whole number in a file, or None where there is none."""
    text = read_text(path)
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def nearest_existing(path: Path) -> Path:
    """Return the folder or file itself, or the closest of its parents that exists, without links."""
    resolved = path.resolve()
    # Unlike Path.exists, os.access does not raise below a folder that may not be entered.
    return next(candidate for candidate in (resolved, *resolved.parents) if os.access(candidate, os.F_OK))


def device_folder(mount: Mount, *, sys: Path = SYS) -> Path | None:
    """Return the sysfs folder of a mount's block device (a partition, a disk, a mapped device), or None."""
    number = mount.device_number
    if number.startswith("0:"):
        # Anonymous, as with btrfs, whose source is then the device.
        try:
            status = Path(mount.source).stat() if mount.source.startswith("/dev/") else None
        except OSError:
            status = None
        if status is None:
            return None
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    folder = sys / "dev/block" / number
    return folder.resolve() if folder.exists() else None


def disk_folders(device: Path) -> list[Path]:
    """Return the sysfs folders of the disks below a block device: through partitions, LVM, encryption and RAID."""
    if (device / "partition").exists():
        device = device.parent
    slaves = sorted((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
    found = [disk for slave in slaves for disk in disk_folders(slave.resolve())] or [device]
    return list(dict.fromkeys(found))


def storage_facts(path: Path, *, proc: Path = PROC, sys: Path = SYS) -> dict[str, Any]:
    """Return facts about the storage that holds ``path``; None where unknown.

    ``network`` and ``memory`` say that the bytes come from elsewhere than a disk of this machine; ``network`` is
    None for a file system in user space (FUSE), which may be either. ``disks`` is a list of facts for each disk
    below the file system, or None where no block device is to be seen.
    """
    existing = nearest_existing(path)
    space = os.statvfs(existing)
    facts: dict[str, Any] = dict.fromkeys(
        ("file_system", "mount_options", "source", "network", "memory", "device", "read_ahead_kb", "disks")
    )
    facts |= {"total_bytes": space.f_frsize * space.f_blocks, "free_bytes": space.f_frsize * space.f_bavail}
    mount = mount_of(existing, proc=proc)
    if mount is None:
        return facts
    facts |= {
        "file_system": mount.type,
        "mount_options": _public_options(mount.options),
        "source": mount.source if mount.source.startswith("/dev/") else None,
        "network": None if mount.type.startswith("fuse") else mount.type in REMOTE,
        "memory": mount.type in IN_MEMORY,
        "read_ahead_kb": read_int(sys / "class/bdi" / mount.device_number / "read_ahead_kb"),
    }
    device = device_folder(mount, sys=sys)
    if device is not None:
        facts["device"] = device.name
        facts["disks"] = [_disk_facts(disk) for disk in disk_folders(device)]
        facts["memory"] = all(disk["name"].startswith(("zram", "ram")) for disk in facts["disks"])
    return facts


def chosen(text: str | None) -> str | None:
    """Return the bracketed one of a sysfs list of choices, as in ``none [mq-deadline]``."""
    found = re.search(r"\[([^]]+)\]", text or "")
    return found[1] if found else text


def _disk_facts(disk: Path) -> dict[str, Any]:
    queue = disk / "queue"
    sectors = read_int(disk / "size")
    rotational = read_int(queue / "rotational")
    return {
        "name": disk.name,
        "model": read_text(disk / "device/model"),
        "size_bytes": None if sectors is None else sectors * 512,
        "rotational": None if rotational is None else bool(rotational),
        "scheduler": chosen(read_text(queue / "scheduler")),
        "read_ahead_kb": read_int(queue / "read_ahead_kb"),
        "logical_block_bytes": read_int(queue / "logical_block_size"),
        "write_cache": read_text(queue / "write_cache"),
    }


def _public_options(options: Iterable[str]) -> str:
    """Return the options without those that name a server, a user or a folder."""
    kept = dict.fromkeys(options)
    if "ro" in kept:
        # Of mount and file system, the stricter holds.
        kept.pop("rw", None)
    public = (o for o in kept if o.partition("=")[0] not in _PRIVATE_OPTIONS and "/" not in o.partition("=")[2])
    return ",".join(public)
