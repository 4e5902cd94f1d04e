"""What is known of a run so far, whatever becomes of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.measure import environment
from bench.measure.page_cache import Brought
from bench.measure.sampler import Sampled
from bench.records.learned import EvaluationInfo, TrainingInfo
from bench.records.record import EpochInfo, ErrorInfo, GpuInfo, OrderInfo, Phase, Status
from bench.training.predictions import Predictions


@dataclass(slots=True)
class CacheEpoch:
    """The page cache around one epoch; ``read_bytes`` came from storage, opening included."""

    brought: Brought
    read_bytes: int | None = None
    resident_after: float | None = None
    resident_bytes_after: int | None = None


@dataclass(slots=True)
class Findings:
    """What is known of a run so far."""

    status: Status = "interrupted"
    phase: Phase = "prepare"
    error: ErrorInfo | None = None
    trace: str | None = None
    environment: dict[str, Any] = field(default_factory=environment.machine)
    device: str | None = None
    reader: dict[str, Any] = field(default_factory=dict)
    epochs: list[EpochInfo] = field(default_factory=list)
    training: TrainingInfo | None = None
    validation: list[EvaluationInfo] = field(default_factory=list)
    test: EvaluationInfo | None = None
    predictions: Predictions | None = None
    """Those of the last evaluation."""

    ideal: EpochInfo | None = None
    order: OrderInfo | None = None
    checked_samples: int | None = None
    baseline_pss_bytes: int | None = None
    sampled: Sampled | None = None
    limited_peak_bytes: int | None = None
    cache: list[CacheEpoch] = field(default_factory=list)
    cache_probe: str | None = None
    gpu: GpuInfo | None = None
    gpu_used_before_bytes: int | None = None
    gpu_used_context_bytes: int | None = None
    last_lines: list[str] = field(default_factory=list)
    begun: bool = False
    """Whether an epoch has begun in this process, and not only in those that it goes on from."""

    @property
    def concludes_only(self) -> bool:
        """Whether every epoch was that of an earlier process: memory and GPU of this one say nothing of any."""
        return bool(self.epochs) and not self.begun

    def last_epoch(self) -> str:
        """Return what a run that goes on behind the last epoch has to know of it."""
        epoch, cache = self.epochs[-1], self.cache[-1]
        evaluated = self.validation[-1] if self.validation else None
        kept = {
            "epoch": epoch.model_dump(mode="json"),
            "cache": asdict(cache),
            "validation": None if evaluated is None else evaluated.model_dump(mode="json"),
        }
        return json.dumps(kept)

    def go_on_from(self, text: str) -> None:
        """Take over an epoch of an earlier process, as ``last_epoch`` told of it."""
        kept = json.loads(text)
        cache = kept["cache"]
        self.epochs.append(EpochInfo.model_validate(kept["epoch"]))
        self.cache.append(CacheEpoch(**{**cache, "brought": Brought(**cache["brought"])}))
        if kept["validation"] is not None:
            self.validation.append(EvaluationInfo.model_validate(kept["validation"]))
