"""Unpacking archives of many files onto the disk. Nothing that an archive says is trusted."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.contracts.source import Progress, SourceError

from .archive import Header, Limited, LimitExceededError, damaged

_PIECE_BYTES = 1 << 20
_TAR_BLOCK_BYTES = 1 << 16
_RATIO_FLOOR_BYTES = 1 << 20  # below, a high ratio does no harm, and small files of one colour have it
_DIRECTORY_ENTRY_BYTES = 256  # more than most take in the directory of a zip file
_LOCAL_HEADER_BYTES = 30
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # the latter is an empty archive's
_GZIP_MAGIC = b"\x1f\x8b"
_OUTSIDE = re.compile(r"/|[A-Za-z]:")
_ENCRYPTED = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold; sizes are those of what is unpacked, in bytes.

    ``max_ratio`` is how many times larger a member, or all together, may be than it is packed;
    nothing below 1 MiB is held to it. The headers of a tar file count as part of its total.
    """

    max_members: int
    max_member_bytes: int
    max_total_bytes: int
    max_ratio: float = 200

    def allowed_bytes(self, packed_bytes: int) -> int:
        """Return how large a part of an archive may get, by the ratio alone."""
        return max(_RATIO_FLOOR_BYTES, int(self.max_ratio * packed_bytes))


def unpack(archive: Path, target: Path, wanted: Callable[[str], bool], limits: Limits, progress: Progress) -> None:
    """Unpack the wanted files of a zip, tar or tar.gz archive, told apart by content, into a folder.

    ``target`` is created where it does not exist, and may hold the members of other archives.
    ``wanted`` gets the path of a plain file inside the archive. All other members are checked
    no less, but not written. What was written before an error is left to the caller to remove.

    Raises:
        SourceError: the archive is unreadable, damaged, or holds what it must not; or the disk refuses.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with archive.open("rb") as file:
            magic = file.read(4)
        unpack_it = _unpack_zip if magic in _ZIP_MAGIC else _unpack_tar
        unpack_it(archive, _Files(archive, target), wanted, limits, progress)
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        ValueError,
    ) as error:
        raise damaged(archive, str(error) or "it ends early", None) from error
    except OSError as error:
        raise SourceError(
            f"{archive} cannot be unpacked into {target}: {error.strerror or error}. Check both, and the free space."
        ) from error


def _unpack_zip(
    archive: Path, files: _Files, wanted: Callable[[str], bool], limits: Limits, progress: Progress
) -> None:
    directory_bytes = max(_PIECE_BYTES, limits.max_members * _DIRECTORY_ENTRY_BYTES)
    try:
        with _Bounded(archive, directory_bytes) as file, zipfile.ZipFile(file) as packed:
            members = packed.infolist()
            if len(members) > limits.max_members:
                raise LimitExceededError
            chosen = []
            for member, name in _checked_zip(archive, packed, members, limits):
                if not member.is_dir() and wanted(name):
                    chosen.append((member, name))
            step = 1 + len(chosen) // 1000
            with _task(progress, archive, len(chosen), "files"):
                for number, (member, name) in enumerate(chosen, start=1):
                    with packed.open(member) as content:
                        files.write(name, content, member.file_size)
                    if number % step == 0:
                        progress.advance(step)
                progress.advance(len(chosen) % step)
    except LimitExceededError:
        raise _too_many(archive, limits) from None


def _checked_zip(
    archive: Path, packed: zipfile.ZipFile, members: list[zipfile.ZipInfo], limits: Limits
) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Yield the members in the order of their places, with their paths. Raises SourceError."""
    total_bytes = end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        # The other name ends at a NUL.
        name = _inside(member.orig_filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if name is None or not (name or member.is_dir()):
            fault = "its path leads outside the archive"
        elif kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            fault = "it is neither a plain file nor a folder"
        elif member.flag_bits & _ENCRYPTED:
            fault = "it is encrypted"
        elif member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            # Of the others Python unpacks as much at once as there is.
            fault = f"its packing method {member.compress_type} is not supported"
        elif member.file_size > limits.max_member_bytes:
            fault = f"its {member.file_size:,} bytes are not within {limits.max_member_bytes:,}"
        elif member.file_size > limits.allowed_bytes(member.compress_size):
            fault = f"it unpacks to more than {limits.max_ratio:g} times its {member.compress_size:,} bytes"
        elif member.header_offset < end:
            fault = "it overlaps with another one"
        else:
            end = member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size
            total_bytes += member.file_size
            yield member, name
            continue
        raise _unsafe(archive, member.orig_filename, fault)
    if end > packed.start_dir:
        raise zipfile.BadZipFile("the last member reaches into the directory")
    _check_total(archive, total_bytes, min(limits.max_total_bytes, limits.allowed_bytes(archive.stat().st_size)))


def _unpack_tar(
    archive: Path, files: _Files, wanted: Callable[[str], bool], limits: Limits, progress: Progress
) -> None:
    size_bytes = archive.stat().st_size
    max_bytes = min(limits.max_total_bytes, limits.allowed_bytes(size_bytes))
    try:
        with archive.open("rb") as file, _task(progress, archive, size_bytes, "bytes"):
            zipped = file.peek(2)[:2] == _GZIP_MAGIC
            stream = Limited(gzip.GzipFile(fileobj=file) if zipped else file, max_bytes)  # type: ignore[arg-type]
            told_bytes = 0
            # The stream mode never seeks, and so reads through our limit only.
            with _open_tar(stream) as tar:
                for count, member in enumerate(tar, start=1):
                    if count > limits.max_members:
                        raise _too_many(archive, limits)
                    name = _checked_tar(archive, member, limits)
                    content = tar.extractfile(member) if member.isreg() and wanted(name) else None
                    if content is not None:
                        files.write(name, content, member.size)
                    if file.tell() - told_bytes >= _PIECE_BYTES:
                        progress.advance(file.tell() - told_bytes)
                        told_bytes = file.tell()
            # Only here gzip compares its checksum.
            while stream.read(_PIECE_BYTES):
                pass
            progress.advance(file.tell() - told_bytes)
    except LimitExceededError:
        _check_total(archive, max_bytes + 1, max_bytes)


def _open_tar(stream: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|", tarinfo=Header, bufsize=_TAR_BLOCK_BYTES)


def _checked_tar(archive: Path, member: tarfile.TarInfo, limits: Limits) -> str:
    name = _inside(member.name)
    if name is None or not (name or member.isdir()):
        fault = "its path leads outside the archive"
    elif not (member.isdir() or (member.isreg() and not member.issparse())):
        fault = "it is neither a plain file nor a folder"
    elif not 0 <= member.size <= limits.max_member_bytes:
        fault = f"its {member.size:,} bytes are not within {limits.max_member_bytes:,}"
    else:
        return name
    raise _unsafe(archive, member.name, fault)


def _inside(name: str) -> str | None:
    """Return a path without empty parts and dots, or None where it could lead out of a folder on any system."""
    parts = name.split("/")
    if _OUTSIDE.match(name) or ".." in parts or "\\" in name or "\0" in name:
        return None
    return "/".join(part for part in parts if part not in {"", "."})


class _Content(Protocol):
    """A member that is being read."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""


class _Files:
    """Where members are written; keeps paths as text, because 100,000 Path objects take seconds."""

    def __init__(self, archive: Path, target: Path) -> None:
        self._archive = archive
        self._target = str(target)
        self._made: set[str] = set()

    def write(self, name: str, content: _Content, size: int) -> None:
        """Write a member that ought to have ``size`` bytes."""
        path = f"{self._target}/{name}"
        folder = path.rpartition("/")[0]
        try:
            if folder not in self._made:
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103
                self._made.add(folder)
            # Only the file system knows which names are the same to it.
            file = open(path, "xb")  # noqa: PTH123, SIM115
        except (FileExistsError, NotADirectoryError):
            raise _unsafe(self._archive, name, "another one has its path") from None
        with file:
            while (piece := content.read(_PIECE_BYTES)) and size >= 0:
                file.write(piece)
                size -= len(piece)
        if size:
            raise EOFError(f"{name!a} has another size than announced")


class _Bounded(io.BufferedReader):
    """A file of which only so much is read at once: zipfile takes the whole directory of an archive."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(io.FileIO(path))
        self._max_bytes = max_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._max_bytes:
            raise LimitExceededError
        return super().read(size)


@contextmanager
def _task(progress: Progress, archive: Path, total: int, unit: str) -> Iterator[None]:
    progress.start(f"unpacking {archive.name}", total, unit)
    try:
        yield
    finally:
        progress.finish()


def _check_total(archive: Path, total_bytes: int, max_bytes: int) -> None:
    if total_bytes > max_bytes:
        raise SourceError(f"{archive} unpacks to more than {max_bytes:,} bytes; it was not unpacked.")


def _too_many(archive: Path, limits: Limits) -> SourceError:
    return SourceError(f"{archive} holds more than {limits.max_members:,} members; it was not unpacked.")


def _unsafe(archive: Path, name: str, fault: str) -> SourceError:
    return SourceError(f"{archive} holds the unsafe member {name!a}: {fault}. It was not unpacked.")
