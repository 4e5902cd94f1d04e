"""What reading a split of a data set once has shown: its classes, its values, what it cost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bench.contracts.source import SampleBlock


class SkippedFile(BaseModel):
    """A file that could not be decoded and was left out on request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    reason: str


class Content(BaseModel):
    """The values of a split. All but ``not_finite``, the number of infinite or undefined ones, are of finite values.

    ``low`` and ``high`` are None where there are none.

    ``mean`` and ``std`` are None for uint8, whose scale is known without them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_counts: tuple[int, ...]
    low: float | None
    high: float | None
    mean: float | None
    std: float | None
    not_finite: int


class Decoding(BaseModel):
    """What it took to decode a split, once for all backends, workers included.

    Memory is proportional set size; None where the system does not tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decode_s: float
    peak_pss_bytes: int | None
    baseline_pss_bytes: int | None
    skipped: tuple[SkippedFile, ...]


class ContentTally:
    """Adds up the content of sample blocks."""

    def __init__(self, classes: int) -> None:
        self._class_counts = np.zeros(classes, np.int64)
        self._low, self._high = float("inf"), float("-inf")
        self._count = 0
        self._mean = self._squares = 0.0
        self._moments = False
        self._not_finite = 0

    def add(self, block: SampleBlock) -> None:
        """Count the samples of one block."""
        self._class_counts += np.bincount(block.y, minlength=len(self._class_counts))
        values = block.x.reshape(-1)
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                self._not_finite += int(np.count_nonzero(~finite))
                values = values[finite]
        if not values.size:
            return
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        if values.dtype != np.uint8:
            self._add_moments(values)

    def _add_moments(self, values: NDArray[Any]) -> None:
        # Chan, Golub and LeVeque (1983), "Algorithms for Computing the Sample Variance": pairwise, so exact enough
        # whatever the offset of the values.
        self._moments = True
        mean = float(values.mean(dtype=np.float64))
        with np.errstate(over="ignore"):
            # Of what is larger than 1e154 the deviation is infinite.
            squares = float(np.square(values.astype(np.float64) - mean).sum())
        count = self._count + values.size
        delta = mean - self._mean
        self._squares += squares + delta * delta * self._count * values.size / count
        self._mean += delta * values.size / count
        self._count = count

    def result(self) -> Content:
        """Return what was found so far."""
        empty = self._low > self._high
        return Content(
            class_counts=tuple(self._class_counts.tolist()),
            low=None if empty else self._low,
            high=None if empty else self._high,
            mean=self._mean if self._moments else None,
            std=(self._squares / self._count) ** 0.5 if self._moments else None,
            not_finite=self._not_finite,
        )
