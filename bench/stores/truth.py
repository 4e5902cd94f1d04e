"""What a source delivers, found out once: the schema, a hash for each sample, and what is in there.

Where decoding is costly the decoded samples are kept beside it, so that every backend is
written from the same bytes without decoding again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import ValidationError

from bench.contracts.source import DataSource, Progress, SampleBlock, Schema, SourceError, limited, limited_schema
from bench.measure.memory import PeakPss
from bench.specs.spec import DataSpec, content_hash
from bench.stores import digest
from bench.stores.content import Content, ContentTally, Decoding, SkippedFile
from bench.stores.digest import Hashes
from bench.stores.store import StoreError, load_hashes, locked, sources_folder

TRUTH_VERSION = 2
"""Raised when the way samples are hashed or kept changes."""

_BLOCK_BYTES = 16 << 20
_SAMPLES, _LABELS = "samples.bin", "labels.bin"


@dataclass(frozen=True, slots=True)
class Truth:
    """What a source with this ``fingerprint`` delivers; ``folder`` holds the decoded samples where they are kept."""

    schema: Schema
    hashes: Hashes
    content: Content
    decoding: Decoding
    folder: Path | None
    fingerprint: str = ""

    @property
    def digest(self) -> str:
        """Digest of the split."""
        return digest.split_digest(self.hashes)

    def samples(self, source: DataSource) -> Iterator[SampleBlock]:
        """Yield the samples of the (perhaps limited) split: those that were kept, or else the source's own.

        Raises StoreError when those that were kept are damaged; they are removed then.
        """
        if self.folder is None:
            yield from limited(source.samples(self.schema.split), self.schema.count)
            return
        try:
            yield from _checked(_kept_samples(self.folder, self.schema), self.hashes)
        except (OSError, ValueError, _DamagedError) as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise StoreError(
                f"The decoded samples in {self.folder} were damaged and have been removed. Run again to decode anew."
            ) from error


class _DamagedError(Exception):
    """Kept samples that are not what was decoded."""


def truth_of(source: DataSource, spec: DataSpec, data_dir: Path, progress: Progress) -> Truth:
    """Return what the (prepared) source delivers; kept in the cache until raw data or options change."""
    identity = [spec.dataset_name, spec.dataset_options, spec.split, spec.limit]
    fingerprint = source.fingerprint()
    key = content_hash([*identity, fingerprint, TRUTH_VERSION])
    path = sources_folder(data_dir) / f"{spec.dataset_name}-{key}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, f"reading {spec.dataset}", progress):
        for leftover in path.parent.glob(f"{path.name}.part-*"):
            shutil.rmtree(leftover)
        kept = _kept(path, source.data.costly)
        if kept is not None:
            return replace(kept, fingerprint=fingerprint)
        part = path.with_name(f"{path.name}.part-{os.getpid()}")
        part.mkdir()
        try:
            truth = read(source, spec, progress, part if source.data.costly else None)
            _keep(truth, part)
            shutil.rmtree(path, ignore_errors=True)
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return replace(truth, folder=path if source.data.costly else None, fingerprint=fingerprint)


def read(source: DataSource, spec: DataSpec, progress: Progress, folder: Path | None = None) -> Truth:
    """Read (and so decode) all samples of the source; keep them in ``folder`` if one is given."""
    schema = source.schema(spec.split)
    if spec.limit is not None:
        if schema.exact and spec.limit > schema.count:
            raise SourceError(f"--limit {spec.limit}: {spec.dataset} {spec.split} has only {schema.count} samples.")
        schema = limited_schema(schema, min(spec.limit, schema.count) if not schema.exact else spec.limit)
    blocks = source.samples(spec.split) if spec.limit is None else limited(source.samples(spec.split), spec.limit)
    tap = digest.HashTap(blocks)
    tally = ContentTally(len(schema.classes))
    labels = [np.empty(0, np.int64)]
    progress.start(f"reading {spec.dataset}", schema.count, "samples")
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.callback(progress.finish)
        sampler = stack.enter_context(PeakPss(os.getpid()))
        baseline = sampler.sample()
        file: BinaryIO | None = stack.enter_context((folder / _SAMPLES).open("wb")) if folder else None
        for block in tap:
            tally.add(block)
            if file is not None:
                file.write(block.x.data)
                labels.append(block.y)
            progress.advance(len(block.y))
        sampler.sample()
    decode_s = time.perf_counter() - started
    if folder is not None:
        np.concatenate(labels).tofile(folder / _LABELS)
    _require_announced(spec, schema, tap.count)
    return Truth(
        replace(schema, count=tap.count, exact=True),
        tap.hashes,
        tally.result(),
        Decoding(
            decode_s=decode_s,
            peak_pss_bytes=sampler.peak.total_bytes if sampler.peak else None,
            baseline_pss_bytes=baseline.total_bytes if baseline else None,
            skipped=tuple(SkippedFile(file=s.file, reason=s.reason) for s in source.skipped(spec.split)),
        ),
        folder,
    )


def _require_announced(spec: DataSpec, schema: Schema, count: int) -> None:
    if schema.exact and count != schema.count:
        raise SourceError(f"{spec.dataset} {spec.split}: announced {schema.count} samples but delivered {count}.")
    if spec.limit is not None and count < spec.limit:
        raise SourceError(f"--limit {spec.limit}: {spec.dataset} {spec.split} has only {count} samples.")
    if count == 0:
        raise SourceError(f"{spec.dataset} {spec.split} has no samples.")


def _kept(path: Path, costly: bool) -> Truth | None:
    """Return what was kept, or None where there is nothing, or nothing that can be relied on."""
    try:
        facts = json.loads((path / "truth.json").read_text())
        schema = Schema(**{**facts["schema"], **{key: tuple(facts["schema"][key]) for key in ("shape", "classes")}})
        content = Content.model_validate(facts["content"])
        decoding = Decoding.model_validate(facts["decoding"])
        hashes = load_hashes(path / "hashes.npy", facts["digest"])
        sizes = {_SAMPLES: schema.count * schema.sample_bytes, _LABELS: schema.count * 8}
        if costly and any((path / name).stat().st_size != size for name, size in sizes.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None
    if hashes is None or len(hashes) != schema.count:
        return None
    return Truth(schema, hashes, content, decoding, path if costly else None)


def _keep(truth: Truth, part: Path) -> None:
    np.save(part / "hashes.npy", truth.hashes)
    facts = {
        "schema": asdict(truth.schema),
        "content": truth.content.model_dump(),
        "decoding": truth.decoding.model_dump(),
        "digest": truth.digest,
    }
    # Not brought to the disk: what a power cut leaves is compared with its hashes before it is used.
    (part / "truth.json").write_text(json.dumps(facts))


def _kept_samples(folder: Path, schema: Schema) -> Iterator[SampleBlock]:
    labels = np.fromfile(folder / _LABELS, np.int64)
    step = max(1, _BLOCK_BYTES // max(1, schema.sample_bytes))
    with (folder / _SAMPLES).open("rb") as file:
        for start in range(0, schema.count, step):
            count = min(step, schema.count - start)
            x = np.fromfile(file, np.dtype(schema.dtype), count * int(np.prod(schema.shape, dtype=np.int64)))
            yield SampleBlock(x.reshape(count, *schema.shape), labels[start : start + count])


def _checked(blocks: Iterator[SampleBlock], hashes: Hashes) -> Iterator[SampleBlock]:
    start = 0
    with closing(blocks):  # type: ignore[type-var]  # a generator
        for x, y in blocks:
            indices = np.arange(start, start + len(y), dtype=np.int64)
            if not np.array_equal(digest.sample_hashes(indices, x, y), hashes[start : start + len(y)]):
                raise _DamagedError
            start += len(y)
            yield SampleBlock(x, y)
