"""Sets that are published as archives of a folder tree: found unpacked or packed, downloaded, unpacked once."""

from __future__ import annotations

import hashlib
import os
import shutil
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bench.contracts.locks import held
from bench.contracts.source import Archived, DataSource, Origin, Progress, RawData, SourceError, SourceUnavailableError

from .download import Remote, deviation, fetch_all
from .extraction import Limits, unpack
from .trees import first_folder

_ORIGIN = "origin"
"""The file that tells whether what lies next to it comes from the published archives."""


class Published(DataSource):
    """A data set whose raw data is a folder, published as one or several archives of it.

    A subclass names the archives, recognises the folder and opens it.
    """

    archives: ClassVar[tuple[Remote, ...]]
    """All of them together are the set."""

    folders: ClassVar[tuple[str, ...]]
    """Names that the folder of the set has inside the archives, and may have on a user's disk."""

    licence: ClassVar[str]
    limits: ClassVar[Limits]
    """What the archives may hold."""

    unavailable: ClassVar[str | None] = None
    """Where nothing can be downloaded: one sentence that says where to get the data instead."""

    @abstractmethod
    def wanted(self, member: str) -> bool:
        """Say whether a file of an archive, by its path in there, belongs to the set; the others are not unpacked."""

    @abstractmethod
    def is_root(self, folder: Path) -> bool:
        """Recognise the folder of the set by a few names; cheap."""

    @abstractmethod
    def open_folder(self, folder: Path, origin: Origin) -> RawData:
        """Return the samples of the folder. Raises SourceError when it is incomplete or not what it claims to be."""

    def locate(self, path: Path, *, official_only: bool) -> RawData | Archived | None:
        """See DataSource.locate. A folder goes before archives; only archives can prove that they are official."""
        if path.is_file():
            named = path.name in {archive.name for archive in self.archives}
            return self._packed(path.parent, official_only=official_only) if named else None
        root = None if official_only else first_folder(path, (self.name, *self.folders), self.is_root)
        if root is not None:
            return self.open_folder(root, "local")
        for folder in (path, path / self.name):
            packed = self._packed(folder, official_only=official_only)
            if packed is not None:
                return packed
        # A download that was broken off leaves some of the archives, and goes on with the others.
        return self._packed(path / "downloads", official_only=official_only, all_or_none=False)

    def fetch(self, cache: Path, progress: Progress) -> RawData:
        """See DataSource.fetch."""
        if self.unavailable is not None:
            raise SourceUnavailableError(self.unavailable)
        paths = fetch_all(self.archives, cache / "downloads", progress, licence=f"{self.name}: {self.licence}")
        return Packed(self, paths, official_only=True).unpacked(cache, progress)

    def _packed(self, folder: Path, *, official_only: bool, all_or_none: bool = True) -> Packed | None:
        paths = [folder / archive.name for archive in self.archives]
        missing = [path.name for path in paths if not path.is_file()]
        if paths and not missing:
            return Packed(self, paths, official_only=official_only)
        if all_or_none and len(missing) < len(paths) and not official_only:
            raise SourceError(
                f"{folder} lacks {', '.join(missing)}: {self.name} is all of its archives together. Add the others."
            )
        return None


class Packed(Archived):
    """The archives of a set. They are unpacked once, into ``<cache>/raw/<set>-<key>``."""

    def __init__(self, source: Published, paths: Sequence[Path], *, official_only: bool) -> None:
        self._source = source
        self._paths = paths
        self._official_only = official_only

    def unpacked(self, cache: Path, progress: Progress) -> RawData:
        """See Archived.unpacked. With ``official_only``, archives that are not the published ones are refused."""
        try:
            target = cache / "raw" / f"{self._source.name}-{self._key()}"
            target.parent.mkdir(parents=True, exist_ok=True)
            with held(target.with_name(f".{target.name}.lock"), f"unpacking {self._source.name}", progress):
                # The lock is ours: whoever left these is dead.
                for leftover in target.parent.glob(f"{target.name}.part-*"):
                    shutil.rmtree(leftover)
                origin = self._unpacked_origin(target)
                if origin is None or (self._official_only and origin != "official"):
                    origin = self._unpack(target, progress)
        except OSError as error:
            place = error.filename or cache
            raise SourceError(
                f"{self._source.name} cannot be unpacked: {place}: {error.strerror or error}. Check the data folder."
            ) from error
        root = first_folder(target / "data", (self._source.name, *self._source.folders), self._source.is_root)
        if root is None:
            names = " and ".join(map(str, self._paths))
            raise SourceError(
                f"{names} does not hold {self._source.name}: no folder in there has its layout. Get the published one."
            )
        return self._source.open_folder(root, origin)

    @staticmethod
    def _unpacked_origin(target: Path) -> Origin | None:
        """Return the origin of what was unpacked before, or None where nothing was."""
        try:
            return "official" if (target / _ORIGIN).read_text() == "official" else "local"
        except FileNotFoundError:
            return None

    def _unpack(self, target: Path, progress: Progress) -> Origin:
        origin = self._origin()
        source = self._source
        part = target.with_name(f"{target.name}.part-{os.getpid()}")
        try:
            for path in self._paths:
                unpack(path, part / "data", source.wanted, source.limits, progress)
            (part / _ORIGIN).write_text(origin)
            # Otherwise a power cut could leave empty files under the final name.
            os.sync()
            if target.exists():
                shutil.rmtree(target)
            part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return origin

    def _origin(self) -> Origin:
        origin: Origin = "official"
        for remote, path in zip(self._source.archives, self._paths, strict=True):
            if fault := deviation(remote, path):
                if self._official_only:
                    raise SourceError(f"{path} is not the published archive: {fault}. Delete it and run again.")
                origin = "local"
        return origin

    def _key(self) -> str:
        # Not the content: reading gigabytes again for every run would take longer than the run.
        digest = hashlib.sha256()
        for path in self._paths:
            stat = path.stat()
            state = f"{path.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_dev} {stat.st_ino}\n"
            digest.update(state.encode())
        return digest.hexdigest()[:16]
