"""Raw data that consists of files to be decoded: pictures and sounds, in order, on all cores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.source import Origin, RawData, SampleBlock, Schema, Skipped, SourceError, Split

from .parallel import in_order

_BLOCK_BYTES = 8 << 20
_BLOCK_SAMPLES = 256  # whoever wants only the first few should not wait for many
_GROUP_BYTES = 4 << 20
# Together their paths must fit a socket's buffer: nobody reads it while a worker sends results.
_GROUP_ITEMS = 32


class Item(Protocol):
    """Something that decodes to one or more samples of one class."""

    @property
    def label(self) -> int:
        """The class of its samples."""

    @property
    def name(self) -> str:
        """What to call it in a message: for a file its path."""

    def state(self) -> str:
        """Return text that changes whenever the samples might; reads no content."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of samples of one class."""

    path: str
    label: int

    @property
    def name(self) -> str:
        """See Item.name."""
        return self.path

    def state(self) -> str:
        """See Item.state."""
        try:
            stat = Path(self.path).stat()
        except OSError as error:
            # A link to nowhere: whoever decodes it says so, or leaves it out.
            return f"none: {error.strerror}"
        # Inode and time of change tell copies apart whose sizes and modification times are the same.
        times = f"{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_dev}:{stat.st_ino}"
        return f"{stat.st_size}:{times}"


@dataclass(frozen=True)
class Decoding:
    """How items become samples: ``decode(item)`` returns ``(n, *shape)`` of ``dtype``, n ≥ 1.

    ``decode`` travels by pickle, and its ``repr`` tells one way of decoding from another; so do
    the versions of the ``libraries`` (pip names) that it uses. ``preload`` names modules to be
    imported once for all workers. ``samples_per_item`` is None where only decoding tells;
    then ``estimate(items)`` says how many samples to expect of them.
    """

    decode: Callable[[Any], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: str
    libraries: tuple[str, ...]
    preload: tuple[str, ...]
    samples_per_item: int | None = 1
    estimate: Callable[[Sequence[Any]], int] | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a set apart from its files."""

    name: str
    classes: tuple[str, ...]
    licence: str
    origin: Origin


@dataclass
class DecodedFiles(RawData):
    """Items of each split, in the order of their samples, decoded on all cores.

    With ``skip_bad``, what cannot be decoded is left out and listed; otherwise it is an error.
    """

    costly: ClassVar[bool] = True

    facts: Facts
    items: Mapping[Split, Sequence[Item]]
    decoding: Decoding
    skip_bad: bool = False
    _skipped: dict[Split, list[Skipped]] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """See RawData.fingerprint."""
        digest = hashlib.sha256(repr(self.facts.classes).encode(errors="surrogateescape"))
        for split, items in self.items.items():
            for item in items:
                digest.update(f"{split} {item.label} {item.state()}\n".encode(errors="surrogateescape"))
        libraries = " ".join(f"{name}={version(name)}" for name in self.decoding.libraries)
        decode = f"{self.decoding.decode!r} {self.decoding.shape} {self.decoding.dtype}"
        return f"{self.facts.name} {decode} {libraries} skip_bad={self.skip_bad} {digest.hexdigest()}"

    def schema(self, split: Split) -> Schema:
        """See RawData.schema."""
        items, decoding = self._items(split), self.decoding
        each = decoding.samples_per_item
        count = decoding.estimate(items) if decoding.estimate is not None else len(items) * (each or 1)
        return Schema(
            name=self.facts.name,
            split=split,
            count=count,
            shape=decoding.shape,
            dtype=decoding.dtype,
            classes=self.facts.classes,
            licence=self.facts.licence,
            origin=self.facts.origin,
            exact=each is not None and not self.skip_bad,
        )

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        """See RawData.samples."""
        items = self._items(split)
        skipped = self._skipped[split] = []
        decoding = self.decoding
        sample_bytes = int(np.prod(decoding.shape, dtype=np.int64)) * np.dtype(decoding.dtype).itemsize
        item_bytes = max(1, sample_bytes * (decoding.samples_per_item or 1))
        results = in_order(
            decoding.decode,
            items,
            # Small enough for all workers to have something to do, large enough for few messages.
            group=max(1, min(_GROUP_ITEMS, _GROUP_BYTES // item_bytes, 1 + len(items) // 16)),
            preload=decoding.preload,
        )
        # Closed here, so that the workers end with whoever reads the samples.
        with closing(results):
            yield from self._blocks(items, results, skipped)
        if len(skipped) == len(items):
            raise SourceError(f"{self.facts.name} {split}: none of its {len(items)} files can be decoded.")

    def _blocks(
        self, items: Sequence[Item], results: Iterable[NDArray[Any] | SourceError], skipped: list[Skipped]
    ) -> Iterator[SampleBlock]:
        parts: list[NDArray[Any]] = []
        labels: list[NDArray[np.int64]] = []
        held = held_bytes = 0
        for item, result in zip(items, results, strict=True):
            if isinstance(result, SourceError):
                if parts:
                    # First what came before: whoever wanted no more never hears of this file.
                    yield SampleBlock(np.concatenate(parts), np.concatenate(labels))
                    parts, labels, held, held_bytes = [], [], 0, 0
                reason, name = str(result).rstrip("."), _printable(item.name)
                if not self.skip_bad:
                    raise SourceError(f"{name} cannot be used: {reason}. Repair it, remove it, or use --skip-bad.")
                skipped.append(Skipped(name, reason))
                continue
            parts.append(result)
            labels.append(np.full(len(result), item.label, np.int64))
            held += len(result)
            held_bytes += result.nbytes
            if held_bytes >= _BLOCK_BYTES or held >= _BLOCK_SAMPLES:
                yield SampleBlock(np.concatenate(parts), np.concatenate(labels))
                parts, labels, held, held_bytes = [], [], 0, 0
        if parts:
            yield SampleBlock(np.concatenate(parts), np.concatenate(labels))

    def has(self, split: Split) -> bool:
        """See RawData.has."""
        return bool(self.items.get(split))

    def skipped(self, split: Split) -> tuple[Skipped, ...]:
        """See RawData.skipped."""
        return tuple(self._skipped.get(split, ()))

    def _items(self, split: Split) -> Sequence[Item]:
        items = self.items.get(split)
        if not items:
            has = ", ".join(name for name, found in self.items.items() if found) or "no samples at all"
            raise SourceError(f"{self.facts.name} has no {split} samples here; it has: {has}.")
        return items


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
