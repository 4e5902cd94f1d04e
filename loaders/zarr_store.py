"""A Zarr store that reads cached files without a thread, and reports missing chunks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import LocalStore

from .store import damaged

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class CompleteStore(LocalStore):
    """A finished local store: every chunk of it must exist.

    Zarr takes a missing chunk for one full of zeros; here it is an error. And
    while LocalStore sends every read to a thread, here only those go there that
    have to wait for the disk.
    """

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """See Store.get; raises BackendError for a missing chunk."""
        cached = None if prototype is None else _read_cached(f"{self.root}/{key}", byte_range)
        if cached and prototype is not None:
            value: Buffer | None = prototype.buffer.from_bytes(cached)
        else:
            value = await super().get(key, prototype, byte_range)
        self._check(key, value)
        return value

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """See LocalStore.get_sync; raises BackendError for a missing chunk."""
        value = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        self._check(key, value)
        return value

    def _check(self, key: str, value: Buffer | None) -> None:
        if (value is None or len(value) == 0) and "/c." in key:
            raise damaged(self.root / key, "this chunk is missing or empty")


class BloscStore(CompleteStore):
    """A complete store whose samples lie in Blosc chunks, one to a file.

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


def _read_cached(path: str, byte_range: ByteRequest | None) -> bytearray | None:
    """Return what is asked for if that takes no waiting for the disk, else None."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.fstat(file).st_size
        start, end = 0, size
        if isinstance(byte_range, RangeByteRequest):
            start, end = byte_range.start, min(byte_range.end, size)
        elif isinstance(byte_range, OffsetByteRequest):
            start = byte_range.offset
        elif isinstance(byte_range, SuffixByteRequest):
            start = max(0, size - byte_range.suffix)
        content = bytearray(max(0, end - start))
        got = os.preadv(file, [content], start, os.RWF_NOWAIT)
    except OSError:
        return None
    finally:
        os.close(file)
    return content if got == len(content) else None
