"""How a spec is run one time: nothing of it changes what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.records.learned import FoldInfo
    from bench.records.record import CampaignInfo


@dataclass(frozen=True, slots=True)
class Attempt:
    """``repair`` rebuilds a damaged store, ``ceiling`` also measures the ceiling.

    ``timeout_s`` is how long the measured process may show no sign of life. ``repeat`` and ``campaign``
    say which of several runs this is, ``fold`` which of a cross-validation, ``command`` what was typed. The run is kept
    at ``checkpoint`` after every epoch, and goes on from there. With ``errors_are_results``, what keeps the measurement
    from beginning becomes a failed record, too, instead of being raised.
    """

    repair: bool = False
    ceiling: bool = True
    timeout_s: float = 600.0
    repeat: int = 0
    campaign: CampaignInfo | None = None
    command: tuple[str, ...] = ()
    errors_are_results: bool = False
    fold: FoldInfo | None = None
    checkpoint: Path | None = None
