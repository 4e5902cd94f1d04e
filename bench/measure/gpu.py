"""Sensors of an NVIDIA GPU through NVML: memory, clocks, temperature, utilisation, throttling, energy, other users.

Every reading may be missing: there may be no library, no driver, or a device that does not support it. Then it is
None. Names are those of the NVML API reference.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

ENERGY_WINDOW_S = 30.0
"""Energy over less is not reported: on A100 and H100 the power sensor looks at a quarter of the time only, so that
the error shrinks with the length of the window (Yang, Adamek and Armour, arXiv 2312.02741)."""

# Not throttling: nothing to do, or clocks that somebody has set on purpose.
_BENIGN = {"GpuIdle", "ApplicationsClocksSetting", "UserDefinedClocks", "DisplayClockSetting", "None", "All"}


@dataclass(frozen=True, slots=True)
class GpuSample:
    """Readings at one instant (``at_s`` by the monotonic clock); None where unknown.

    ``utilisation`` (0 to 1) is the share of the last sixth of a second to second in which any kernel ran.
    ``reasons`` are NVML's names for what holds the clocks down. ``energy_mj`` counts from the start of the driver.
    """

    at_s: float
    used_bytes: int | None = None
    memory_api: str | None = None
    sm_mhz: int | None = None
    memory_mhz: int | None = None
    temperature_c: int | None = None
    utilisation: float | None = None
    p_state: int | None = None
    reasons: tuple[str, ...] | None = None
    energy_mj: int | None = None
    other_pids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What the samples of one window show; None where no sample tells.

    ``mean_utilisation`` weighs every reading by the time since the one before. ``energy_j`` is None for windows
    below ``ENERGY_WINDOW_S``. ``memory_api`` is the version of NVML's reading of used memory: the first counts
    what the driver reserves, the second does not, so only differences of one version compare.
    """

    samples: int
    window_s: float
    peak_used_bytes: int | None = None
    memory_api: str | None = None
    lowest_sm_mhz: int | None = None
    lowest_memory_mhz: int | None = None
    highest_temperature_c: int | None = None
    mean_utilisation: float | None = None
    slowest_p_state: int | None = None
    reasons: tuple[str, ...] | None = None
    energy_j: float | None = None
    other_pids: tuple[int, ...] | None = None

    @property
    def throttled(self) -> bool | None:
        """Whether anything but idleness or a setting held the clocks down."""
        return None if self.reasons is None else bool(set(self.reasons) - _BENIGN)

    def facts(self) -> dict[str, Any]:
        """Return all fields, and whether the clocks were held down, as plain data."""
        return {**asdict(self), "throttled": self.throttled}


class GpuSensor:
    """Reads one GPU. Never raises for what the system lacks: ``reason`` then says why there are no readings.

    ``identity`` is a UUID (``GPU-…``, ``MIG-…``, or bare as torch prints it) or a PCI bus id. An index would not do:
    CUDA counts other devices than NVML, in another order. ``cuda_identity`` finds it.
    """

    def __init__(self, identity: str) -> None:
        self.reason: str | None = None
        self._handle: Any = None
        nvml, self.reason = _start()
        if nvml is None:
            return
        self._nvml = nvml
        self._names = _reason_names(nvml)
        for find, name in _searches(nvml, identity):
            self._handle = self._read(find, name)
            if self._handle is not None:
                return
        self.reason = f"NVML knows no GPU {identity}"

    def sample(self, own_pids: Collection[int] = ()) -> GpuSample | None:
        """Return all readings now, or None where there are none at all.

        ``other_pids`` are processes that compute on this GPU beside ``own_pids``. They are known only if one of
        the own is listed: in a container NVML shows no processes, or the host's numbers for them. Those of other
        containers may be hidden even so.
        """
        if self._handle is None:
            return None
        nvml, handle, read = self._nvml, self._handle, self._read
        used_bytes, memory_api = self._used_bytes()
        rates = read(nvml.nvmlDeviceGetUtilizationRates, handle)
        p_state = read(nvml.nvmlDeviceGetPerformanceState, handle)
        return GpuSample(
            at_s=time.monotonic(),
            used_bytes=used_bytes,
            memory_api=memory_api,
            sm_mhz=read(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            memory_mhz=read(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            temperature_c=read(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            utilisation=None if rates is None else rates.gpu / 100,
            p_state=None if p_state == nvml.NVML_PSTATE_UNKNOWN else p_state,
            reasons=self._reasons(),
            energy_mj=read(nvml.nvmlDeviceGetTotalEnergyConsumption, handle),
            other_pids=self._other_pids(own_pids),
        )

    def _used_bytes(self) -> tuple[int | None, str | None]:
        nvml = self._nvml
        if (memory := self._read(nvml.nvmlDeviceGetMemoryInfo, self._handle, version=nvml.nvmlMemory_v2)) is not None:
            return memory.used, "v2"
        if (memory := self._read(nvml.nvmlDeviceGetMemoryInfo, self._handle)) is not None:
            return memory.used, "v1"
        return None, None

    def _reasons(self) -> tuple[str, ...] | None:
        nvml = self._nvml
        bits = self._read(nvml.nvmlDeviceGetCurrentClocksEventReasons, self._handle)
        if bits is None:
            # What drivers before 535 call the same.
            bits = self._read(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle)
        return None if bits is None else tuple(sorted(name for bit, name in self._names.items() if bits & bit))

    def _other_pids(self, own_pids: Collection[int]) -> tuple[int, ...] | None:
        processes = self._read(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle)
        pids = {process.pid for process in processes or ()}
        return tuple(sorted(pids.difference(own_pids))) if pids.intersection(own_pids) else None

    def _read(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return what an NVML function returns, or None where it fails: each reading may be unsupported."""
        try:
            return function(*arguments, **named)
        except self._nvml.NVMLError:
            return None


def summarise(samples: list[GpuSample]) -> GpuUse:
    """Return what samples in order of time, at least one, show about the window from the first to the last."""

    def known(name: str) -> list[Any]:
        return [value for value in (getattr(sample, name) for sample in samples) if value is not None]

    def union(name: str) -> tuple[Any, ...] | None:
        values = known(name)
        return tuple(sorted(set().union(*values))) if values else None

    apis = known("memory_api")
    window_s = samples[-1].at_s - samples[0].at_s
    return GpuUse(
        samples=len(samples),
        window_s=window_s,
        peak_used_bytes=max(known("used_bytes"), default=None),
        memory_api=apis[0] if apis else None,
        lowest_sm_mhz=min(known("sm_mhz"), default=None),
        lowest_memory_mhz=min(known("memory_mhz"), default=None),
        highest_temperature_c=max(known("temperature_c"), default=None),
        mean_utilisation=_mean_utilisation(samples),
        slowest_p_state=max(known("p_state"), default=None),
        reasons=union("reasons"),
        energy_j=_energy_j(samples[0].energy_mj, samples[-1].energy_mj, window_s),
        other_pids=union("other_pids"),
    )


def identities() -> tuple[list[str], str | None]:
    """Return the UUIDs of all GPUs that NVML knows, or none and the reason."""
    nvml, reason = _start()
    if nvml is None:
        return [], reason
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        found = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except nvml.NVMLError as error:
        return [], f"NVML failed: {error}"
    return found, None if found else "the driver sees no NVIDIA GPU"


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, None where NVML does not tell."""
    nvml, _ = _start()
    if nvml is None:
        return None
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return None


def cuda_identity(properties: Any) -> str:
    """Return the identity for ``GpuSensor`` of what ``torch.cuda.get_device_properties`` describes."""
    uuid = getattr(properties, "uuid", None)
    if uuid is not None:
        return str(uuid)
    return f"{properties.pci_domain_id:08X}:{properties.pci_bus_id:02X}:{properties.pci_device_id:02X}.0"


def cupy_pool_bytes() -> int | None:
    """Return what CuPy's default memory pool holds in this process, None where CuPy is not in use.

    The pool never gives memory back by itself, so at the end this is its peak.
    """
    cupy = sys.modules.get("cupy")
    return None if cupy is None else int(cupy.get_default_memory_pool().total_bytes())


def _start() -> tuple[Any, str | None]:
    """Return the module with NVML at work, or None and the reason."""
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed: pip install nvidia-ml-py"
    try:
        # Counted by NVML: each start after the first costs nothing, and the end of the process ends them all.
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, f"no NVIDIA driver ({error})"
    return pynvml, None


def _searches(nvml: Any, identity: str) -> list[tuple[Callable[[Any], Any], str]]:
    by_uuid, by_bus = nvml.nvmlDeviceGetHandleByUUID, nvml.nvmlDeviceGetHandleByPciBusId
    if identity.startswith(("GPU-", "MIG-")):
        return [(by_uuid, identity)]
    if ":" in identity:
        return [(by_bus, identity)]
    return [(by_uuid, f"GPU-{identity}"), (by_uuid, f"MIG-{identity}")]


def _reason_names(nvml: Any) -> dict[int, str]:
    """Return the name of each bit; where the library has a deprecated second one, the first."""
    names: dict[int, str] = {}
    for prefix in ("nvmlClocksEventReason", "nvmlClocksThrottleReason"):
        for name in sorted(vars(nvml)):
            bit = vars(nvml)[name] if name.startswith(prefix) else None
            if isinstance(bit, int) and bit.bit_count() == 1:
                names.setdefault(bit, name.removeprefix(prefix))
    return names


def _mean_utilisation(samples: list[GpuSample]) -> float | None:
    weighted = total_s = 0.0
    for before, sample in itertools.pairwise(samples):
        if sample.utilisation is not None:
            weighted += sample.utilisation * (sample.at_s - before.at_s)
            total_s += sample.at_s - before.at_s
    return weighted / total_s if total_s else None


def _energy_j(before_mj: int | None, after_mj: int | None, window_s: float) -> float | None:
    if before_mj is None or after_mj is None or after_mj < before_mj or window_s < ENERGY_WINDOW_S:
        return None
    return (after_mj - before_mj) / 1000
