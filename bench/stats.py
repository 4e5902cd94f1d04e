"""Statistics over raw values: pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """Median, smallest and largest of ``n`` values."""

    n: int
    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half the range over the median; 0 for a single value, which shows no spread."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def summarise(values: Sequence[float]) -> Summary | None:
    """Return the summary of some values, None for none."""
    if not values:
        return None
    return Summary(len(values), statistics.median(values), min(values), max(values))
