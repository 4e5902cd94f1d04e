"""Which method takes least in all, its preparation counted, for how many epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """What a method takes: once to prepare its store, and for each epoch, in seconds."""

    name: str
    prepare_s: float
    epoch_s: float


def least_in_total(costs: Sequence[Cost]) -> list[tuple[int, str]]:
    """Return which takes least in all, as (from this number of epochs on, name), from 1 epoch on.

    The lower envelope of the lines prepare + epochs x epoch, at whole numbers of epochs. Empty for no costs.
    """
    if not costs:
        return []
    best = min(costs, key=lambda cost: (cost.prepare_s + cost.epoch_s, cost.epoch_s))
    found = [(1, best.name)]
    while faster := [cost for cost in costs if cost.epoch_s < best.epoch_s]:
        crossings = [((cost.prepare_s - best.prepare_s) / (best.epoch_s - cost.epoch_s), cost) for cost in faster]
        at, best = min(crossings, key=lambda item: (item[0], item[1].epoch_s))
        start = max(math.floor(at) + 1, found[-1][0])
        if start == found[-1][0]:
            found[-1] = (start, best.name)
        else:
            found.append((start, best.name))
    return found
