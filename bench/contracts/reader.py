"""How an opened store delivers batches.

Nothing here imports torch at module level: listing backends must stay quick.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Indices = NDArray[np.int64]
T = TypeVar("T")


@runtime_checkable
class BatchReader(Protocol):
    """A torch map-style data set that can also deliver whole batches.

    Picklable (path and metadata only, never the data), safe to use after fork and
    from several threads at once.
    """

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return one sample; raises IndexError outside ``0 <= index < len``."""

    def __getitems__(self, indices: Sequence[int] | Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(x, y)``: ``(n, *shape)`` and ``(n,)`` int64, in the order of ``indices``.

        Raises IndexError when any index is outside ``0 <= index < len``.
        """


@runtime_checkable
class DeviceReader(Protocol):
    """A reader that can also deliver batches that are on a CUDA device already; optional.

    Used in the training process alone, from one thread, and never across a fork.
    """

    def open_device(self, device: torch.device, batch_size: int = 0) -> None:
        """Put on the device, or make reachable for it, what batches need; returns when that is done.

        Belongs to opening the store, and so do buffers for batches of ``batch_size`` samples and all else that the
        first batch would wait for. Raises BackendError where it is not possible.
        """

    def device_batches(
        self, order_batches: Iterator[Indices], device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield ``(x, y)`` as ``__getitems__`` returns them, on the device, for each array of indices.

        A batch is valid on torch's stream that is current when it is asked for, until the next one is asked for; it
        must not be kept longer. No array of indices may be longer than the first. Raises IndexError, BackendError.
        """

    def facts(self) -> dict[str, Any]:
        """Return what was opened and how, for the record, see :meth:`Reader.facts`."""

    def close_device(self) -> None:
        """Give back what ``open_device`` took. Batches that were delivered are no longer valid."""


class Reader(ABC):
    """Base of a reader that fills one buffer per batch; a subclass writes ``read_into``.

    As a torch data set it also takes an array or tensor of indices for an index, and returns a batch for it: what
    torch's DataLoader with ``batch_size=None`` and a sampler of such arrays asks for.
    """

    gathers: bool = False
    """Whether a batch is merely copied from memory, so that handing it over costs as much as reading it: workers then
    hand over several at a time."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.count = count
        self.shape = shape
        self.dtype = dtype

    @abstractmethod
    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        """Fill ``x`` ``(n, *shape)`` and ``y`` ``(n,)`` with the samples at ``indices``.

        The indices are in range, in any order, and may repeat. Both buffers are
        C-contiguous, on the CPU, and keep no promise about what they held before.
        """

    def facts(self) -> dict[str, Any]:
        """Return what is worth knowing of how this reads, for the record: values that JSON can hold.

        Runs in which they differ are not equal; ``why`` and sizes and times, whose names end in ``_bytes`` or ``_s``,
        may.
        """
        return {}

    def make_ready(self) -> None:  # noqa: B027  # some have everything with them
        """Do what the first batch would else wait for: open and map files, load labels.

        Called in each process that reads, once it runs; belongs to opening the store, and no epoch pays for it. What is
        not done here is done on first use.
        """

    def begin(self, order: Indices) -> None:  # noqa: B027  # most have nothing to prepare
        """Take note that an epoch begins, and in which order its samples will be asked for.

        Called in each process that reads, inside of the epoch; what takes long belongs into a thread. A reader that
        keeps samples lets go of them here: otherwise those of a small store would come from memory from then on.
        """

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]: ...
    @overload
    def __getitem__(self, index: Indices | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...
    def __getitem__(self, index: int | Indices | torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return one sample, or a batch for an array or tensor ``(n,)`` of indices."""
        if getattr(index, "ndim", 0):
            return self.__getitems__(np.asarray(index))
        x, y = self.__getitems__([int(index)])
        return x[0], int(y[0])

    def __getitems__(self, indices: Sequence[int] | Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """See BatchReader."""
        import torch

        wanted = checked_indices(indices, self.count)
        x = torch.empty((len(wanted), *self.shape), dtype=torch_dtype(self.dtype))
        y = torch.empty(len(wanted), dtype=torch.int64)
        self.read_into(wanted, x, y)
        return x, y


class NaiveReader(Reader):
    """Base of a reader that fetches one sample at a time, as most hand-written data sets do.

    A batch is made of single samples the way torch's default collate does it.
    """

    @abstractmethod
    def read_one(self, index: int) -> tuple[NDArray[Any], int]:
        """Return one sample as a C-contiguous array that the caller may keep and change."""

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, Any]:
        """See Reader."""
        import torch

        if getattr(index, "ndim", 0):
            return self.__getitems__(np.asarray(index))
        checked_indices([index], self.count)
        x, y = self.read_one(int(index))
        return torch.from_numpy(x), y

    def __getitems__(self, indices: Sequence[int] | Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Return single samples, stacked."""
        import torch

        samples = [self[int(index)] for index in indices]
        if not samples:
            return super().__getitems__(indices)
        return torch.stack([x for x, _ in samples]), torch.tensor([y for _, y in samples], dtype=torch.int64)

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        """Copy single samples into the buffers."""
        for row, index in enumerate(indices):
            sample, label = self[int(index)]
            x[row] = sample
            y[row] = label


class _Opening:
    """Held while a handle is opened. One for all, as each process has to have a new one after a fork."""

    # An opener may need another handle.
    lock = threading.RLock()

    @classmethod
    def renew(cls) -> None:
        cls.lock = threading.RLock()


# The thread that held it does not exist in a child.
os.register_at_fork(after_in_child=_Opening.renew)


class PerProcess(Generic[T]):
    """A handle that is opened on first use in each process, and never crosses into another.

    Library handles (HDF5 above all) return wrong data when a fork shares them, and
    must not be pickled. ``opener`` has to be picklable.
    """

    def __init__(self, opener: Callable[[], T]) -> None:
        self._opener = opener
        self._pid = -1
        self._handle: T | None = None

    def __call__(self) -> T:
        """Return this process's handle, opening it if there is none yet."""
        pid = os.getpid()
        # In this order: what was there before the process is known to be this one's may be a parent's.
        if self._pid == pid and (handle := self._handle) is not None:
            return handle
        with _Opening.lock:
            if self._pid != pid or (handle := self._handle) is None:
                self._handle = handle = self._opener()
                self._pid = pid
            return handle

    def forget(self) -> None:
        """Let go of this process's handle; the next use opens another."""
        with _Opening.lock:
            self._pid, self._handle = -1, None

    def __getstate__(self) -> Callable[[], T]:
        return self._opener

    def __setstate__(self, opener: Callable[[], T]) -> None:
        self.__init__(opener)  # type: ignore[misc]


def checked_indices(indices: Sequence[int] | Indices, count: int) -> Indices:
    """Return ``indices`` as an int64 array; raises IndexError unless all lie in ``[0, count)``."""
    wanted = np.ascontiguousarray(indices, dtype=np.int64)
    # One pass: what is negative is very large without its sign.
    if len(wanted) and wanted.view(np.uint64).max() >= count:
        bad = wanted[(wanted < 0) | (wanted >= count)][0]
        raise IndexError(f"index {bad} is outside a store of {count} samples")
    return wanted


@cache
def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """Return torch's dtype of the same name. Raises TypeError where torch has none."""
    import torch

    found = getattr(torch, dtype.name, None)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"torch has no dtype like NumPy's {dtype}")
    return found
