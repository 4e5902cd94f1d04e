"""Source and backend become a verified store in the cache.

Atomic (built aside, renamed), locked between processes, streaming, and believed only
after every sample has been read back through the backend and hashed.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import registry
from bench.contracts.backend import Backend
from bench.contracts.errors import BenchError
from bench.contracts.source import DataSource, Progress, SampleBlock, SourceError
from bench.measure import memory
from bench.specs.spec import DataSpec, StoreSpec, content_hash
from bench.stores import digest, store
from bench.stores.store import Store, StoreError
from bench.stores.truth import Truth, read, truth_of
from bench.stores.verification import Verification, read_back


class UnsupportedError(BenchError):
    """A backend that cannot hold this data set under these options."""


def prepare(
    spec: StoreSpec,
    data_dir: Path,
    search: tuple[Path, ...],
    progress: Progress,
    *,
    repair: bool = False,
    rebuild: bool = False,
) -> Store:
    """Return a verified store for ``spec``, building it if there is none.

    ``repair`` allows replacing a damaged store, ``rebuild`` replaces an intact one too.

    Raises:
        SourceError: the raw data is missing, damaged or unavailable.
        UnsupportedError: the backend cannot hold this data.
        StoreError: a damaged store is there, the read-back differs, or the disk is full.
    """
    with disk_errors(data_dir):
        backend = spec.open_backend()
        source = _prepared(spec, data_dir, search, progress)
        truth = truth_of(source, spec, data_dir, progress)
        reason = backend.unsupported(truth.schema)
        if reason is not None:
            raise UnsupportedError(f"{backend.name} cannot hold {spec.dataset}: {reason}")
        path = _path(spec, data_dir, backend, truth)
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.locked(path, f"preparing {path.name}", progress):
            for leftover in path.parent.glob(f"{store.BUILD_PREFIX}{path.name}*"):
                shutil.rmtree(leftover)
            if path.exists():
                if not rebuild:
                    found = _intact(path, backend, truth, progress, repair=repair)
                    if found is not None:
                        # The same samples may come from elsewhere now, with other files left out.
                        return replace(found, manifest=found.manifest.model_copy(update={"decoding": truth.decoding}))
                store.remove_tree(path)
            return _build(spec, backend, source, truth, path, progress)


def extent(spec: DataSpec, data_dir: Path, search: tuple[Path, ...], progress: Progress) -> tuple[int, int]:
    """Return the number of samples and the bytes of one; fetches the raw data where that is needed.

    Where only decoding shows how many there are, they are decoded, and kept.
    """
    with disk_errors(data_dir):
        source = _prepared(spec, data_dir, search, progress)
        schema = source.schema(spec.split)
        if not schema.exact:
            schema = truth_of(source, spec, data_dir, progress).schema
    return min(schema.count, spec.limit or schema.count), schema.sample_bytes


def verify(spec: StoreSpec, data_dir: Path, search: tuple[Path, ...], progress: Progress) -> tuple[Store, Verification]:
    """Read a whole store and compare it with its source. Raises StoreError when there is none."""
    with disk_errors(data_dir):
        backend = spec.open_backend()
        source = _prepared(spec, data_dir, search, progress)
        truth = read(source, spec, progress)
        path = _path(spec, data_dir, backend, truth)
        found = store.load_store(path)
        if found is None:
            raise StoreError(
                f"No {backend.name} store of {spec.dataset} with these options in {data_dir}. "
                "Build it with `bench prepare`."
            )
        _require_same(found, truth)
        lossy = backend.capabilities.lossy
        expected = found.hashes() if lossy else truth.hashes
        originals = truth.samples(source) if lossy else None
        return found, read_back(backend, found.root, truth.schema, expected, originals, progress)


def _prepared(spec: DataSpec, data_dir: Path, search: tuple[Path, ...], progress: Progress) -> DataSource:
    source = spec.open_source(search)
    source.prepare(data_dir, progress)
    return source


def _path(spec: StoreSpec, data_dir: Path, backend: Backend[Any], truth: Truth) -> Path:
    schema = truth.schema
    data = [spec.dataset_name, spec.dataset_options, spec.split, schema.origin, list(schema.classes), truth.digest]
    # The digest is of bytes alone, which arrays of another shape or type may have as well; of images and sounds, what
    # the data set can be asked for says both.
    known = registry.dataset_class(spec.dataset_name).content is not None
    kind: list[Any] = [] if known else [list(schema.shape), schema.dtype]
    versions: list[Any] = [backend.format_version, store.FORMAT_VERSION]
    # What another version of an outsider's package wrote is not what this one writes.
    versions += sorted(registry.packages(backend.name).items())
    key = content_hash([*data, *kind, backend.name, _written_options(spec, backend), *versions])
    return store.store_path(data_dir, spec.dataset_name, backend.name, key)


def _written_options(spec: StoreSpec, backend: Backend[Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.options.items() if key not in backend.read_options}


def _intact(path: Path, backend: Backend[Any], truth: Truth, progress: Progress, *, repair: bool) -> Store | None:
    """Return the store if it is intact, None if it is damaged and may be replaced; else raise StoreError."""
    try:
        found = store.load_store(path)
        if found is None:
            return None
        _require_same(found, truth)
        state = store.files_state(found.root)
        if state.id == found.manifest.files_id:
            return replace(found, allocated_bytes=state.allocated_bytes)
        result = read_back(backend, found.root, truth.schema, found.hashes(), None, progress)
        if result.problem is not None:
            raise StoreError(store.damaged(path, result.problem))
    except StoreError:
        if repair:
            return None
        raise
    # Same bytes under new modification times, as after a copy of the cache. What lies beside them now takes room, too,
    # as a reader's own index does.
    changed = {"files_id": state.id, "size_bytes": state.size_bytes, "file_count": state.file_count}
    manifest = found.manifest.model_copy(update=changed)
    store.write_manifest(path, manifest)
    return Store(path, manifest, allocated_bytes=state.allocated_bytes)


def _require_same(found: Store, truth: Truth) -> None:
    """Raise StoreError unless manifest and hashes belong to what the source delivers."""
    known, schema = found.manifest, truth.schema
    same = (known.count, known.shape, known.dtype, known.source_digest) == (
        schema.count,
        schema.shape,
        schema.dtype,
        truth.digest,
    )
    if not same or len(found.hashes()) != schema.count:
        raise StoreError(store.damaged(found.path, "its manifest does not describe this data"))


def _build(
    spec: StoreSpec, backend: Backend[Any], source: DataSource, truth: Truth, path: Path, progress: Progress
) -> Store:
    schema = truth.schema
    building = path.with_name(f"{store.BUILD_PREFIX}{path.name}-{os.getpid()}")
    root = building / "data"
    root.mkdir(parents=True)
    try:
        progress.start(f"writing {spec.dataset} as {backend.name}", schema.count, "samples")
        baseline_bytes = memory.current_rss_bytes()
        memory.reset_peak_rss()
        samples = _Timed(_watched(truth.samples(source), progress))
        started = time.perf_counter()
        backend.write(samples, schema, root)
        store.sync_tree(root)
        written_s = time.perf_counter() - started
        peak_bytes = memory.peak_rss_bytes()
        progress.finish()
        lossy = backend.capabilities.lossy
        expected = None if lossy else truth.hashes
        originals = truth.samples(source) if lossy else None
        result = read_back(backend, root, schema, expected, originals, progress)
        if result.problem is not None:
            if source.fingerprint() != truth.fingerprint:
                raise SourceError(f"{spec.dataset} has changed while it was read. Run again once nobody writes to it.")
            raise StoreError(
                f"{backend.name} does not give {spec.dataset} back as it was written: {result.problem}. "
                "The store was discarded."
            )
        state = store.files_state(root)
        np.save(building / "hashes.npy", result.hashes)
        np.savez(building / "labels.npz", y=result.labels)
        manifest = store.Manifest(
            key=path.name.removeprefix(f"{backend.name}-"),
            dataset=spec.dataset_name,
            split=schema.split,
            count=schema.count,
            shape=schema.shape,
            dtype=schema.dtype,
            classes=schema.classes,
            licence=schema.licence,
            origin=schema.origin,
            source_digest=truth.digest,
            store_digest=digest.split_digest(result.hashes),
            backend=backend.name,
            options=backend.resolved(schema).model_dump(mode="json", exclude=set(backend.read_options)),
            size_bytes=state.size_bytes,
            file_count=state.file_count,
            files_id=state.id,
            prepare_s=written_s - samples.source_s,
            verify_s=result.read_s,
            prepare_peak_rss_bytes=peak_bytes,
            prepare_baseline_rss_bytes=baseline_bytes,
            content=truth.content,
            decoding=truth.decoding,
            lossy=store.LossInfo(psnr_db=result.psnr_db) if result.psnr_db is not None else None,
        )
        store.sync_file(building / "hashes.npy")
        store.sync_file(building / "labels.npz")
        store.write_manifest(building, manifest)
        building.rename(path)
        store.sync_file(path.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    built_s = written_s + result.read_s
    return Store(path, manifest, built=True, built_s=built_s, allocated_bytes=state.allocated_bytes)


class _Timed:
    """Hands samples to a backend; ``source_s`` is how long the thread that writes waited for the source.

    Another thread of the backend's may take them while this one writes. That time is not counted: it is not known to
    be time in which nothing was written, and taken off it could leave less than the writing took, or less than none.
    """

    def __init__(self, blocks: Iterator[SampleBlock]) -> None:
        self._blocks = blocks
        self._writer = threading.get_ident()
        self.source_s = 0.0

    def __iter__(self) -> Iterator[SampleBlock]:
        return self

    def __next__(self) -> SampleBlock:
        started = time.perf_counter()
        try:
            return next(self._blocks)
        finally:
            if threading.get_ident() == self._writer:
                self.source_s += time.perf_counter() - started


def _watched(blocks: Iterable[SampleBlock], progress: Progress) -> Iterator[SampleBlock]:
    for block in blocks:
        yield block
        progress.advance(len(block.y))


@contextmanager
def disk_errors(data_dir: Path) -> Iterator[None]:
    """Turn what a disk refuses into one line for the user; raises StoreError."""
    try:
        yield
    except OSError as error:
        # h5py reports a full disk as an OSError without errno, with the text of strerror inside.
        if error.errno in {errno.ENOSPC, errno.EDQUOT} or os.strerror(errno.ENOSPC) in str(error):
            raise StoreError(
                f"No space left on the disk of {data_dir}. Free some, run `bench clean`, or choose another --data-dir."
            ) from error
        place = f": {error.filename}" if error.filename else ""
        raise StoreError(f"{error.strerror or error}{place}. Check --data-dir (now {data_dir}).") from error
