"""The contract of a data set: where samples come from, and in which shape.

A source decodes; it knows nothing of storage formats. Everything that an epoch
must not pay for (decompressing, resizing, spectrograms) happens in here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.errors import BenchError
from bench.contracts.options import Options

Split = Literal["train", "val", "test"]
Origin = Literal["official", "local", "synthetic"]
Content = Literal["images", "sounds"]


class SourceError(BenchError):
    """Raw data is missing, damaged, or not what it claims to be."""


class SourceUnavailableError(SourceError):
    """Raw data cannot be had from where it is published (offline, host gone)."""


class SampleBlock(NamedTuple):
    """Consecutive samples: ``x`` is ``(n, *shape)``, C-contiguous; ``y`` is ``(n,)`` int64."""

    x: NDArray[Any]
    y: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Schema:
    """What one split of a data set holds.

    ``shape`` is that of one sample, channel first; ``dtype`` is a NumPy name. Where
    ``exact`` is False only decoding shows how many samples there are (some files may be
    left out, or give several samples), and ``count`` is an estimate for the progress.
    """

    name: str
    split: Split
    count: int
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...]
    licence: str
    origin: Origin
    exact: bool = True

    @property
    def sample_bytes(self) -> int:
        """Size of one decoded sample without its label, in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of the raw data that could not be decoded and was left out on request."""

    file: str
    reason: str


class Progress(Protocol):
    """Where long work reports to; the command line decides how it looks."""

    def note(self, text: str) -> None:
        """Tell the user something once."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Begin a task of ``total`` units, or of None where nobody knows yet."""

    def advance(self, count: int) -> None:
        """Report ``count`` more units of the current task."""

    def finish(self) -> None:
        """End the current task."""


class SilentProgress:
    """Progress that nobody watches."""

    def note(self, text: str) -> None:
        """Ignore a message."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Ignore a task."""

    def advance(self, count: int) -> None:
        """Ignore progress."""

    def finish(self) -> None:
        """Ignore an end."""


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """Which data the user wants.

    ``kind`` is ``auto`` (found, else downloaded, else synthetic), ``official``
    (found or downloaded, else an error), ``local`` (only ``path``) or
    ``synthetic``. ``search`` lists the folders to look in, in order.
    """

    kind: Literal["auto", "official", "local", "synthetic"] = "auto"
    path: Path | None = None
    search: tuple[Path, ...] = ()


class RawData(ABC):
    """One concrete copy of a data set, ready to be read."""

    costly: ClassVar[bool] = False
    """True where decoding takes far longer than reading what was decoded: the harness then keeps
    decoded samples on disk, so that they are decoded once for all backends."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Text that changes whenever the samples might; must be cheap (no decoding)."""

    @abstractmethod
    def schema(self, split: Split) -> Schema:
        """Describe a split. Raises SourceError when the data is damaged."""

    @abstractmethod
    def samples(self, split: Split) -> Iterator[SampleBlock]:
        """Yield all samples in a fixed order, in blocks of any size above zero."""

    def has(self, split: Split) -> bool:  # noqa: ARG002  # for subclasses
        """Say whether this copy has a split at all; data of the user's own may lack some."""
        return True

    def skipped(self, split: Split) -> tuple[Skipped, ...]:  # noqa: ARG002  # for subclasses
        """Return the files that were left out; complete once ``samples`` was read to its end."""
        return ()


class Archived(ABC):
    """Raw data inside an archive that has to be unpacked before it can be read."""

    @abstractmethod
    def unpacked(self, cache: Path, progress: Progress) -> RawData:
        """Unpack into ``cache`` unless that has been done before. Raises SourceError."""


class DataSource(ABC):
    """A named data set.

    A subclass says how to find, fetch and imitate the data; this class holds the
    policy that all data sets share. Before ``prepare`` the other methods raise.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[Split, ...]]
    options_type: ClassVar[type[Options]] = Options
    """What the user may choose about the samples (size, features, fold); part of the key of every store."""

    content: ClassVar[Content | None] = None
    """What samples show, where that is known: it decides by which changes they may be augmented."""

    takes_path: ClassVar[bool] = False
    """Whether the data set is named with its place, as in ``folder:PATH``."""

    downloads: ClassVar[tuple[str, ...]] = ()
    """Names of the files that ``fetch`` may leave in ``<cache>/downloads``, for cleaning up."""

    def __init__(self, request: SourceRequest | None = None, options: Options | None = None) -> None:
        self._request = request or SourceRequest()
        self.options = options or self.options_type()
        self._data: RawData | None = None

    @abstractmethod
    def locate(self, path: Path, *, official_only: bool) -> RawData | Archived | None:
        """Recognise this data set at ``path`` (a folder or an archive), or return None.

        Cheap, and without effect: an archive is unpacked only when ``prepare`` chooses it.
        With ``official_only``, data that is recognised but is not byte for byte the
        published one is a SourceError where it claims to be (an archive of the
        published name), else it is passed over.
        """

    @abstractmethod
    def fetch(self, cache: Path, progress: Progress) -> RawData:
        """Download into ``cache``. Raises SourceUnavailableError where that is impossible."""

    @abstractmethod
    def imitate(self) -> RawData:
        """Return a synthetic stand-in of the same counts, shape, dtype and classes."""

    def prepare(self, cache: Path, progress: Progress | None = None) -> None:
        """Find or fetch the raw data; idempotent, and the only place with network.

        Raises:
            SourceError: the requested data is missing, damaged or unavailable.
        """
        if self._data is None:
            progress = progress or SilentProgress()
            found = self._acquire(cache, progress)
            self._data = found.unpacked(cache, progress) if isinstance(found, Archived) else found

    def _acquire(self, cache: Path, progress: Progress) -> RawData | Archived:
        request = self._request
        if request.kind == "synthetic":
            return self.imitate()
        if request.kind == "local":
            return self._local(request.path)
        official_only = request.kind == "official"
        for folder in request.search:
            found = self.locate(folder, official_only=official_only)
            if found is not None:
                return found
        try:
            return self.fetch(cache, progress)
        except SourceUnavailableError as error:
            if official_only:
                place = f"Put it into {request.search[0]}, or use" if request.search else "Use"
                raise SourceUnavailableError(f"{error} {place} --source local:PATH.") from error
            progress.note(
                f"SYNTHETIC DATA: {error} Going on with a synthetic stand-in for {self.name}; "
                "every result says so. Use --source local:PATH for your own copy."
            )
            return self.imitate()

    def _local(self, path: Path | None) -> RawData | Archived:
        flag = f"--dataset {self.name}:PATH" if self.takes_path else "--source local:PATH"
        if path is None or not path.exists():
            raise SourceError(f"No {self.name} data at {path}: the path does not exist. Check {flag}.")
        found = self.locate(path, official_only=False)
        if found is None:
            raise SourceError(
                f"No {self.name} data at {path}: neither the folder nor one inside it has a known layout. "
                f"`bench list datasets {self.name}` says what it looks like."
            )
        return found

    @property
    def data(self) -> RawData:
        """The raw data that ``prepare`` settled on."""
        if self._data is None:
            raise RuntimeError(f"{self.name}: prepare() has not been called")
        return self._data

    def fingerprint(self) -> str:
        """See RawData.fingerprint."""
        return self.data.fingerprint()

    def schema(self, split: Split) -> Schema:
        """See RawData.schema."""
        return self.data.schema(split)

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        """See RawData.samples."""
        return self.data.samples(split)

    def skipped(self, split: Split) -> tuple[Skipped, ...]:
        """See RawData.skipped."""
        return self.data.skipped(split)


class OwnData(DataSource):
    """Data of the user's own, named with its place: ``NAME:PATH``."""

    takes_path: ClassVar[bool] = True
    whole_folder: ClassVar[bool] = True
    """Whether everything in the folder counts as data, so that nothing else may be written there."""

    def fetch(self, cache: Path, progress: Progress) -> RawData:  # noqa: ARG002  # the contract's
        """See DataSource.fetch."""
        raise SourceUnavailableError(f"{self.name} is data of your own: it has no place to be downloaded from.")

    def imitate(self) -> RawData:
        """See DataSource.imitate."""
        raise SourceUnavailableError(f"{self.name} is data of your own: it has no synthetic stand-in.")


def limited(samples: Iterable[SampleBlock], count: int) -> Iterator[SampleBlock]:
    """Yield the first ``count`` samples and stop reading there."""
    left = count
    for x, y in samples:
        yield SampleBlock(x[:left], y[:left])
        left -= min(left, len(y))
        if left == 0:
            return


def limited_schema(schema: Schema, count: int) -> Schema:
    """Return the schema of the first ``count`` samples."""
    return replace(schema, count=count)


def reblocked(samples: Iterable[SampleBlock], size: int) -> Iterator[SampleBlock]:
    """Regroup samples into blocks of exactly ``size``; only the last may be shorter."""
    parts: list[SampleBlock] = []
    held = 0
    for block in samples:
        start = 0
        while start < len(block.y):
            take = min(size - held, len(block.y) - start)
            parts.append(SampleBlock(block.x[start : start + take], block.y[start : start + take]))
            held += take
            start += take
            if held == size:
                yield _joined(parts)
                parts, held = [], 0
    if parts:
        yield _joined(parts)


def _joined(parts: list[SampleBlock]) -> SampleBlock:
    if len(parts) == 1:
        return parts[0]
    return SampleBlock(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))
