"""The file system below a path: its type, the disk it lies on, and how to count its files' pages in memory.

Two system calls count pages:

- cachestat(2), since Linux 6.5, asks the file. On overlayfs it finds nothing of a file that is fully cached.
- mincore(2) asks a mapping, here one that is never touched and thus brings nothing in.

To a caller that neither owns a file nor may write it the first refuses to answer and the second reports every
page as resident: a store has to belong to the user.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.measure.mounts import PROC, mount_of

Probe = Literal["cachestat", "mincore"]

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "rootfs", "hugetlbfs"})
"""Types whose files live in memory, so that nothing can be evicted."""

REMOTE = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "drvfs", "fuse", "fuseblk", "gpfs", "lustre", "nfs", "nfs4"}
) | {"prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"}
"""Types behind which a server, the host or a daemon has a cache of its own; so has ``fuse.*``."""

ON_DISK = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"})
"""Types whose files have the pages that the kernel counts for them: overlay, for one, passes them on."""

_TEST_BYTES = 1 << 20
_PIECE_BYTES = 1 << 30
_CACHESTAT = 451
# Alpha and MIPS number their system calls differently: 451 would be another one there.
_CACHESTAT_MACHINES = frozenset({"x86_64", "aarch64", "riscv64", "ppc64", "ppc64le", "s390x", "loongarch64"})
_ODD_TO_ONE = bytes(value & 1 for value in range(256))


def unseen_cache(type_: str | None) -> str | None:
    """Say in words whose cache, beside this system's pages, may hold the data of such a file system."""
    if type_ == "zfs":
        return "ZFS keeps data in a cache of its own (ARC), which cannot be seen or emptied per file"
    if type_ is not None and (type_ in REMOTE or type_.startswith("fuse.")):
        return f"the cache of the server or host behind {type_} can be neither seen nor emptied from here"
    return None


def block_device(path: Path, proc: Path = PROC, sys: Path = Path("/sys")) -> str | None:
    """Return the name of the disk that holds ``path`` (``sda``, ``nvme0n1``, ``dm-0``), or None.

    A partition counts as its disk. File systems with device numbers of their own (btrfs, overlay) are
    followed to what they are mounted from. None means that there is no block device or none can be seen.
    """
    try:
        number = path.stat().st_dev
        mount = mount_of(path, proc)
        if os.major(number) == 0 and mount is not None and mount.source.startswith("/dev/"):
            number = Path(mount.source).stat().st_rdev
    except OSError:
        return None
    if os.major(number):
        return _disk(number, sys)
    upper = Path((mount and mount.option("upperdir")) or "")
    return block_device(upper, proc, sys) if upper.is_absolute() else None


def _disk(number: int, sys: Path) -> str | None:
    link = sys / f"dev/block/{os.major(number)}:{os.minor(number)}"
    if not link.exists():
        return None
    device = link.resolve()
    return device.parent.name if (device / "partition").exists() else device.name


class PageCount(NamedTuple):
    """Pages of one file in memory, and how many of those are still to be written; None where unknown."""

    resident: int
    dirty: int | None


def page_count(size_bytes: int) -> int:
    """Return how many pages a file of this size takes."""
    return -(-size_bytes // mmap.PAGESIZE)


def choose_probe(folder: Path, type_: str | None) -> tuple[Probe | None, str | None]:
    """Return the way of counting pages to be trusted on a folder's file system, or None and the reason.

    Each candidate has to prove itself on a file of 1 MiB, written to the folder above and removed again: it must
    be found in memory when just written, and no longer when it has been dropped.

    Raises:
        OSError: The folder cannot be looked at.
    """
    if platform.system() != "Linux":
        return None, "only Linux tells what is in the page cache"
    real = folder.resolve(strict=True)
    if real.stat().st_dev != real.parent.stat().st_dev:
        return None, "the store is a file system by itself, so nothing can be tried out beside it"
    names: tuple[Probe, ...] = ("cachestat", "mincore") if type_ in ON_DISK | IN_MEMORY else ("mincore",)
    flaws = []
    for name in names:
        flaw = _flaw(name, real.parent, evictable=type_ not in IN_MEMORY)
        if flaw is None:
            return name, None
        flaws.append(f"{name}: {flaw}")
    return None, f"what is in memory cannot be told on {type_ or 'this file system'} ({'; '.join(flaws)})"


def _flaw(name: Probe, folder: Path, *, evictable: bool) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".cache-test-", buffering=0) as file:
            file.write(os.urandom(_TEST_BYTES))
            if PROBES[name](file.fileno(), _TEST_BYTES).resident == 0:
                return "finds nothing of a test file just written"
            if evictable:
                os.fsync(file)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                left = PROBES[name](file.fileno(), _TEST_BYTES).resident
                return f"finds {left} pages of a test file just dropped" if left else None
    except OSError as error:
        return f"a test file beside the store: {error.strerror}"
    return None


class _Range(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("offset", "length")]


class _Cachestat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


def _cachestat(descriptor: int, size_bytes: int) -> PageCount:
    if platform.machine() not in _CACHESTAT_MACHINES:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if size_bytes == 0:
        return PageCount(0, 0)
    found = _Cachestat()
    asked = _Range(0, size_bytes)
    if _libc().syscall(_CACHESTAT, descriptor, ctypes.byref(asked), ctypes.byref(found), 0) != 0:
        raise _failure()
    return PageCount(found.cache, found.dirty + found.writeback)


def _mincore(descriptor: int, size_bytes: int) -> PageCount:
    path = f"/proc/self/fd/{descriptor}"
    if os.fstat(descriptor).st_uid != os.geteuid() and not os.access(path, os.W_OK, effective_ids=True):
        raise _foreign()
    resident = 0
    for offset in range(0, size_bytes, _PIECE_BYTES):
        length = min(_PIECE_BYTES, size_bytes - offset)
        address = _libc().mmap(None, length, mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, offset)
        if address == ctypes.c_void_p(-1).value:
            raise _failure()
        try:
            pages = ctypes.create_string_buffer(page_count(length))
            if _libc().mincore(address, length, pages) != 0:
                raise _failure()
        finally:
            _libc().munmap(address, length)
        # Only the lowest bit of each byte is defined.
        resident += pages.raw.translate(_ODD_TO_ONE).count(1)
    return PageCount(resident, None)


PROBES: dict[Probe, Callable[[int, int], PageCount]] = {"cachestat": _cachestat, "mincore": _mincore}
"""Count the pages of an open file of a size in bytes; raise PermissionError where it belongs to someone else."""


def _failure() -> OSError:
    code = ctypes.get_errno()
    return _foreign() if code == errno.EPERM else OSError(code, os.strerror(code))


def _foreign() -> PermissionError:
    return PermissionError(
        errno.EPERM, "holds files of another user, of which the kernel tells nothing; prepare it as the one who runs"
    )


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    return libc
