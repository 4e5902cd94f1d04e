"""What the measured process is given; light, so that the parent needs no torch to make one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.contracts.source import Split
from bench.specs.spec import NO_MODEL, RunSpec


@dataclass(frozen=True, slots=True)
class EvaluatedStore:
    """A store of a split that is evaluated on."""

    split: Split
    root: Path
    hashes_path: Path
    samples: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that the measured process needs."""

    spec: RunSpec
    root: Path
    hashes_path: Path
    samples: int
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...]
    scale: tuple[float, float] | None
    """Mean and standard deviation of the values, for samples that are not bytes."""

    ceiling: bool
    """Whether the ceiling is measured, too: the same training from batches that lie on the device."""

    val: EvaluatedStore | None = None
    """The split for validation; None also where a share of the training samples is held out for it."""

    test: EvaluatedStore | None = None
    digest: str = ""
    """Of the samples, as their source has them: a checkpoint is for these alone."""

    checkpoint: Path | None = None
    fold_id: str | None = None
    """The cross-validation that the run belongs to, which its checkpoint keeps."""

    @property
    def evaluated_digests(self) -> dict[str, str]:
        """The digests of the splits that are evaluated on, by the name of the field."""
        return {name: one.digest for name, one in (("val", self.val), ("test", self.test)) if one is not None}

    @property
    def trains_ceiling(self) -> bool:
        """Whether there is a ceiling to measure: loading alone has none."""
        return self.ceiling and self.spec.model != NO_MODEL

    @property
    def evaluated_samples(self) -> tuple[int, int]:
        """How many samples are evaluated after each epoch, beside those of the training split, and at the end."""
        return (self.val.samples if self.val else 0), (self.test.samples if self.test else 0)
