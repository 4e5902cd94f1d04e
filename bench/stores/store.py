"""Prepared stores in the cache: where they lie, what is known of them, whether they are intact.

A store is a folder ``<data dir>/stores/<data set>/<backend>-<key>/`` with the backend's
files under ``data/``, a hash per sample in ``hashes.npy``, the labels in ``labels.npz`` and
``manifest.json``, written last. A build happens in a folder of another name and is renamed
into place, so a folder of this name is complete.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.contracts.errors import BenchError
from bench.contracts.locks import held
from bench.contracts.source import Origin, Progress, Split
from bench.stores.content import Content, Decoding
from bench.stores.digest import Hashes, split_digest

FORMAT_VERSION = 3
"""Raised when the layout of the store folder or the meaning of the manifest changes."""

BUILD_PREFIX = ".building-"
BLOCK_BYTES = 512
"""The unit of ``st_blocks``, whatever the blocks of the file system are."""

_STORE_NAME = re.compile(r"[^/.][^/]*-[0-9a-f]{16}")
_LEFTOVER_NAME = re.compile(re.escape(BUILD_PREFIX) + _STORE_NAME.pattern + r"(\.removed)?-[0-9]+")
_SOURCE_NAME = re.compile(r"([^/.][^/]*)-[0-9a-f]{16}(\.part-[0-9]+)?")


class StoreError(BenchError):
    """A store that is missing, damaged, or cannot be written."""


class LossInfo(BaseModel):
    """How far a lossy store is from its source."""

    # An infinite PSNR, of a lossy store that lost nothing, has to survive JSON.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")
    psnr_db: float


class Manifest(BaseModel):
    """What is known of a store since it was built; ``prepare_s`` leaves out the time that the source took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    dataset: str
    split: Split
    count: int
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...]
    licence: str
    origin: Origin
    source_digest: str
    store_digest: str
    backend: str
    options: dict[str, Any]
    size_bytes: int
    file_count: int
    files_id: str
    prepare_s: float
    verify_s: float
    prepare_peak_rss_bytes: int
    prepare_baseline_rss_bytes: int
    content: Content
    decoding: Decoding
    lossy: LossInfo | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """A complete store on disk."""

    path: Path
    manifest: Manifest
    built: bool = False
    """Whether it has only just been written."""

    built_s: float = 0.0
    """What writing it just now and reading it back took, the source's part included; 0 where it was there already."""

    allocated_bytes: int | None = None
    """What its data take of the disk, seen when it was built or found; None where the file system does not tell."""

    @property
    def disk_bytes(self) -> int:
        """What its data take of the disk as far as that is known, else their size."""
        return self.allocated_bytes or self.manifest.size_bytes

    @property
    def root(self) -> Path:
        """The folder that the backend wrote and opens."""
        return self.path / "data"

    @property
    def hashes_path(self) -> Path:
        """The file of hashes."""
        return self.path / "hashes.npy"

    def hashes(self) -> Hashes:
        """Return the hash of each sample as this store has to deliver it, ``(count,)`` uint64. Raises StoreError."""
        hashes = load_hashes(self.hashes_path, self.manifest.store_digest)
        if hashes is None:
            raise StoreError(damaged(self.path, "its list of hashes is not what was written"))
        return hashes


@dataclass(frozen=True, slots=True)
class FilesState:
    """Names, sizes and times of change of a folder's files, condensed.

    ``allocated_bytes`` is what the files and folders take of the disk, in whole blocks, as ``du`` counts them; None
    where the file system does not tell. On some, files that were just written have blocks only once they are synced.
    """

    id: str
    size_bytes: int
    allocated_bytes: int | None
    file_count: int


def files_state(root: Path) -> FilesState:
    """Return the state of all files under ``root``; reads no file content."""
    state = xxhash.xxh3_128()
    size_bytes = file_count = 0
    blocks = root.stat().st_blocks
    for name, found in _walk(os.fspath(root), ""):
        blocks += found.st_blocks
        if stat.S_ISDIR(found.st_mode):
            continue
        # The time of change, unlike that of modification, cannot be set back.
        state.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\n".encode())
        size_bytes += found.st_size
        file_count += 1
    return FilesState(state.hexdigest(), size_bytes, blocks * BLOCK_BYTES or None, file_count)


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")


def stores_folder(data_dir: Path) -> Path:
    """Return the folder of all stores."""
    return data_dir / "stores"


def sources_folder(data_dir: Path) -> Path:
    """Return the folder of what is known of raw data, decoded samples included."""
    return data_dir / "sources"


@contextmanager
def locked(path: Path, work: str, progress: Progress) -> Iterator[None]:
    """Keep other processes from building or removing ``path``; says so when it has to wait for one."""
    with held(lock_path(path), work, progress):
        yield


def store_path(data_dir: Path, dataset: str, backend: str, key: str) -> Path:
    """Return where the store of this key lies, or would lie."""
    return stores_folder(data_dir) / dataset / f"{backend}-{key}"


def load_hashes(path: Path, expected_digest: str) -> Hashes | None:
    """Return the hashes of a split, or None where the file is not the one with this digest."""
    try:
        hashes: Hashes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    intact = hashes.ndim == 1 and hashes.dtype == np.uint64 and split_digest(hashes) == expected_digest
    return hashes if intact else None


def load_store(path: Path) -> Store | None:
    """Return the store at ``path``, or None when there is none. Raises StoreError when it is damaged."""
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise StoreError(damaged(path, "its manifest cannot be read")) from error
    store = Store(path, manifest)
    if not store.hashes_path.is_file() or not store.root.is_dir():
        raise StoreError(damaged(path, "files are missing"))
    if not path.name == f"{manifest.backend}-{manifest.key}":
        raise StoreError(damaged(path, "its manifest belongs to another store"))
    return store


def find_stores(data_dir: Path) -> Iterator[tuple[Path, Store | None]]:
    """Yield every store folder with its store, None where it is damaged. Folders of others are passed over."""
    for path in sorted(stores_folder(data_dir).glob("*/*")):
        if path.is_dir() and _STORE_NAME.fullmatch(path.name) and (path / "data").is_dir():
            try:
                yield path, load_store(path)
            except StoreError:
                yield path, None


def find_leftovers(data_dir: Path) -> list[Path]:
    """Return folders of builds that never finished, also of builds that are still running."""
    found = stores_folder(data_dir).glob(f"*/{BUILD_PREFIX}*")
    builds = [path for path in found if path.is_dir() and _LEFTOVER_NAME.fullmatch(path.name)]
    unpackings = [path for path in (data_dir / "raw").glob("*.part-*") if path.is_dir() and _is_source(path)]
    return sorted([*builds, *unpackings, *(path for path, _ in find_sources(data_dir) if ".part-" in path.name)])


def _is_source(path: Path) -> bool:
    return _SOURCE_NAME.fullmatch(path.name) is not None


def find_sources(data_dir: Path) -> list[tuple[Path, str]]:
    """Return the folders of what is known of raw data, unfinished ones too, each with the name of its data set."""
    found = [(path, _SOURCE_NAME.fullmatch(path.name)) for path in sorted(sources_folder(data_dir).glob("*"))]
    return [(path, match[1]) for path, match in found if match is not None and path.is_dir()]


def lock_path(path: Path) -> Path:
    """Return the lock file that guards a store, also for a folder in which it is being built or removed."""
    name = _STORE_NAME.match(path.name.removeprefix(BUILD_PREFIX))
    return path.with_name(f".{name.group() if name else path.name}.lock")


def damaged(path: Path, what: str) -> str:
    """Return the one-line message about a damaged store."""
    return f"The store {path} is damaged: {what.rstrip('.')}. Rebuild it with `bench prepare` or `bench run` and --yes."


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write or replace a manifest atomically."""
    part = path / ".manifest.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path / "manifest.json")


def sync_tree(root: Path) -> None:
    """Bring a finished build to the disk."""
    files = list(root.rglob("*"))
    if len(files) > 2000:
        # One journal commit for all beats tens of thousands of them.
        os.sync()
        return
    for path in [*files, root]:
        sync_file(path)


def sync_file(path: Path) -> None:
    """Bring one file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a store or another folder of the cache, so that no moment shows a partial one under its name."""
    if path.name.startswith(BUILD_PREFIX) or ".part-" in path.name:
        doomed = path
    elif path.parent.parent.name != "stores":
        doomed = path.with_name(f"{path.name}.part-{os.getpid()}")
        path.replace(doomed)
    else:
        doomed = path.with_name(f"{BUILD_PREFIX}{path.name}.removed-{os.getpid()}")
        path.replace(doomed)
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()
