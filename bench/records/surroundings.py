"""What of a machine and its settings changes results, as records have it, in a user's words.

Left out is what also varies between equal runs on one machine: what is free, letters of devices, uptime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AS_RECORDED = ("cpu", "cpu_count", "gpu", "system", "kernel", "store_file_system", "torch_threads")
_SETTINGS = {"cpu_governor": "CPU governor", "transparent_hugepages": "transparent huge pages"}
_STORAGE = ("storage", "disk", "disk scheduler", "read-ahead", "mount options")

MACHINE = frozenset(
    {name.replace("_", " ") for name in _AS_RECORDED}
    | {"memory", "CPU quota", "container memory limit", "CPU turbo", *_SETTINGS.values(), *_STORAGE}
)
"""The names of all facts that :func:`machine_facts` returns."""

_MOUNT_OPTIONS = frozenset(
    {"sync", "dirsync", "dax", "noatime", "nodiratime", "relatime", "strictatime", "lazytime"}
    | {"data", "barrier", "nobarrier", "compress", "compress-force", "nodatacow", "nodatasum", "huge", "mpol"}
    | {"vers", "proto", "trans", "msize", "rsize", "wsize", "nconnect", "max_read", "cache", "noac", "actimeo", "fsc"}
)
"""Those that change how fast is read or written; others are names, places, and what is done about errors."""

_PAGE_BYTES = 2**16
"""The kernel rounds a limit down to whole pages, of so many bytes at most."""


def machine_facts(environment: Mapping[str, Any], own_limit_bytes: int | None = None) -> dict[str, Any]:
    """Return by name what a record's environment tells of machine, settings and storage; what it does not is left out.

    ``own_limit_bytes`` is the memory limit that the run was asked to have, which is none of its surroundings.
    """
    facts = {name.replace("_", " "): environment[name] for name in _AS_RECORDED if name in environment}
    if "memory_bytes" in environment:
        # One machine has some kilobytes more or less for programs after every start.
        facts["memory"] = f"{environment['memory_bytes'] / 2**30:.0f} GiB"
    if "cpu_quota_cores" in environment:
        quota = environment["cpu_quota_cores"]
        facts["CPU quota"] = None if quota is None else f"{quota:g} cores"
    if "memory_limit_bytes" in environment:
        facts["container memory limit"] = _limit(environment["memory_limit_bytes"], own_limit_bytes)
    if "cpu_turbo" in environment:
        facts["CPU turbo"] = _either(environment["cpu_turbo"], "on", "off")
    facts |= {words: environment[name] for name, words in _SETTINGS.items() if name in environment}
    storage = environment.get("storage")
    return facts | (_storage(storage) if isinstance(storage, dict) else {})


def _limit(found_bytes: int | None, own_bytes: int | None) -> str | None:
    if found_bytes is None or (own_bytes is not None and own_bytes - _PAGE_BYTES < found_bytes <= own_bytes):
        return None
    return f"{found_bytes / 2**30:.3g} GiB"


def _storage(found: Mapping[str, Any]) -> dict[str, Any]:
    disks = found.get("disks") or []
    options = str(found.get("mount_options") or "").split(",")
    ahead = found.get("read_ahead_kb")
    values = (
        "in memory" if found.get("memory") else _either(found.get("network"), "over the network", "local"),
        " and ".join(sorted(map(_disk, disks))) or None,
        " and ".join(sorted({str(disk.get("scheduler")) for disk in disks})) or None,
        None if ahead is None else f"{ahead} KiB",
        ",".join(sorted(option for option in options if option.partition("=")[0] in _MOUNT_OPTIONS)) or None,
    )
    return dict(zip(_STORAGE, values, strict=True))


def _disk(disk: Mapping[str, Any]) -> str:
    kind = _either(disk.get("rotational"), ", rotational", ", not rotational") or ""
    return f"{disk.get('model') or 'of unknown model'}{kind}"


def _either(fact: bool | None, if_true: str, if_false: str) -> str | None:
    """Return one of two words; None where nobody can tell."""
    return None if fact is None else if_true if fact else if_false
