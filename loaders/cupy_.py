"""Two plain array files, as memmap's, whose batches are made on a GPU by CuPy and handed to torch without a copy."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
from pydantic import Field

from bench.contracts.backend import Backend, BackendError, Capabilities, require_empty
from bench.contracts.options import Options
from bench.contracts.reader import Indices
from bench.contracts.source import SampleBlock, Schema

from . import npy
from .cupy_device import CudaDevice, Device, Stream
from .cupy_order import checked
from .cupy_plan import Asked, Choice, choose
from .cupy_ring import Ring, Source, deliver
from .cupy_sources import Gds, Mapped, Resident, Staged, StoreFiles, open_by_kvikio
from .mapped import MappedReader, Opened
from .store import damaged

if TYPE_CHECKING:
    import torch

_INSTALL = "pip install cupy-cuda13x, or cupy-cuda12x for CUDA 12"
_CUPY = ("cupy", "cupyx")
_KVIKIO = ("kvikio", "kvikio.cufile_driver", "kvikio.defaults")


class CupyOptions(Options):
    """Options of the cupy backend."""

    mode: Asked = Field(
        "auto",
        description="resident: all samples in the GPU's memory; mapped: the GPU reads the mapped file across the bus; "
        "staged: the host gathers, the GPU copies; gds: KvikIO reads the file into the GPU's memory; auto: the first "
        "of resident, mapped and staged that is possible",
    )


class CupyBackend(Backend[CupyOptions]):
    """``x.npy`` and ``y.npy``. Batches reach a CUDA device by CuPy; on the CPU they are only read to be verified."""

    name: ClassVar[str] = "cupy"
    options_type: ClassVar[type[Options]] = CupyOptions
    read_options: ClassVar[frozenset[str]] = frozenset({"mode"})

    @property
    def capabilities(self) -> Capabilities:
        """The GPU makes the batches: workers would have nothing to do."""
        return Capabilities(process_workers=False, thread_workers=False)

    def unsupported_device(self, device: str) -> str | None:
        """See Backend.unsupported_device."""
        if device == "cpu":
            return "it makes batches on a CUDA device. Use --device cuda, or --backend memmap for the CPU."
        import torch

        if not torch.cuda.is_available():
            return "no CUDA device is available here. Use --backend memmap, which reads the same files on the CPU."
        if importlib.util.find_spec("cupy") is None:
            return f"CuPy is not installed here: {_INSTALL}."
        if not hasattr(torch.cuda.Stream, "__cuda_stream__"):
            return f"torch {torch.__version__} is too old: its streams have no __cuda_stream__. Install a newer one."
        if self.options.mode == "gds" and importlib.util.find_spec("kvikio") is None:
            return "KvikIO is not installed here: pip install kvikio-cu13, or kvikio-cu12 for CUDA 12."
        return None

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        """See Backend.write."""
        require_empty(root)
        npy.write_arrays(samples, schema, root / "x.npy", root / "y.npy")

    def import_libraries(self) -> None:
        """See Backend.import_libraries."""
        for module in _CUPY + _KVIKIO * (self.options.mode == "gds"):
            with suppress(ImportError):
                importlib.import_module(module)

    def open(self, root: Path) -> CupyReader:
        """See Backend.open."""
        return CupyReader(root, _checked_layout(root), self.options.mode)


def _checked_layout(root: Path) -> npy.NpyLayout:
    layout = npy.read_pair(root / "x.npy", root / "y.npy")
    if not layout.dtype.isnative:
        raise damaged(root / "x.npy", f"its values are {layout.dtype.str}, in the byte order of other machines")
    return layout


def _open_on_host(root: Path) -> Opened:
    # Checked once more, as reading past the end of a mapped file kills the process.
    layout = _checked_layout(root)
    return Opened(npy.mapped_rows(root / "x.npy", layout), npy.load(root / "y.npy"))


@dataclass(slots=True)
class _OnDevice:
    """What is open on a device."""

    torch_device: torch.device
    device: Device
    source: Source
    stream: Stream
    facts: dict[str, Any]
    ring: Ring | None = field(default=None)


class CupyReader(MappedReader):
    """A DeviceReader; as a Reader it is memmap's with reader=mapped."""

    def __init__(self, root: Path, layout: npy.NpyLayout, mode: Asked) -> None:
        super().__init__(layout.shape[0], layout.shape[1:], layout.dtype, partial(_open_on_host, root), gathers=True)
        self._root = root
        self._mode = mode
        self._open: _OnDevice | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What is on a device belongs to one process.
        return {**self.__dict__, "_open": None}

    def open_device(self, device: torch.device, batch_size: int = 0) -> None:
        """See DeviceReader.

        Raises:
            BackendError: The store is damaged, a library is missing, or the mode is not possible here.
        """
        if self._open is None or self._open.torch_device != device:
            self.close_device()
            self._open = self._opened_on(device)
        if batch_size:
            self._ring(self._open, batch_size)

    def _opened_on(self, device: torch.device) -> _OnDevice:
        if device.type != "cuda":
            raise BackendError(f"cupy makes batches on a CUDA device, not on {device}. Use --device cuda.")
        try:
            cuda = CudaDevice(device)
        except ImportError as error:
            raise BackendError(f"CuPy, which cupy needs, cannot be imported ({error}): {_INSTALL}.") from error
        return open_on(cuda, device, self._root, self._mode)

    def device_batches(
        self, order_batches: Iterator[Indices], device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """See DeviceReader."""
        self.open_device(device)
        opened = self._open
        assert opened is not None  # noqa: S101  # for the type checker
        order = checked(order_batches, self.count)
        first = next(order, None)
        if first is None:
            return
        ring = self._ring(opened, len(first))
        yield from deliver(opened.device, opened.source, ring, opened.stream, chain([first], order))

    def _ring(self, opened: _OnDevice, capacity: int) -> Ring:
        """Return the ring that there is, unless it is for smaller batches."""
        if opened.ring is None or opened.ring.capacity < capacity:
            if opened.ring is not None:
                # Its page-locked memory may be given out again at once, without regard to what still copies from it.
                opened.stream.synchronize()
            opened.ring = None
            with opened.device.on(opened.device.current_stream()):
                opened.ring = Ring(opened.device, opened.source, max(1, capacity), self.shape, self.dtype)
            opened.facts["ring_bytes"] = opened.ring.device_bytes
        return opened.ring

    def facts(self) -> dict[str, Any]:
        """See DeviceReader. Sizes are in bytes; ``load_s`` is how long opening on the device took, in seconds."""
        return {"mode": self._mode, **(self._open.facts if self._open else {})}

    def close_device(self) -> None:
        """See DeviceReader."""
        opened, self._open = self._open, None
        if opened is not None:
            # After an error of the device this fails like all else there, and whoever met it first tells it.
            with suppress(RuntimeError):
                opened.stream.synchronize()


def open_on(device: Device, torch_device: torch.device, root: Path, mode: Asked) -> _OnDevice:
    """Open a store on a device in the mode asked for. Raises BackendError."""
    started = time.perf_counter()
    files = StoreFiles(root / "x.npy", _checked_layout(root), npy.load(root / "y.npy"))
    current = device.current_stream()
    with device.on(current):
        choice = choose(mode, files.layout.size + files.y.nbytes, device.free_bytes(), _available_ram_bytes())
        source, choice = _open_source(device, files, mode, choice)
    # On the consumer's stream a gather from the device's own memory is soonest done; the others run beside it.
    stream = current if choice.mode == "resident" else device.new_stream()
    facts = {
        "chosen": choice.mode,
        "why": choice.why,
        "set_bytes": files.layout.size + files.y.nbytes,
        "load_s": time.perf_counter() - started,
        **source.facts,
    }
    return _OnDevice(torch_device, device, source, stream, facts)


def _open_source(device: Device, files: StoreFiles, asked: Asked, choice: Choice) -> tuple[Any, Choice]:
    if choice.mode == "resident":
        return Resident(device, files), choice
    if choice.mode == "staged":
        return Staged(device, files), choice
    if choice.mode == "gds":
        return Gds(device, files, open_by_kvikio(files.path, files.row_bytes)), choice
    try:
        return Mapped(device, files), choice
    except BackendError as error:
        if asked != "auto":
            raise
        return Staged(device, files), Choice("staged", f"{choice.why}, and mapping failed: {error}")


def _available_ram_bytes() -> int:
    return int(psutil.virtual_memory().available)
