"""What the measured process is given; light, so that the parent needs no torch to make one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.spec import NO_MODEL, RunSpec


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that the measured process needs."""

    spec: RunSpec
    root: Path
    hashes_path: Path
    samples: int
    shape: tuple[int, ...]
    dtype: str
    classes: int
    scale: tuple[float, float] | None
    """Mean and standard deviation of the values, for samples that are not bytes."""

    ceiling: bool
    """Whether the ceiling is measured, too: the same training from batches that lie on the device."""

    @property
    def trains_ceiling(self) -> bool:
        """Whether there is a ceiling to measure: loading alone has none."""
        return self.ceiling and self.spec.model != NO_MODEL
