"""The page cache of a store's files: how much of them is in memory, and bringing that about without root.

The states are proved, never assumed: the kernel's advice to drop pages (posix_fadvise(2)) tells nothing about
success. Dirty pages stay, and so do pages of a mapping that some process has touched, so whatever read the
store must have closed it.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from bench.contracts.errors import BenchError
from bench.measure import file_systems, mounts

CacheState = Literal["as-is", "warm", "cold"]
Achieved = Literal["verified", "not-achieved", "unverifiable", "impossible"]

COLD_AT_MOST = 0.01
"""Share of a store's pages that may be in memory when it is called cold."""

WARM_AT_LEAST = 0.99
"""Share of a store's pages that must be in memory when it is called warm."""

METADATA_STAYS = "file names and inodes stayed cached: only dropping all caches, as root, evicts them"

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_RETRY_AFTER_S = 0.2


class PageCacheError(BenchError):
    """All caches were to be dropped, and the system does not allow it."""


@dataclass(frozen=True, slots=True)
class Residency:
    """How much of a store is in memory; ``dirty_pages`` are not written yet, None where that is unknown."""

    size_bytes: int
    page_count: int
    resident_pages: int
    dirty_pages: int | None

    @property
    def fraction(self) -> float:
        """Share of the pages that are in memory, 0…1; 0 for a store without any."""
        return self.resident_pages / self.page_count if self.page_count else 0.0

    @property
    def resident_bytes(self) -> int:
        """Bytes of memory that the pages take: the last page of a file counts whole."""
        return self.resident_pages * mmap.PAGESIZE


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of an attempt to bring about a state.

    ``achieved`` is None for ``as-is``; ``fraction`` is the share of the pages in memory afterwards, None where
    unknown. ``reason`` says why it is not ``verified`` and what to do; ``note`` what the state does not cover.
    """

    state: CacheState
    achieved: Achieved | None
    fraction: float | None
    reason: str | None
    note: str | None = None


class PageCache:
    """The page cache as far as it concerns the files below ``root``, the folder of a store.

    ``probe`` is the system call that counts pages, chosen by the type of the file system and tried out on a
    file beside the store; None where there is none to trust, and ``reason`` says why. Regular files and links
    to such are looked at, links to folders are not followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.probe: file_systems.Probe | None = None
        self.reason: str | None = None
        self._type: str | None = None
        try:
            mount = mounts.mount_of(root)
            self._type = mount.type if mount is not None else None
            self.probe, self.reason = file_systems.choose_probe(root, self._type)
        except OSError as error:
            self.reason = self._problem(error)

    def _problem(self, error: OSError) -> str:
        # Reasons go into records, which are published: no folders of the user.
        place = os.path.relpath(error.filename, self.root) if error.filename else "."
        return f"{'the store' if place == '.' else place}: {error.strerror}"

    def residency(self) -> Residency | None:
        """Count the pages of all files; None where that cannot be told, and ``reason`` says why."""
        if self.probe is None:
            return None
        count = file_systems.PROBES[self.probe]
        size_bytes = page_count = resident = 0
        dirty: int | None = 0
        try:
            for descriptor, size in _opened(self.root):
                found = count(descriptor, size)
                size_bytes += size
                page_count += file_systems.page_count(size)
                resident += found.resident
                dirty = None if dirty is None or found.dirty is None else dirty + found.dirty
        except OSError as error:
            self.reason = self._problem(error)
            return None
        return Residency(size_bytes, page_count, resident, dirty)

    def bring(self, state: CacheState, *, drop_all: bool = False) -> Brought:
        """Bring the store's files into a state of the page cache, and look what became of it.

        ``cold`` writes out dirty pages and drops all. With len=0, the kernel also drops the incomplete last
        page of a file, so none are allowed for. ``drop_all`` drops all caches of the machine in addition, with
        names and inodes. ``warm`` reads what is not in memory.

        Raises:
            PageCacheError: ``drop_all``, and this process may not.
        """
        if state == "warm":
            return self._warm()
        if state == "cold":
            return self._cold(drop_all)
        found = self.residency()
        return Brought(state, None, found.fraction if found else None, None if found else self.reason)

    def _cold(self, drop_all: bool) -> Brought:
        if self._type in file_systems.IN_MEMORY:
            found = self.residency()
            reason = f"the files of {self._type} live in memory: put the data directory on a disk (--data-dir)"
            return Brought("cold", "impossible", found.fraction if found else None, reason)
        found = self._evict()
        if found is not None and not _is_cold(found):
            time.sleep(_RETRY_AFTER_S)
            found = self._evict()
        if drop_all:
            # After the look: opening the files again would bring their names and inodes back.
            _drop_everything()
        note = None if drop_all else METADATA_STAYS
        if found is None:
            return Brought("cold", "unverifiable", None, self.reason, note)
        if not _is_cold(found):
            reason = (
                f"{_span([found.fraction])} of the store stayed in memory: some process has it open or mapped, or is "
                f"writing it; end that process (fuser names it) and run again"
            )
            return Brought("cold", "not-achieved", found.fraction, reason, note)
        unseen = file_systems.unseen_cache(self._type)
        return Brought("cold", "unverifiable" if unseen else "verified", found.fraction, unseen, note)

    def _evict(self) -> Residency | None:
        if not hasattr(os, "posix_fadvise"):
            return None
        try:
            for descriptor, size in _opened(self.root):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                if self._resident(descriptor, size) != 0:
                    # Dirty pages have to be written first. Doing so only now spares clean files the flush.
                    os.fsync(descriptor)
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            self.reason = self._problem(error)
            return None
        return self.residency()

    def _resident(self, descriptor: int, size: int) -> int | None:
        """Count the pages of one file; None where that cannot be told."""
        if self.probe is None:
            return None
        try:
            return file_systems.PROBES[self.probe](descriptor, size).resident
        except PermissionError:
            return None

    def _warm(self) -> Brought:
        found = self._read_missing()
        if found is not None and not _is_warm(found):
            found = self._read_missing()
        if found is None:
            return Brought("warm", "unverifiable", None, self.reason)
        note = file_systems.unseen_cache(self._type)
        if _is_warm(found):
            return Brought("warm", "verified", found.fraction, None, note)
        return Brought("warm", "not-achieved", found.fraction, _why_not_warm(found), note)

    def _read_missing(self) -> Residency | None:
        buffer = bytearray(1 << 20)
        try:
            for descriptor, size in _opened(self.root):
                if self._resident(descriptor, size) != file_systems.page_count(size):
                    while os.readv(descriptor, [buffer]):
                        pass
        except OSError as error:
            self.reason = self._problem(error)
            return None
        return self.residency()


def judge(
    asked: CacheState,
    epochs: Sequence[tuple[Brought, float | None]],
    *,
    probe: str | None,
    on_block_device: bool | None,
    needed_share: float = 0.95,
    in_epochs: Sequence[float | None] = (),
) -> tuple[Achieved | None, str]:
    """Form the verdict over all counted epochs, and say in a sentence what it rests on.

    What was read from storage is a second proof, independent of the probe: after ``cold`` all of it must come
    from there, after ``warm`` nothing.

    Args:
        asked: The state that was asked for.
        epochs: For each, what became of the attempt before it, and the bytes it then read from storage, opening
            included, as a share of the store's bytes; None where unknown.
        probe: The name of the probe.
        on_block_device: Whether the kernel counts these reads; None where unknown.
        needed_share: The share that a cold epoch must read; less than the default where it needs less of the store.
        in_epochs: The part of these shares that was read in the epoch itself. Where that is less than half, what an
            epoch needs was brought into memory while the store was opened, and the epoch was not a cold one.
    """
    attempts = [attempt for attempt, _ in epochs]
    if any(attempt.state != asked for attempt in attempts):
        raise ValueError(f"not all attempts are at {asked}")
    count = f"each of {len(epochs)} epochs" if len(epochs) != 1 else "the epoch"
    seen = f"{probe}: {_span([attempt.fraction for attempt in attempts])} of the store in memory before {count}"
    if asked == "as-is":
        return None, seen if any(attempt.fraction is not None for attempt in attempts) else "left as it was, not seen"
    if not epochs:
        return "unverifiable", "no epoch was counted"
    failures: tuple[Achieved, ...] = ("impossible", "unverifiable", "not-achieved")
    for failure in failures:
        failed = [attempt.reason for attempt in attempts if attempt.achieved == failure]
        if failed:
            return failure, f"before {len(failed)} of {len(epochs)} epochs: {failed[0]}"
    notes = "".join(f"; {note}" for note in dict.fromkeys(attempt.note for attempt in attempts) if note)
    shares = [share for _, share in epochs]
    achieved, reads = _second_proof(asked, shares, on_block_device, needed_share)
    if achieved == "verified" and asked == "cold" and _read_before(shares, in_epochs):
        achieved, reads = (
            "not-achieved",
            (f"yet of {reads} the epochs themselves read {_span(in_epochs)}: what opened the store holds it in memory"),
        )
    return achieved, f"{seen}; {reads}{notes}"


def _read_before(shares: Sequence[float | None], in_epochs: Sequence[float | None]) -> bool:
    known = [pair for pair in zip(shares, in_epochs, strict=False) if None not in pair]
    return any(own < share / 2 for share, own in known if share is not None and own is not None)


def _second_proof(
    asked: CacheState, shares: list[float | None], on_block_device: bool | None, needed_share: float
) -> tuple[Achieved, str]:
    known = [share for share in shares if share is not None]
    read = f"{_span(known)} of its bytes then read from storage"
    if asked == "warm" and any(share > COLD_AT_MOST for share in known):
        return "not-achieved", f"yet {read}: it was evicted meanwhile, or something beside the store was read"
    if asked == "cold" and on_block_device and any(share < needed_share for share in known):
        return "not-achieved", (
            f"yet only {read}, of {100 * needed_share:.0f} % at least: other caches served the data, the reads "
            f"bypassed the counter, or the file system compresses"
        )
    if not on_block_device:
        return "verified", "by the probe alone, as reads are not known to reach a block device here"
    if len(known) < len(shares):
        return "verified", "by the probe alone, as what was read from storage is not known of every epoch"
    return "verified", read


def _span(shares: Sequence[float | None]) -> str:
    known = [share for share in shares if share is not None]
    if not known:
        return "an unknown share"
    low, high = (f"{100 * share:.1f}" for share in (min(known), max(known)))
    return f"{low} %" if low == high else f"{low}…{high} %"


def _is_cold(found: Residency) -> bool:
    return found.resident_pages <= COLD_AT_MOST * found.page_count


def _is_warm(found: Residency) -> bool:
    return found.resident_pages >= WARM_AT_LEAST * found.page_count


def _why_not_warm(found: Residency) -> str:
    available_bytes = psutil.virtual_memory().available
    share = f"only {_span([found.fraction])} of the store stayed in memory"
    if found.size_bytes > available_bytes:
        sizes = f"its {found.size_bytes / 1e6:,.0f} MB are more than the {available_bytes / 1e6:,.0f} MB available"
        return f"{share}: {sizes}; take fewer samples (--limit)"
    return f"{share}: other programs, or a memory limit on this one, pushed the rest out; end them or lift it"


def _drop_everything() -> None:
    os.sync()
    try:
        _DROP_CACHES.write_text("3")
    except OSError as error:
        raise PageCacheError(
            f"cannot drop all caches: {_DROP_CACHES}: {error.strerror}; it takes root, outside of a container"
        ) from error


def _opened(folder: Path | str) -> Iterator[tuple[int, int]]:
    """Yield a descriptor and the size in bytes of each file below ``folder``; it is closed when the next is due."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _opened(entry.path)
            elif entry.is_file():
                descriptor = os.open(entry.path, os.O_RDONLY)
                try:
                    yield descriptor, os.fstat(descriptor).st_size
                finally:
                    os.close(descriptor)
