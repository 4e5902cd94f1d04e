"""What a source delivers, known once: the schema, and a hash for each sample."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench import digest
from bench.contracts.source import (
    DataSource,
    Progress,
    SampleBlock,
    Schema,
    SourceError,
    limited,
    limited_schema,
)
from bench.digest import Hashes
from bench.spec import StoreSpec, content_hash
from bench.store import load_hashes, sync_tree

HASH_VERSION = 1
"""Raised when the way samples are hashed changes."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What a source delivers: its schema, and a hash for each sample."""

    schema: Schema
    hashes: Hashes

    @property
    def digest(self) -> str:
        """Digest of the split."""
        return digest.split_digest(self.hashes)


def samples_of(source: DataSource, schema: Schema) -> Iterator[SampleBlock]:
    """Return the samples that a schema (perhaps of a limited split) stands for."""
    return limited(source.samples(schema.split), schema.count)


def truth_of(source: DataSource, spec: StoreSpec, data_dir: Path, progress: Progress, *, fresh: bool = False) -> Truth:
    """Return schema and hashes of the (prepared) source.

    They are kept in the cache until the raw data changes; ``fresh`` reads the source again.
    """
    key = content_hash([spec.dataset, spec.split, spec.limit, source.fingerprint(), HASH_VERSION])
    path = data_dir / "sources" / f"{spec.dataset}-{key}"
    kept = None if fresh else _kept(path)
    if kept is not None:
        return kept
    truth = _read(source, spec, progress)
    _keep(truth, path)
    return truth


def _kept(path: Path) -> Truth | None:
    """Return what was kept, or None where there is nothing, or nothing that can be relied on."""
    try:
        facts = json.loads((path / "schema.json").read_text())
        digest_kept = facts.pop("digest")
        facts["shape"], facts["classes"] = tuple(facts["shape"]), tuple(facts["classes"])
        schema = Schema(**facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    hashes = load_hashes(path / "hashes.npy", digest_kept)
    return None if hashes is None or len(hashes) != schema.count else Truth(schema, hashes)


def _keep(truth: Truth, path: Path) -> None:
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    np.save(part / "hashes.npy", truth.hashes)
    (part / "schema.json").write_text(json.dumps({**asdict(truth.schema), "digest": truth.digest}))
    sync_tree(part)
    shutil.rmtree(path, ignore_errors=True)
    try:
        part.rename(path)
    except OSError:
        # Another process was quicker; what it kept is as good.
        shutil.rmtree(part, ignore_errors=True)


def _read(source: DataSource, spec: StoreSpec, progress: Progress) -> Truth:
    schema = source.schema(spec.split)
    if spec.limit is not None:
        if spec.limit > schema.count:
            raise SourceError(f"--limit {spec.limit}: {spec.dataset} {spec.split} has only {schema.count} samples.")
        schema = limited_schema(schema, spec.limit)
    tap = digest.HashTap(samples_of(source, schema))
    progress.start(f"reading {spec.dataset}", schema.count, "samples")
    for block in tap:
        progress.advance(len(block.y))
    progress.finish()
    if tap.count != schema.count:
        raise SourceError(f"{spec.dataset} {spec.split}: announced {schema.count} samples but delivered {tap.count}.")
    return Truth(schema, tap.hashes)
