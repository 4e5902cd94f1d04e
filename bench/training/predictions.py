"""What a network took samples for: the way from the measured process to an evaluation, and to a file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.files import write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Predictions:
    """Classes ``(n,)`` of some samples, ``true`` and ``predicted``, in the order of their numbers ``indices`` ``(n,)``.

    ``split`` and ``epoch`` are those of :class:`bench.records.learned.EvaluationInfo`, ``loss`` is the mean over the
    samples, ``evaluate_s`` what delivering them and predicting took.
    """

    split: str
    epoch: int
    indices: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    loss: float
    evaluate_s: float

    def write(self, path: Path) -> None:
        """Write them as CSV: ``index,true,predicted``, the number of a sample in its split and two class numbers.

        Raises OutputError.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("index", "true", "predicted"))
        rows.writerows(zip(self.indices.tolist(), self.true.tolist(), self.predicted.tolist(), strict=True))
        write_text(path, text.getvalue())
