"""What can be removed from the cache: stores, decoded samples, leftovers of builds, downloads and what was unpacked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from bench import registry
from bench.contracts.errors import BenchError
from bench.stores import store
from bench.stores.prepare import disk_errors


@dataclass(frozen=True, slots=True)
class Doomed:
    """Something that may be removed, and what it takes of the disk."""

    path: Path
    disk_bytes: int


def find(data_dir: Path, backend: str | None, dataset: str | None, *, downloads: bool) -> list[Doomed]:
    """Return what matches. Raises UnknownNameError for names that match nothing known and nothing found."""
    with disk_errors(data_dir):
        stores = [path for path, _ in store.find_stores(data_dir)]
        _require_known("backend", backend, [*registry.backends(), *(path.name.rpartition("-")[0] for path in stores)])
        _require_known("data set", dataset, [*registry.datasets(), *(path.parent.name for path in stores)])
        return [Doomed(path, _disk_bytes(path)) for path in _matching(data_dir, stores, backend, dataset, downloads)]


def _matching(
    data_dir: Path, stores: list[Path], backend: str | None, dataset: str | None, downloads: bool
) -> Iterator[Path]:
    for path in [*stores, *store.find_leftovers(data_dir)]:
        kept = path.name.removeprefix(store.BUILD_PREFIX)
        if dataset in {None, _dataset_of(path)} and (backend is None or kept.startswith(f"{backend}-")):
            yield path
    if backend is None:
        for path, name in store.find_sources(data_dir):
            if dataset in {None, name} and ".part-" not in path.name:
                yield path
    if downloads:
        for name in registry.datasets() if dataset is None else [dataset]:
            for archive in _downloads(name):
                for suffix in ("", ".part", ".sha256"):
                    path = data_dir / "downloads" / f"{archive}{suffix}"
                    if path.is_file():
                        yield path
            for path in sorted((data_dir / "raw").glob(f"{name}-*")):
                if path.is_dir() and re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", path.name):
                    yield path


def _dataset_of(path: Path) -> str:
    """Return the data set of a store, of a build, or of an unfinished reading of raw data."""
    return path.name.split(".part-")[0][:-17] if ".part-" in path.name else path.parent.name


def _downloads(dataset: str) -> tuple[str, ...]:
    try:
        return registry.dataset_class(dataset).downloads
    except BenchError:
        # A plug-in that cannot be loaded, or one that is gone: nothing is known of its files.
        return ()


def remove(item: Doomed) -> int:
    """Remove an item and return the bytes freed: none if it is being built or downloaded right now, or is gone by now.

    Raises StoreError where the disk refuses.
    """
    whole = item.path.with_name(item.path.name.removesuffix(".part").removesuffix(".sha256"))
    lock = store.lock_path(whole)
    try:
        # What has no lock was put there by hand.
        with FileLock(lock).acquire(timeout=0) if item.path.is_dir() or lock.exists() else nullcontext():
            store.remove_tree(item.path)
    except (Timeout, FileNotFoundError):
        return 0
    except OSError as error:
        raise store.StoreError(f"{item.path} cannot be removed: {error.strerror}. Check its folder.") from error
    return item.disk_bytes


def _require_known(kind: str, name: str | None, known: list[str]) -> None:
    if name is not None and name not in known:
        raise registry.UnknownNameError(registry.unknown(kind, name, sorted(set(known))))


def _disk_bytes(path: Path) -> int:
    if path.is_file():
        found = path.stat()
        return found.st_blocks * store.BLOCK_BYTES or found.st_size
    try:
        state = store.files_state(path)
    except FileNotFoundError:
        # Another process is removing it.
        return 0
    return state.allocated_bytes or state.size_bytes
