"""The contract of a storage backend: write a store once, open it, deliver batches.

A backend has no clock, prints nothing and reads no environment variable: the
harness owns workers, seeds, timing, digests and errors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from bench.contracts.errors import BenchError
from bench.contracts.options import Options
from bench.contracts.reader import BatchReader
from bench.contracts.source import SampleBlock, Schema


class BackendError(BenchError):
    """A store is missing, damaged, or cannot be written or read by this backend: what, and in which file."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do under its options. The conformance suite holds each flag to its word."""

    lossy: bool = False
    """The samples come back changed (JPEG); verified by PSNR and the store's own digest."""

    process_workers: bool = True
    thread_workers: bool = True


OptionsT = TypeVar("OptionsT", bound=Options)


class Backend(ABC, Generic[OptionsT]):
    """A storage format and the way it is read."""

    name: ClassVar[str]
    format_version: ClassVar[int] = 1
    """Raised whenever ``write`` lays out the same samples differently: old stores are then rebuilt."""

    options_type: ClassVar[type[Options]]
    read_options: ClassVar[frozenset[str]] = frozenset({"reader"})
    """Options that only change how a store is read; stores are shared between their values."""

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @property
    def capabilities(self) -> Capabilities:
        """What is possible with these options."""
        return Capabilities()

    def unsupported(self, schema: Schema) -> str | None:  # noqa: ARG002  # for subclasses
        """Say in one sentence why samples of this schema cannot be stored, or return None."""
        return None

    def unsupported_device(self, device: str) -> str | None:  # noqa: ARG002  # for subclasses
        """Say in one sentence why a run on ``device`` (auto, cpu, cuda or cuda:N) cannot be fed here, or return None.

        A store can be written and verified all the same.
        """
        return None

    def resolved(self, schema: Schema) -> Options:  # noqa: ARG002  # for subclasses
        """Return the options with every default that depends on the data filled in, for the record."""
        return self.options

    @abstractmethod
    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        """Write a complete store into the empty folder ``root``.

        Raises BackendError when ``root`` is not empty, OSError when the disk refuses.
        """

    def import_libraries(self) -> None:
        """Import what reading takes beside what the registry names, so that opening a store takes no time for that.

        What is missing is no error here: whatever needs it says so.
        """

    @abstractmethod
    def open(self, root: Path) -> BatchReader:
        """Open a store; cheap and lazy. Raises BackendError when it is missing or damaged."""


def require_empty(root: Path) -> None:
    """Raise BackendError unless ``root`` is an existing, empty folder."""
    if not root.is_dir() or any(root.iterdir()):
        raise BackendError(f"{root} is not an empty folder: a store is only ever written into one.")
