"""The plan of a comparison: randomised complete blocks with a control."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bench.contracts.errors import BenchError


class CampaignError(BenchError):
    """A comparison that cannot be planned."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One run of a campaign: its place, and the cell to run there.

    ``control`` marks the second run of the first cell in a block, whose ``cell`` is that first cell.
    """

    block: int
    position: int
    cell: str
    control: bool

    @property
    def name(self) -> str:
        """What to call it: the cell, or for the control another name."""
        return control_name(self.cell) if self.control else self.cell


def control_name(cell: str) -> str:
    """Return the name under which the control repeats a cell."""
    return f"{cell} again"


def plan(cells: Sequence[str], blocks: int, seed: int, twins: Collection[str] | None = None) -> list[Slot]:
    """Return the runs in the order in which to do them: ``blocks`` times each cell, and controls of ``twins``.

    Every block holds each cell once, and the ``twins``, of the cells the first if not given, once more as controls, in
    an order of its own that depends on ``seed`` and the cells alone. So slow drift falls on all cells alike, and each
    block is a comparison by itself. More blocks continue a plan and leave its beginning as it was. A single cell is a
    study of noise alone.

    The order is that of keys drawn by ``random.Random(seed).random()``, whose sequence Python promises to keep
    for ever, other than that of ``shuffle``: the same seed gives the same plan in every version.

    Raises:
        CampaignError: no cell, one named twice, no block, or a negative seed.
    """
    _require_sense(cells, blocks, seed)
    keys = random.Random(seed)  # noqa: S311 - no secret
    repeated = [cell for cell in cells if cell in twins] if twins is not None else [cells[0]]
    runs = [(cell, False) for cell in cells] + [(cell, True) for cell in repeated]
    slots = []
    for block in range(blocks):
        drawn = [keys.random() for _ in runs]
        order = sorted(range(len(runs)), key=drawn.__getitem__)
        slots += [Slot(block, position, *runs[index]) for position, index in enumerate(order)]
    return slots


def _require_sense(cells: Sequence[str], blocks: int, seed: int) -> None:
    if not cells:
        raise CampaignError("There is nothing to compare. Name at least one backend with --backend.")
    if not all(cells):
        raise CampaignError("A cell has no name. Every cell needs one of its own.")
    taken: set[str] = set()
    for name in (*cells, *map(control_name, cells)):
        if name in taken:
            raise CampaignError(f"{name} is named twice. Name each once: its control is added by itself.")
        taken.add(name)
    if blocks < 1:
        raise CampaignError(f"--blocks {blocks}: at least one block is needed, and 8 to show small differences.")
    if seed < 0:
        raise CampaignError(f"--seed {seed}: must not be negative.")
