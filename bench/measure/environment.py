"""What a run ran on: machine, system, libraries, the file system of its store."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import bench
from bench.measure.mounts import PROC, mount_of
from bench.measure.storage_device import SYS, chosen, read_int, read_text

LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "h5py",
    "hdf5plugin",
    "zarr",
    "numcodecs",
    "pillow",
    "torchcodec",
    "librosa",
    "soundfile",
    "psutil",
    "xxhash",
)
# Built once per CUDA version, each under a name of its own.
_PER_CUDA = {
    "cupy": ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x"),
    "kvikio": ("kvikio", "kvikio-cu11", "kvikio-cu12", "kvikio-cu13"),
}
_GIT_TIMEOUT_S = 2.0
# A control group of version 1 without a limit says the largest number of whole pages.
_NO_MEMORY_LIMIT = 2**62
_CODE = ("bench", "loaders", "datasets")


def machine(*, root: Path = Path("/"), proc: Path = PROC, sys_: Path = SYS) -> dict[str, Any]:
    """Return facts about the machine and its system; None where unknown or, for limits, where none is set.

    Takes some milliseconds. Neither the name of the machine nor of its user is among the facts.
    """
    memory = _meminfo(proc)
    shm = os.statvfs("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108  # it is the fact asked for
    return {
        "cpu": _cpu_model(proc),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_affinity": _ranges(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "logical_cores": os.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        **_frequency_facts(sys_ / "devices/system/cpu"),
        "cpu_quota_cores": cpu_quota_cores(proc, sys_),
        "numa_nodes": len(list((sys_ / "devices/system/node").glob("node[0-9]*"))) or None,
        "memory_bytes": psutil.virtual_memory().total,
        "memory_available_bytes": memory.get("MemAvailable"),
        "memory_limit_bytes": memory_limit_bytes(proc, sys_),
        "swap_bytes": memory.get("SwapTotal"),
        "swap_used_bytes": memory["SwapTotal"] - memory["SwapFree"] if "SwapFree" in memory else None,
        "shm_bytes": shm.f_frsize * shm.f_blocks if shm else None,
        "shm_free_bytes": shm.f_frsize * shm.f_bavail if shm else None,
        "proactive_reclaim": _proactive_reclaim(sys_),
        "transparent_hugepages": chosen(read_text(sys_ / "kernel/mm/transparent_hugepage/enabled")),
        "clocksource": read_text(sys_ / "devices/system/clocksource/clocksource0/current_clocksource"),
        "aslr": read_int(proc / "sys/kernel/randomize_va_space"),
        "uptime_s": _uptime_s(proc),
        "container": container(root=root, proc=proc),
        "virtual_machine": _virtual_machine(proc, sys_),
        "product": read_text(sys_ / "class/dmi/id/product_name"),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_implementation": platform.python_implementation(),
        "python_free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    }


def libraries() -> dict[str, str]:
    """Return the versions of the installed libraries that take part in a run.

    What is linked into a library (HDF5, CUDA, JPEG, …) is told where the library is already imported.
    """
    versions = {}
    for name, packages in {**{name: (name,) for name in LIBRARIES}, **_PER_CUDA}.items():
        if (version := _first_version(packages)) is not None:
            versions[name] = version
    for name, version in {**_linked_into_torch(), **_linked_into_pillow()}.items():
        if version is not None:
            versions[name] = str(version)
    if "h5py" in sys.modules:
        versions["libhdf5"] = sys.modules["h5py"].version.hdf5_version
    if all(libc := platform.libc_ver()):
        versions["libc"] = " ".join(libc)
    return versions


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """Return which code ran, and the command line it was given.

    ``git_revision`` and ``git_modified`` (whether a file of the code differs from it, or is new) are None unless
    bench runs from a checkout of its own.
    """
    checkout = Path(bench.__file__).resolve().parent.parent
    revision = changes = None
    if (checkout / ".git").exists() and (checkout / "pyproject.toml").exists():
        revision = _git(checkout, "rev-parse", "HEAD")
        changes = _git(checkout, "status", "--porcelain", "--", *_CODE)
    return {
        "bench": bench.__version__,
        "git_revision": revision,
        "git_modified": None if changes is None else bool(changes),
        "command": list(command),
    }


def file_system(path: Path) -> str | None:
    """Return the type of the file system that holds ``path`` (ext4, tmpfs, overlay, …)."""
    mount = mount_of(path)
    return mount.type if mount else None


def cpu_quota_cores(proc: Path = PROC, sys_: Path = SYS) -> float | None:
    """Return how many cores' worth of time this process's control groups allow; None where nothing limits it."""
    quotas = []
    for folder in _control_groups(proc, sys_):
        words = (read_text(folder / "cpu.max") or "").split()
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
        quota, period = read_int(folder / "cpu.cfs_quota_us"), read_int(folder / "cpu.cfs_period_us")
        if quota is not None and period and quota > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def usable_cores() -> int:
    """Return how many cores this process can keep busy: as its affinity and the quota of its control groups allow."""
    cores, quota = len(os.sched_getaffinity(0)), cpu_quota_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def memory_limit_bytes(proc: Path = PROC, sys_: Path = SYS) -> int | None:
    """Return the lowest memory limit of this process's control groups; None where nothing limits it."""
    limits = []
    for folder in _control_groups(proc, sys_):
        limits += [read_int(folder / "memory.max"), read_int(folder / "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit is not None and limit < _NO_MEMORY_LIMIT), default=None)


def container(*, root: Path = Path("/"), proc: Path = PROC) -> str | None:
    """Return the kind of container that this runs in, from the marks that each leaves; None where there is no mark."""
    version = read_text(proc / "version") or ""
    groups = "".join(read_text(proc / pid / "cgroup") or "" for pid in ("1", "self"))
    marks = {
        # gVisor tells every program the same old kernel, built at this time.
        "gvisor": "gvisor" in version.lower() or "Jan 10 15:06:54 PST 2016" in version,
        "kubernetes": "kubepods" in groups or (root / "var/run/secrets/kubernetes.io").exists(),
        "podman": (root / "run/.containerenv").exists() or "libpod" in groups,
        "docker": (root / ".dockerenv").exists() or "/docker" in groups,
        "lxc": "/lxc" in groups or "container=lxc" in (read_text(proc / "1/environ") or ""),
    }
    return next((name for name, found in marks.items() if found), None)


def _control_groups(proc: Path, sys_: Path) -> list[Path]:
    """Return the folders of this process's control groups, with all parents, versions 1 and 2."""
    folders = []
    for line in (read_text(proc / "self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        # In a container the path may be the host's; what is mounted as the root of all groups is then its own.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for base in (sys_ / "fs/cgroup" / (controllers or "."), sys_ / "fs/cgroup" / (controllers or "unified")):
            folders += [base.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return list(dict.fromkeys(folders))


def _cpu_model(proc: Path) -> str | None:
    fields = _cpuinfo(proc)
    return fields.get("model name") or fields.get("Model") or platform.processor() or None


def _cpuinfo(proc: Path) -> dict[str, str]:
    """Return the fields of the first processor alone: with hundreds of them, the whole file takes long to make."""
    fields = {}
    try:
        with (proc / "cpuinfo").open() as file:
            for line in file:
                if not line.strip():
                    break
                name, _, value = line.partition(":")
                fields[name.strip()] = value.strip()
    except OSError:
        return fields
    return fields


def _virtual_machine(proc: Path, sys_: Path) -> bool | None:
    if (sys_ / "hypervisor/type").exists():
        return True
    flags = _cpuinfo(proc).get("flags")
    if flags is not None:
        return "hypervisor" in flags.split()
    maker = read_text(sys_ / "class/dmi/id/sys_vendor")
    return True if maker in {"QEMU", "KVM", "VMware, Inc.", "Xen"} else None


def _frequency_facts(cpus: Path) -> dict[str, Any]:
    no_turbo, boost = read_int(cpus / "intel_pstate/no_turbo"), read_int(cpus / "cpufreq/boost")
    turbo = no_turbo == 0 if no_turbo is not None else None if boost is None else boost == 1
    policies = sorted((cpus / "cpufreq").glob("policy*"))
    return {
        "cpu_governor": _distinct(read_text(policy / "scaling_governor") for policy in policies),
        "cpu_scaling_driver": _distinct(read_text(policy / "scaling_driver") for policy in policies),
        "cpu_turbo": turbo,
    }


def _distinct(values: Iterable[str | None]) -> str | None:
    return ",".join(sorted({value for value in values if value})) or None


def _ranges(numbers: Iterable[int]) -> str:
    """Return numbers as the kernel lists CPUs: 0-3,8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def _meminfo(proc: Path) -> dict[str, int]:
    found = re.findall(r"^(\w+):\s+(\d+) kB$", read_text(proc / "meminfo") or "", re.MULTILINE)
    return {name: int(value) * 1024 for name, value in found}


def _proactive_reclaim(sys_: Path) -> bool | None:
    """Whether DAMON takes memory away that it believes unused, page cache too (admin-guide/mm/damon of the kernel)."""
    states = [read_text(daemon / "state") for daemon in (sys_ / "kernel/mm/damon/admin/kdamonds").glob("[0-9]*")]
    lru = [read_text(module / "parameters/enabled") for module in (sys_ / "module").glob("damon_*")]
    known = [state.strip() for state in (*states, *lru) if state is not None]
    return any(state in {"on", "Y"} for state in known) if known else None


def _uptime_s(proc: Path) -> float | None:
    words = (read_text(proc / "uptime") or "").split()
    return float(words[0]) if words else None


def _first_version(packages: Iterable[str]) -> str | None:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def _linked_into_torch() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    # Asking cuDNN for its version loads it: some 50 MB that a run without a GPU would not have.
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    return {"cuda": torch.version.cuda, "cudnn": cudnn}


def _linked_into_pillow() -> dict[str, Any]:
    if "PIL" not in sys.modules:
        return {}
    from PIL import features

    turbo = features.version("libjpeg_turbo") if features.check("libjpeg_turbo") else None
    zlib_ng = features.version("zlib_ng")
    return {
        "libjpeg": None if turbo else features.version("jpg"),
        "libjpeg-turbo": turbo,
        "zlib": f"zlib-ng {zlib_ng}" if zlib_ng else features.version("zlib"),
    }


def _git(checkout: Path, *arguments: str) -> str | None:
    """Return what a git command prints, or None where it fails; it changes nothing."""
    program = shutil.which("git")
    if program is None:
        return None
    where = ("--no-optional-locks", f"--git-dir={checkout / '.git'}", f"--work-tree={checkout}", "-C", str(checkout))
    try:
        done = subprocess.run(  # noqa: S603  # fixed arguments
            [program, *where, *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
