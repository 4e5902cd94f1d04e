"""Reading tar archives without trust: members in memory, and what unpacking to disk needs of it, too."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

from bench.contracts.source import SourceError

_GZIP_MAGIC = b"\x1f\x8b"
_DRAIN_BYTES = 1 << 20
_MAX_EXTENSION_BYTES = 1 << 20
_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


class LimitExceededError(Exception):
    """An archive unpacks to more than it may."""


class Limited:
    """A stream that ends in an error after ``limit`` bytes.

    The limits on members cannot do this: tarfile reads extended headers of any size by itself.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes. Raises LimitExceededError."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise LimitExceededError
        return data


class Header(tarfile.TarInfo):
    """The header of a member; tarfile by itself takes garbage for the end, and extensions of any size into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Decode one block. Raises tarfile.ReadError where it is no header, nor a mark of the end."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(str(error)) from None
        if header.type in _EXTENSIONS and not 0 <= header.size <= _MAX_EXTENSION_BYTES:
            raise tarfile.ReadError(f"an extended header of {header.size:,} bytes")
        return header


def read_members(
    archive: Path,
    wanted: Collection[str],
    *,
    max_member_bytes: int,
    max_members: int = 1000,
    max_total_bytes: int = 1 << 30,
    sha256: str | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted members of a tar file, gzipped or not, in the order of the archive.

    Every member is checked, wanted or not, and the archive is read to its end, so that its
    checksum counts. A wanted member that is missing is not an error. ``sha256`` is what the
    archive ought to have; it is told with the found one where the archive is damaged.

    Raises:
        SourceError: the archive is unreadable, damaged, or holds what it must not.
    """
    try:
        with archive.open("rb") as file:
            zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            stream = Limited(gzip.GzipFile(fileobj=file) if zipped else file, max_total_bytes)  # type: ignore[arg-type]
            # The stream mode never seeks, and so reads through our limit only.
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header) as tar:  # type: ignore[call-overload]
                seen: set[str] = set()
                for count, member in enumerate(tar, start=1):
                    name = _checked_name(archive, member, max_member_bytes)
                    if count > max_members:
                        raise SourceError(f"{archive} holds more than {max_members} members; it was not read.")
                    if name not in wanted:
                        continue
                    if name in seen:
                        raise SourceError(f"{archive} holds {name!a} twice; it was not read.")
                    seen.add(name)
                    yield name, _content(tar, member)
            # Only here gzip compares its checksum.
            while stream.read(_DRAIN_BYTES):
                pass
    except LimitExceededError:
        raise SourceError(f"{archive} unpacks to more than {max_total_bytes:,} bytes; it was not read.") from None
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise damaged(archive, str(error), sha256) from error
    except OSError as error:
        raise SourceError(f"{archive} cannot be read: {error.strerror or error}.") from error


def damaged(archive: Path, reason: str, sha256: str | None) -> SourceError:
    """Return the error for an archive that cannot be decoded."""
    digests = f" Expected sha256 {sha256}, found {sha256_of(archive)}." if sha256 else ""
    return SourceError(f"{archive} is damaged or truncated ({reason}).{digests} Replace it with a fresh copy.")


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_name(archive: Path, member: tarfile.TarInfo, max_bytes: int) -> str:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        fault = "its path leads outside the archive"
    elif not (member.isdir() or (member.isreg() and not member.issparse())):
        fault = "it is neither a plain file nor a folder"
    elif not 0 <= member.size <= max_bytes:
        fault = f"its {member.size:,} bytes are not within {max_bytes:,}"
    else:
        return str(path)
    raise SourceError(f"{archive} holds the unsafe member {member.name!a}: {fault}. It was not read.")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name!a} ends early")
    return data
