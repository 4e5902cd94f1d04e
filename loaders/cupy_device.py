"""CuPy on torch's terms: memory from torch's allocator, work on torch's streams, arrays that are tensors as well.

Everything that the cupy backend asks of CUDA is in this module; the rest of it also runs on NumPy.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import BackendError

from .cupy_plan import word_bytes

if TYPE_CHECKING:
    import torch

# cudaHostRegister's flags, of which CuPy has no names (CUDA Runtime API, Memory Management).
_REGISTER_MAPPED = 0x02
_REGISTER_READ_ONLY = 0x08

_THREADS = 256
# Enough reads under way to fill the bus (bandwidth times latency is below 0.1 MB), and multiprocessors left for others.
_MOST_BLOCKS = 256

_WORDS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long", 16: "uint4"}
_GATHER = """
extern "C" __global__ void gather_rows(
    const WORD* rows, const long long* labels, const long long* indices, WORD* out, long long* labels_out,
    long long words_per_row, long long words, long long count)
{
    const long long step = (long long)gridDim.x * blockDim.x;
    const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (long long i = first; i < count; i += step) labels_out[i] = labels[indices[i]];
    for (long long i = first; i < words; i += step) {
        const long long place = i / words_per_row;
        out[i] = rows[indices[place] * words_per_row + (i - place * words_per_row)];
    }
}
"""


class Event(Protocol):
    """A mark in a stream; one that was never recorded has passed."""

    def record(self, stream: Any) -> None:
        """Put the mark behind all work that the stream has."""

    def synchronize(self) -> None:
        """Keep the calling thread waiting until the mark has been passed."""


class Stream(Protocol):
    """Work of the device, in order."""

    def wait_event(self, event: Any) -> None:
        """Do what comes later only once the mark has been passed."""

    def wait_stream(self, stream: Any) -> None:
        """Do what comes later only once the other stream has done what it has by now."""

    def synchronize(self) -> None:
        """Keep the calling thread waiting until all work is done."""


class Device(Protocol):
    """What the sources need of a GPU. Arrays are CuPy's; sizes are bytes."""

    xp: Any
    """CuPy, or a module like it."""

    def current_stream(self) -> Stream:
        """Return the stream that torch works on in this thread."""

    def new_stream(self) -> Stream:
        """Return another stream."""

    def new_event(self) -> Event:
        """Return a mark for streams."""

    def on(self, stream: Stream) -> Any:
        """Return a context in which CuPy works on ``stream``."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array in the device's memory. Raises BackendError when there is no room."""

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array in page-locked memory of the host."""

    def copy_in(self, target: Any, source: NDArray[Any]) -> None:
        """Enqueue a copy of ``source``, page-locked and as many bytes, on CuPy's stream; returns at once."""

    def tensor(self, array: Any) -> torch.Tensor:
        """Return the same memory as a tensor."""

    def registered(self, mapping: NDArray[np.uint8]) -> Any:
        """Return mapped memory of the host as an array that the device reads in place. Raises BackendError."""

    def build(self, rows: Any) -> None:
        """Have all ready that ``gather`` needs for these rows. Raises BackendError."""

    def gather(self, rows: Any, labels: Any, indices: Any, out: Any, labels_out: Any) -> None:
        """Enqueue one kernel that copies rows of bytes, read where they are, and their labels."""

    def free_bytes(self) -> int:
        """Return how much memory of the device is free."""


class CudaDevice:
    """A Device by CuPy and torch.

    CuPy's allocator is replaced for the whole process, so that both draw on one pool and count in one statistic.

    Raises:
        BackendError: CuPy is too old.
        ImportError: There is no CuPy.
    """

    def __init__(self, device: torch.device) -> None:
        import cupy
        import cupyx
        import torch

        if not hasattr(cupy.cuda.Stream, "from_external"):
            raise BackendError(f"CuPy {cupy.__version__} cannot use torch's streams: install CuPy 14.2 or newer.")
        self.xp = cupy
        self._cupyx = cupyx
        self._from_dlpack = torch.utils.dlpack.from_dlpack
        # Parts of it have no types.
        self._cuda: Any = torch.cuda
        self.index = torch.cuda.current_device() if device.index is None else device.index
        self._kernels: dict[int, Any] = {}
        cupy.cuda.set_allocator(cupy.cuda.PythonFunctionAllocator(self._allocate, self._free).malloc)

    def _allocate(self, size: int, device: int) -> int:
        # Memory belongs to the stream that it is first used on: that of CuPy, which is one of torch's.
        stream = int(self.xp.cuda.get_current_stream().ptr)
        return int(self._cuda.caching_allocator_alloc(size, device, stream))

    def _free(self, pointer: int, device: int) -> None:  # noqa: ARG002  # CuPy passes it; torch's allocator knows it
        self._cuda.caching_allocator_delete(pointer)

    def current_stream(self) -> Any:
        """See Device."""
        return self._cuda.current_stream(self.index)

    def new_stream(self) -> Any:
        """See Device."""
        return self._cuda.Stream(self.index)

    def new_event(self) -> Any:
        """See Device."""
        with self._cuda.device(self.index):
            return self._cuda.Event()

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """See Device."""
        # from_external takes the device that is current for the stream's, so it has to come second.
        with self.xp.cuda.Device(self.index), self.xp.cuda.Stream.from_external(stream):
            yield

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """See Device."""
        try:
            return self.xp.empty(shape, dtype)
        except self._cuda.OutOfMemoryError as error:
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            raise BackendError(
                f"cuda:{self.index}: no room for {size:,} bytes; {self.free_bytes():,} are free. "
                "Use mode=mapped or mode=staged, or --limit."
            ) from error

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """See Device."""
        found: NDArray[Any] = self._cupyx.empty_pinned(shape, dtype)
        return found

    def copy_in(self, target: Any, source: NDArray[Any]) -> None:
        """See Device."""
        target.data.copy_from_host_async(source.ctypes.data, source.nbytes)

    def tensor(self, array: Any) -> torch.Tensor:
        """See Device."""
        return self._from_dlpack(array)

    def registered(self, mapping: NDArray[np.uint8]) -> Any:
        """See Device. The registration ends with the array; the mapping lives as long."""
        cuda, runtime = self.xp.cuda, self.xp.cuda.runtime
        with cuda.Device(self.index):
            read_only = runtime.deviceGetAttribute(runtime.cudaDevAttrHostRegisterReadOnlySupported, self.index)
            flags = _REGISTER_MAPPED | (_REGISTER_READ_ONLY if read_only else 0)
            address, size = mapping.ctypes.data, mapping.nbytes
            try:
                runtime.hostRegister(address, size, flags)
            except runtime.CUDARuntimeError as error:
                how = "" if read_only else ", which does not know read-only memory (cudaHostRegisterReadOnly)"
                raise BackendError(
                    f"A mapped file of {size:,} bytes cannot be registered with cuda:{self.index}{how}: {error}. "
                    "Use mode=resident or mode=staged."
                ) from error
            owner = _Registration(mapping, runtime)
            pointer = runtime.pointerGetAttributes(address).devicePointer
            memory = cuda.UnownedMemory(pointer, size, owner, self.index)
            return self.xp.ndarray((size,), np.uint8, cuda.MemoryPointer(memory, 0))

    def build(self, rows: Any) -> None:
        """See Device."""
        try:
            self._kernel(word_bytes(rows.shape[1], rows.data.ptr)).compile()
        except Exception as error:  # the compiler's, or that of whatever did not find it
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise BackendError(
                f"CuPy cannot compile its kernel for cuda:{self.index}: {reason}. If a library is missing: "
                "pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' for CUDA 12."
            ) from error

    def _kernel(self, word: int) -> Any:
        kernel = self._kernels.get(word)
        if kernel is None:
            kernel = self._kernels[word] = self.xp.RawKernel(gather_source(word), "gather_rows")
        return kernel

    def gather(self, rows: Any, labels: Any, indices: Any, out: Any, labels_out: Any) -> None:
        """See Device. ``rows`` ``(count, row_bytes)`` and ``out`` ``(n, row_bytes)`` are C-contiguous bytes."""
        count = len(indices)
        if not count:
            return
        row_bytes = rows.shape[1]
        size = word_bytes(row_bytes, rows.data.ptr)
        kernel = self._kernel(size)
        words = count * row_bytes // size
        blocks = min(-(-max(words, count) // _THREADS), _MOST_BLOCKS)
        sizes = np.int64(row_bytes // size), np.int64(words), np.int64(count)
        kernel((blocks,), (_THREADS,), (rows, labels, indices, out, labels_out, *sizes))

    def free_bytes(self) -> int:
        """See Device."""
        kept_bytes = self._cuda.memory_reserved(self.index) - self._cuda.memory_allocated(self.index)
        return int(self._cuda.mem_get_info(self.index)[0]) + int(kept_bytes)


class _Registration:
    """Page-locked pages of a mapping; given back with this object, when no kernel reads them any more."""

    def __init__(self, mapping: NDArray[np.uint8], runtime: Any) -> None:
        self.mapping = mapping
        # Not at the end of the process, when CUDA may be gone already.
        weakref.finalize(self, _unregister, runtime, mapping.ctypes.data).atexit = False


def _unregister(runtime: Any, address: int) -> None:
    runtime.deviceSynchronize()
    runtime.hostUnregister(address)


def gather_source(word: int) -> str:
    """Return the kernel ``gather_rows`` in CUDA C++ that moves words of ``word`` bytes: 1, 2, 4, 8 or 16."""
    return _GATHER.replace("WORD", _WORDS[word])
