"""Zarr stores that report missing chunks, and one that also reads cached files without a thread."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from .store import damaged

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class CheckedStore(LocalStore):
    """A finished local store: every chunk of it must exist. Zarr takes a missing one for one full of zeros."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """See Store.get; raises BackendError for a missing chunk."""
        value = await super().get(key, prototype, byte_range)
        self._check(key, value)
        return value

    def _check(self, key: str, value: Buffer | None) -> None:
        if (value is None or len(value) == 0) and "/c." in key:
            raise damaged(self.root / key, "this chunk is missing or empty")


class CompleteStore(CheckedStore):
    """A checked store that sends to a thread only reads that have to wait for the disk; LocalStore sends all."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """See Store.get; raises BackendError for a missing chunk."""
        if prototype is not None:
            try:
                value = prototype.buffer.from_array_like(_read(f"{self.root}/{key}", byte_range, os.RWF_NOWAIT))
            except IsADirectoryError:
                self._check(key, None)
                return None
            except OSError:
                # It is not there, or not in memory: then a thread waits for the disk.
                return await super().get(key, prototype, byte_range)
            if value:
                self._check(key, value)
                return value
        return await super().get(key, prototype, byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """See SupportsGetSync.get_sync; raises BackendError for a missing chunk."""
        value: Buffer | None = None
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            content = _read(f"{self.root}/{key}", byte_range, 0)
            value = (prototype or default_buffer_prototype()).buffer.from_array_like(content)
        self._check(key, value)
        return value

    def read_into(self, key: str, out: NDArray[np.uint8]) -> None:
        """Read a value of exactly ``len(out)`` bytes to where it belongs.

        Raises:
            BackendError: a chunk is missing or empty.
            OSError: it cannot be read.
            ValueError: it is of another size.
        """
        try:
            file, size = _open(f"{self.root}/{key}")
        except (FileNotFoundError, IsADirectoryError):
            self._check(key, None)
            raise
        try:
            if size != len(out):
                if not size:
                    self._check(key, None)
                raise ValueError(f"{size} bytes where a chunk has {len(out)}")
            _fill(file, out, 0, 0)
        finally:
            os.close(file)


class BloscStore(CheckedStore):
    """A checked store whose samples lie in Blosc chunks, one to a file.

    Blosc decodes past the end of a chunk that was cut short, and returns garbage:
    the length in its header is compared with that of the file.
    """

    def _check(self, key: str, value: Buffer | None) -> None:
        super()._check(key, value)
        if value is None or not key.startswith("x/c."):
            return
        stated = int.from_bytes(value[12:16].to_bytes(), "little")
        if stated != len(value):
            raise damaged(self.root / key, f"{len(value)} bytes where the chunk's header says {stated}")


def _read(path: str, byte_range: ByteRequest | None, flags: int) -> NDArray[np.uint8]:
    """Return what is asked for of a file. Raises OSError; with RWF_NOWAIT also if it takes waiting for the disk."""
    file, size = _open(path)
    try:
        start, end = 0, size
        if isinstance(byte_range, RangeByteRequest):
            start, end = byte_range.start, min(byte_range.end, size)
        elif isinstance(byte_range, OffsetByteRequest):
            start = byte_range.offset
        elif isinstance(byte_range, SuffixByteRequest):
            start = max(0, size - byte_range.suffix)
        content = np.empty(max(0, end - start), np.uint8)
        _fill(file, content, start, flags)
        return content
    finally:
        os.close(file)


def _open(path: str) -> tuple[int, int]:
    """Open a file, and return its size. Raises OSError, IsADirectoryError where it is no file at all."""
    # Without blocking: opening a pipe would wait for somebody to write to it.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode):
        return file, status.st_size
    os.close(file)
    raise IsADirectoryError(errno.EISDIR, "not a file", path)


def _fill(file: int, out: NDArray[np.uint8], start: int, flags: int) -> None:
    got = 0
    while got < len(out):
        more = os.preadv(file, [out[got:].data], start + got, flags)
        if not more:
            raise OSError(errno.EIO, "ended while it was read")
        got += more
