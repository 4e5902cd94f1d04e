"""The record of a run: frozen, versioned, raw. Statistics are derived when it is read.

Schema history:
1  first version.
2  repeats and campaigns; state of the page cache, ceiling, parts of the start-up, sampler, last lines of an error.
   Later on the block shuffle and how well it shuffled; validation, test, folds and augmentation.
   All new fields have defaults, so older records load.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bench.contracts.errors import BenchError
from bench.contracts.source import Origin, Split
from bench.measure.page_cache import Achieved, CacheState
from bench.records.learned import EvaluationInfo, FoldInfo, TrainingInfo
from bench.records.messages import Message
from bench.records.stored import StoreInfo
from bench.specs.pairs import plain
from bench.specs.protocol import AS_RECORDED
from bench.specs.spec import RunSpec, Shuffle

SCHEMA_VERSION = 2

Status = Literal["ok", "failed", "unsupported", "interrupted"]
Phase = Literal["prepare", "cache", "start", "open", "train", "evaluate", "checkpoint", "check", "ideal", "order"]


class RecordError(BenchError):
    """A record that cannot be read."""


class _Part(BaseModel):
    # A loss that has become NaN stays one: JSON has no number for it, and null would mean unknown.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class ErrorInfo(_Part):
    """Why a run is not ``ok``: in which phase, and what happened.

    ``last_lines`` is the end of what the measured process and its workers wrote to stderr.
    """

    phase: Phase
    type: str
    message: Message
    last_lines: list[Message] = []


class WarningInfo(_Part):
    """Something that puts a number in doubt, and what to do about it."""

    kind: str
    message: str


_ITEM_BYTES = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "float16": 2,
    "uint32": 4,
    "int32": 4,
    "float32": 4,
    "uint64": 8,
    "int64": 8,
    "float64": 8,
}


class Skipped(_Part):
    """A file of the raw data that could not be decoded and was left out on request."""

    file: str
    reason: str


class DataInfo(_Part):
    """The data that was delivered.

    ``checked_samples`` were compared with their hashes after the epochs. ``decode_…`` is what
    reading and decoding the raw data took, once for all backends and workers included.
    """

    name: str
    split: Split
    count: int
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...]
    origin: Origin
    digest: str
    checked_samples: int | None = None
    decode_s: float | None = None
    decode_peak_pss_bytes: int | None = None
    decode_baseline_pss_bytes: int | None = None
    not_finite: int = 0
    """How many values are infinite or undefined."""

    skipped_count: int = 0
    skipped: list[Skipped] = []

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value not in _ITEM_BYTES:
            raise ValueError(f"unknown dtype {value}")
        return value

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample without its label."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size * _ITEM_BYTES[self.dtype]


class IoInfo(_Part):
    """What an epoch read, summed over all processes of the run; None where the system does not tell."""

    storage_read_bytes: int | None
    read_call_bytes: int | None
    read_calls: int | None
    major_faults: int | None
    read_amplification: float | None


class ProcessInfo(_Part):
    """What one process used in an epoch, with the children that it waited for; ``main`` is the one that trains."""

    main: bool
    storage_read_bytes: int
    read_call_bytes: int
    read_calls: int
    major_faults: int
    cpu_user_s: float
    cpu_system_s: float


class EpochInfo(_Part):
    """Raw values of one epoch; ``stall_fraction`` is ``wait_s / epoch_s``.

    ``processes`` are those that were alive at its end, their sum is in ``io`` and ``cpu_…`` unless some ended.
    ``augment_s`` is what changing samples at random took, on the device; None where that was not asked for.
    ``open_s`` and ``worker_start_s`` are what opening the store and starting the workers took
    directly before this epoch, outside of it; None where they went on from the epoch before.
    ``resident_before`` and ``resident_after`` are the shares of the store's pages in the page cache.
    """

    epoch: int
    warmup: bool
    samples: int
    epoch_s: float = Field(gt=0)
    first_batch_s: float
    wait_s: float
    copy_s: float
    compute_s: float
    augment_s: float | None = None
    stall_fraction: float
    batch_wait_s: list[float]
    loss: float | None
    accuracy: float | None
    batch_loss: list[float] | None
    io: IoInfo
    cpu_user_s: float | None
    cpu_system_s: float | None
    processes: list[ProcessInfo] = []
    open_s: float | None = None
    worker_start_s: float | None = None
    resident_before: float | None = None
    resident_after: float | None = None


class CacheInfo(_Part):
    """The state of the page cache: asked for, achieved, and how that is known.

    ``achieved`` is None for ``as-is``, which asks for nothing. ``resident_before`` is the share of the
    store's pages in memory before the counted epoch that was furthest from what was asked,
    ``resident_after`` the share after the last epoch.
    """

    asked: CacheState = "as-is"
    achieved: Achieved | None = None
    probe: str | None = None
    resident_before: float | None = None
    resident_after: float | None = None
    proof: str | None = None
    """What was seen, in a sentence."""


class SamplerInfo(_Part):
    """The process that sampled memory and GPU: how often, and what it cost."""

    samples: int
    cpu_s: float
    duration_s: float


class MemoryInfo(_Part):
    """Proportional set size of the run's process tree; the parts are those at the peak.

    ``page_cache_bytes`` is what the kernel kept of the store's files after the last epoch, in whole pages: it can be
    reclaimed at any time, so it is no part of the others. ``rss_peaks_sum_bytes`` adds the peak resident
    sizes of the processes that were alive at the end, an upper bound that counts shared pages repeatedly.
    ``limited_peak_bytes`` is the most that a run under a memory limit used, page cache included (cgroup v2).
    """

    peak_pss_bytes: int | None = None
    baseline_pss_bytes: int | None = None
    anon_bytes: int | None = None
    file_bytes: int | None = None
    shmem_bytes: int | None = None
    page_cache_bytes: int | None = None
    rss_peaks_sum_bytes: int | None = None
    limited_peak_bytes: int | None = None
    sampler: SamplerInfo | None = None


class GpuInfo(_Part):
    """The GPU that was used; None where a value is unknown.

    ``device_used_delta_bytes`` is the peak of what the device had in use minus that directly after the CUDA
    context was created, which took ``context_bytes``; torch's peaks are those of the epochs. ``utilisation`` is
    the share of their time in which any kernel ran (0…1), clocks are the lowest seen in MHz, the temperature the
    highest in °C. ``energy_j`` covers ``energy_window_s``, whole epochs.
    """

    name: str
    torch_peak_allocated_bytes: int | None = None
    torch_peak_reserved_bytes: int | None = None
    cupy_peak_bytes: int | None = None
    device_used_delta_bytes: int | None = None
    context_bytes: int | None = None
    utilisation: float | None = None
    energy_j: float | None = None
    energy_window_s: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    throttle_reasons: list[str] | None = None
    throttled: bool | None = None
    shared: bool | None = None
    """Whether other processes used the device, too."""


class OrderInfo(_Part):
    """The order of samples and, of epoch 0, how well it shuffled them, relative to a uniform shuffle.

    ``balanced`` samples are drawn; ``block_samples`` and ``buffer_blocks`` are those of a block shuffle.
    ``mean_displacement``: 0 is the stored order, 1 a uniform shuffle. ``class_mixing``: 1 is a uniform shuffle, more
    means that the classes of batches vary more. None where nothing is shuffled. See :mod:`bench.loading.order`.
    """

    kind: Literal[Shuffle, "balanced"]
    block_samples: int | None = None
    buffer_blocks: int | None = None
    mean_displacement: float | None
    class_mixing: float | None


class CampaignInfo(_Part):
    """Where a run stands in a comparison of randomised blocks."""

    id: str
    seed: int
    blocks: int
    block: int
    position: int
    cell: str
    control: bool = False
    """The repetition of the first cell that shows how far equal runs differ."""


class RunRecord(_Part):
    """One run, whatever became of it."""

    schema_version: int = SCHEMA_VERSION
    spec_id: str
    spec: RunSpec
    status: Status
    error: ErrorInfo | None = None
    warnings: list[WarningInfo] = []
    started_at: str
    environment: dict[str, Any]
    data: DataInfo | None = None
    store: StoreInfo | None = None
    device: str | None = None
    reader: dict[str, Any] = {}
    """What the reader tells of how it reads: a decoder, a mode, where copies are made."""

    repeat: int = 0
    """Which of several equal runs, each in a process of its own, counted from 0."""

    campaign: CampaignInfo | None = None
    open_s: float | None = None
    ideal: EpochInfo | None = None
    order: OrderInfo | None = None
    epochs: list[EpochInfo] = []
    cache: CacheInfo = CacheInfo()
    memory: MemoryInfo = MemoryInfo()
    gpu: GpuInfo | None = None
    training: TrainingInfo | None = None
    validation: list[EvaluationInfo] = []
    test: EvaluationInfo | None = None
    fold: FoldInfo | None = None

    def measured(self) -> list[EpochInfo]:
        """Return the epochs that count: all but warm-ups."""
        return [epoch for epoch in self.epochs if not epoch.warmup]

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return self.model_dump_json(indent=1)


def read_record(path: Path) -> RunRecord:
    """Load a record of this or an older version. Raises RecordError."""
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
        if version > SCHEMA_VERSION:
            raise RecordError(f"{path} was written by a newer bench (record version {version}). Upgrade to read it.")
        return recorded(content)
    except ValidationError as error:
        reason, newer = fault(error)
        if newer:
            raise RecordError(f"{path} was written by a newer bench: {reason}. Upgrade to read it.") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
    raise RecordError(f"{path} is not a readable record: {reason}. Remove it or choose another folder.")


def recorded(content: Any) -> RunRecord:
    """Return the record of what JSON holds, whatever of its spec would be refused today. Raises ValidationError."""
    return RunRecord.model_validate(content, context=AS_RECORDED)


def fault(error: ValidationError) -> tuple[str, bool]:
    """Return the first thing that is wrong with a record, and whether that is a field which only a newer one has."""
    first = error.errors()[0]
    place, newer = ".".join(map(str, first["loc"])), first["type"] == "extra_forbidden"
    return f"it has {place}" if newer else f"{place}: {plain(first['msg'])}", newer
