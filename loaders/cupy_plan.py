"""What the cupy backend decides before it touches a GPU: where the samples go, and in which pieces they are moved."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from bench.contracts.reader import Indices

Asked = Literal["auto", "resident", "mapped", "staged", "gds"]
Mode = Literal["resident", "mapped", "staged", "gds"]

SHARE_OF_FREE_VRAM = 0.6
"""How much of the free memory of a GPU a data set may take: the network needs the rest."""

SHARE_OF_AVAILABLE_RAM = 0.5
"""How much of the available RAM may be page-locked: what is cannot be reclaimed by anybody."""

_WIDEST_WORD_BYTES = 16


class Choice(NamedTuple):
    """A mode, and why it was chosen."""

    mode: Mode
    why: str


def choose(asked: Asked, set_bytes: int, free_vram_bytes: int, available_ram_bytes: int) -> Choice:
    """Return the mode for samples of ``set_bytes`` in all: the one that was asked for, or for ``auto`` the fastest."""
    if asked != "auto":
        return Choice(asked, "asked for")
    size = f"{set_bytes / 1e6:,.1f} MB"
    if set_bytes <= SHARE_OF_FREE_VRAM * free_vram_bytes:
        return Choice("resident", f"{size} fit into {SHARE_OF_FREE_VRAM:.0%} of the free GPU memory")
    if set_bytes <= SHARE_OF_AVAILABLE_RAM * available_ram_bytes:
        return Choice("mapped", f"{size} do not fit into {SHARE_OF_FREE_VRAM:.0%} of the free GPU memory")
    return Choice("staged", f"{size} fit neither into the GPU memory nor into {SHARE_OF_AVAILABLE_RAM:.0%} of the RAM")


def word_bytes(row_bytes: int, offset: int = 0) -> int:
    """Return the widest word, of 1 to 16 bytes, that divides each row of ``row_bytes`` from ``offset`` on evenly."""
    return math.gcd(row_bytes, offset, _WIDEST_WORD_BYTES)


class Run(NamedTuple):
    """Rows that follow each other in the file as they do in the batch."""

    place: int
    first: int
    rows: int


def runs(indices: Indices) -> list[Run]:
    """Return the fewest reads that deliver the rows ``indices`` ``(n,)`` in that order."""
    if not len(indices):
        return []
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    places = [0, *breaks.tolist(), len(indices)]
    return [Run(a, int(indices[a]), b - a) for a, b in pairwise(places)]
