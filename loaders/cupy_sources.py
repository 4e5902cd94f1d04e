"""Where batches on a GPU come from: its own memory, mapped or page-locked memory of the host, or the file.

Labels are 8 bytes a sample: they lie in the GPU's memory wherever samples are gathered by the GPU.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import BackendError
from bench.contracts.reader import Indices

from . import npy
from .cupy_device import Device, Stream
from .cupy_order import OrderOnDevice, Wanted, one_batch
from .cupy_plan import runs
from .cupy_ring import Slot
from .npy import NpyLayout
from .store import damaged

_PIECE_BYTES = 32 << 20

# A launch takes the host longer than slicing its outcome: several small batches are gathered by one.
_TOGETHER = 16
_TOGETHER_BYTES = 16 << 20


class StoreFiles(NamedTuple):
    """A store that has been checked: the file of samples, where they lie in it, and the labels."""

    path: Path
    layout: NpyLayout
    y: NDArray[np.int64]

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return self.layout.size // max(1, self.layout.shape[0])


class _Gathered:
    """Rows ``(count, row_bytes)`` that the device gathers itself, from its own memory or the host's."""

    _rows: Any

    def __init__(self, device: Device, y: NDArray[np.int64]) -> None:
        self._device = device
        self._y = loaded(device, y)
        self._order = OrderOnDevice(device)

    def host_buffers(self, capacity: int) -> None:
        """See Source."""

    def together(self, batch_bytes: int) -> int:
        """See Source."""
        return max(1, min(_TOGETHER, _TOGETHER_BYTES // max(1, batch_bytes)))

    def begin_epoch(self, order: Iterator[Indices], stream: Stream, together: int) -> Iterator[Wanted]:
        """See Source."""
        return self._order(order, stream, together)

    def begin(self, slot: Slot, wanted: Wanted) -> None:
        """See Source."""
        self._device.gather(self._rows, self._y, wanted.device, slot.x, slot.y)

    def finish(self, slot: Slot) -> None:
        """See Source."""


class Resident(_Gathered):
    """All samples in the device's memory.

    Raises:
        BackendError: They do not fit, or the file ends too soon.
    """

    ahead: ClassVar[int] = 0

    def __init__(self, device: Device, files: StoreFiles) -> None:
        super().__init__(device, files.y)
        self._rows = device.empty((files.layout.shape[0], files.row_bytes), np.uint8)
        _load(device, files, self._rows.reshape(-1))
        device.build(self._rows)
        self.facts = {
            "resident_bytes": self._rows.nbytes + files.y.nbytes,
            "gathered": "on the device, from its memory",
            "copied": "to the device once, when opened",
        }


class Mapped(_Gathered):
    """The file mapped into the host's memory and read across the bus by the device's kernel: no copy of the set.

    Raises:
        BackendError: The mapping cannot be registered with CUDA, or the file ends too soon.
    """

    ahead: ClassVar[int] = 1

    def __init__(self, device: Device, files: StoreFiles) -> None:
        mapping = _mapping(files)
        offset, size = files.layout.offset, files.layout.size
        self._rows = device.registered(mapping)[offset : offset + size].reshape(-1, files.row_bytes)
        super().__init__(device, files.y)
        device.build(self._rows)
        self.facts = {
            "resident_bytes": files.y.nbytes,
            "registered_bytes": mapping.nbytes,
            "gathered": "on the device, from mapped memory of the host",
            "copied": "by the gathering kernel, across the bus",
        }


class _HostBatch(NamedTuple):
    x: NDArray[np.uint8]
    y: NDArray[np.int64]


class Staged:
    """Rows gathered by the host into page-locked memory and copied from there, beside the device's other work."""

    ahead: ClassVar[int] = 1

    def __init__(self, device: Device, files: StoreFiles) -> None:
        self._device = device
        self._row_bytes = files.row_bytes
        self._rows = npy.mapped_rows(files.path, files.layout)
        self._y = files.y
        self.facts = {
            "resident_bytes": 0,
            "gathered": "on the host, into page-locked memory",
            "copied": "on a stream of its own",
        }

    def host_buffers(self, capacity: int) -> _HostBatch:
        """See Source."""
        x = self._device.pinned((capacity, self._row_bytes), np.uint8)
        return _HostBatch(x, self._device.pinned((capacity,), np.int64))

    def together(self, batch_bytes: int) -> int:  # noqa: ARG002  # the host's gather takes longer than its calls
        """See Source."""
        return 1

    def begin_epoch(self, order: Iterator[Indices], stream: Stream, together: int) -> Iterator[Wanted]:  # noqa: ARG002
        """See Source."""
        self._rows.begin()
        return map(one_batch, order)

    def begin(self, slot: Slot, wanted: Wanted) -> None:
        """See Source."""
        # The copy of three batches ago has to have read this memory.
        slot.filled.synchronize()
        indices = wanted.host
        count = len(indices)
        batch: _HostBatch = slot.host
        self._rows.gather(indices, batch.x[:count])
        np.take(self._y, indices, out=batch.y[:count], mode="clip")
        self._device.copy_in(slot.x[:count], batch.x[:count])
        self._device.copy_in(slot.y[:count], batch.y[:count])

    def finish(self, slot: Slot) -> None:
        """See Source."""


class _Read(NamedTuple):
    future: Any
    size: int


class FileReads(NamedTuple):
    """A file as KvikIO opens it: ``pread(buffer, size, file_offset)`` returns a future; ``facts`` says which way."""

    pread: Callable[..., Any]
    facts: dict[str, Any]


class Gds(_Gathered):
    """Rows read by KvikIO from the file straight into the device's memory, as many as it has threads at a time.

    Raises:
        BackendError: KvikIO is not installed, or cannot open or read the file.
    """

    ahead: ClassVar[int] = 1

    def __init__(self, device: Device, files: StoreFiles, reads: FileReads) -> None:
        super().__init__(device, files.y)
        self._files = files
        self._pread = reads.pread
        self._under_way: dict[int, list[_Read]] = {}
        self.facts = {
            "resident_bytes": files.y.nbytes,
            "gathered": "in the file, a read for each run of rows",
            "copied": reads.facts["path"],
            "kvikio": reads.facts,
        }

    def together(self, batch_bytes: int) -> int:  # noqa: ARG002  # reads take longer than their calls
        """See Source."""
        return 1

    def begin(self, slot: Slot, wanted: Wanted) -> None:
        """See Source."""
        count = len(wanted.host)
        self._device.xp.take(self._y, wanted.device, axis=0, out=slot.y[:count])
        # KvikIO's threads know no streams: the consumer has to be done by now, not only in order.
        slot.released.synchronize()
        size, offset = self._files.row_bytes, self._files.layout.offset
        self._under_way[id(slot)] = [
            _Read(
                self._pread(slot.x[run.place : run.place + run.rows], run.rows * size, offset + run.first * size),
                run.rows * size,
            )
            for run in runs(wanted.host)
            if size
        ]

    def finish(self, slot: Slot) -> None:
        """See Source."""
        problems = []
        # To the end, also after one has failed: what is under way writes into the slot.
        for future, size in self._under_way.pop(id(slot), []):
            try:
                found = future.get()
            except (OSError, RuntimeError) as error:
                problems.append(f"KvikIO cannot read it: {error}")
                continue
            if found != size:
                problems.append(f"a read returned {found} bytes of {size}")
        if problems:
            raise damaged(self._files.path, problems[0])


def open_by_kvikio(path: Path, row_bytes: int) -> FileReads:
    """Open a file for reads into the device's memory. Raises BackendError."""
    try:
        import kvikio
        import kvikio.cufile_driver
        import kvikio.defaults
    except ImportError as error:
        raise BackendError(
            f"mode=gds needs KvikIO, which cannot be imported here ({error}): "
            "pip install kvikio-cu13, or kvikio-cu12 for CUDA 12."
        ) from error
    try:
        file = kvikio.CuFile(path, "r")
        compatible = kvikio.defaults.is_compat_mode_preferred()
        available = not compatible and bool(kvikio.cufile_driver.get("is_gds_available"))
    except (OSError, RuntimeError) as error:
        raise damaged(path, f"KvikIO cannot open it: {error}") from error
    threshold = int(kvikio.defaults.get("gds_threshold"))
    facts = {
        "path": _path_of_reads(compatible, available, row_bytes, threshold),
        "compat_mode_preferred": compatible,
        "gds_available": available,
        "gds_threshold_bytes": threshold,
        "threads": int(kvikio.defaults.get("num_threads")),
    }
    return FileReads(file.pread, facts)


def _path_of_reads(compatible: bool, available: bool, row_bytes: int, threshold: int) -> str:
    if compatible:
        return "POSIX reads and copies (KvikIO's compatibility mode)"
    if row_bytes < threshold:
        return f"POSIX reads and copies (reads below {threshold:,} bytes bypass GPUDirect Storage)"
    if not available:
        return "cuFile without GPUDirect Storage (its compatibility mode)"
    return "GPUDirect Storage"


def loaded(device: Device, values: NDArray[np.int64]) -> Any:
    """Return a copy in the device's memory. Raises BackendError when there is no room."""
    target = device.empty(values.shape, values.dtype)
    if values.size:
        source = device.pinned(values.shape, values.dtype)
        source[:] = values
        stream = device.current_stream()
        with device.on(stream):
            device.copy_in(target, source)
        stream.synchronize()
    return target


def _load(device: Device, files: StoreFiles, target: Any) -> None:
    """Copy all samples into ``target``, flat bytes on the device, through two page-locked pieces."""
    size = files.layout.size
    stream = device.current_stream()
    pieces = [device.pinned((min(size, _PIECE_BYTES),), np.uint8) for _ in range(2 if size else 0)]
    copied = [device.new_event() for _ in pieces]
    try:
        with files.path.open("rb", buffering=0) as file:
            file.seek(files.layout.offset)
            for number, begin in enumerate(range(0, size, _PIECE_BYTES)):
                piece, event = pieces[number % 2], copied[number % 2]
                event.synchronize()
                part = piece[: min(_PIECE_BYTES, size - begin)]
                _fill(file, part, files.path)
                with device.on(stream):
                    device.copy_in(target[begin : begin + len(part)], part)
                event.record(stream)
    except OSError as error:
        raise damaged(files.path, error.strerror or error) from error
    finally:
        stream.synchronize()


def _fill(file: Any, part: NDArray[np.uint8], path: Path) -> None:
    view = memoryview(part.data)
    while len(view):
        count = file.readinto(view)
        if not count:
            raise damaged(path, f"ends {len(view)} bytes too soon")
        view = view[count:]


def _mapping(files: StoreFiles) -> NDArray[np.uint8]:
    """Map the file up to its last sample. Raises BackendError."""
    try:
        with files.path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), files.layout.offset + files.layout.size, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise damaged(files.path, f"cannot be mapped: {error}") from error
    return np.frombuffer(mapping, np.uint8)
