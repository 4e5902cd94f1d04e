"""What to measure for advice within a time: which ways of storing, on how many samples, in how many blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.stats import blocks_needed

FAR_SLOWER = 10.0
"""A way whose epoch takes so many times the shortest is dropped where speed counts."""

FEW = 3
"""Rather fewer samples than fewer ways than that."""

_SMALLER = 3
_SAFETY = 1.15
_HARDLY = 1.25


@dataclass(frozen=True, slots=True)
class Pilot:
    """One short run of a way, on ``samples``, and building its store.

    ``…_work_s`` is the part of ``…_wall_s`` that grows with the samples. ``value`` is what the aim asks for first, the
    less the better.
    """

    name: str
    samples: int
    epoch_s: float
    value: float
    run_wall_s: float
    run_work_s: float
    build_wall_s: float
    build_work_s: float

    def run_s(self, samples: int) -> float:
        """Return how long a run on so many samples is expected to take."""
        return self.run_wall_s + self.run_work_s * (samples / self.samples - 1)

    def build_s(self, samples: int) -> float:
        """Return how long building its store of so many samples is expected to take."""
        return self.build_wall_s + self.build_work_s * (samples / self.samples - 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured: ways by name, the samples, and blocks of one run each and a control.

    ``enough`` is whether so many blocks can show a difference. ``dropped`` says why other ways are left out.
    """

    names: tuple[str, ...]
    samples: int
    blocks: int
    enough: bool
    dropped: Mapping[str, str] = field(default_factory=dict)


def plan(pilots: Sequence[Pilot], total: int, left_s: float, *, by_speed: bool) -> Plan:
    """Return what fits into the time that is left; ``by_speed`` drops what is far slower, where not everything fits.

    First come all samples, with as many ways as can be told apart in the time, three at least; then fewer samples; then
    two ways. Where not even that suffices, the two best run as often as they can, on as many samples as hardly make a
    block longer. There is at least one pilot, all of the same samples.
    """
    fastest = min(pilots, key=lambda pilot: pilot.epoch_s)
    all_fit = len(pilots) > 1 and _cost_s(pilots, total, blocks_needed(len(pilots) - 1)) <= left_s
    dropped: dict[str, str] = {}
    kept = []
    for pilot in sorted(pilots, key=lambda pilot: (pilot.value, pilot.epoch_s)):
        times = pilot.epoch_s / fastest.epoch_s
        if by_speed and times > FAR_SLOWER and not all_fit:
            text = f"its epoch of {pilot.samples:,} samples took {times:.1f} times that of {fastest.name}, in one run"
            dropped[pilot.name] = text
        else:
            kept.append(pilot)
    sizes = _sizes(total, min(total, pilots[0].samples))
    least = min(FEW, len(kept))
    options = [(size, count) for size in sizes for count in range(len(kept), least - 1, -1)]
    options += [(size, 2) for size in sizes if len(kept) > 2]
    for samples, count in options:
        needed = blocks_needed(count - 1) if count > 1 else 1
        chosen = kept[:count]
        if _cost_s(chosen, samples, needed) <= left_s:
            blocks = max(needed, _blocks(chosen, samples, left_s))
            return Plan(_names(chosen), samples, blocks, count > 1, dropped | _no_time(kept[count:], chosen))
    chosen = kept[:2]
    least_s = block_s(chosen, sizes[-1])
    samples = next(size for size in sizes if block_s(chosen, size) <= _HARDLY * least_s)
    blocks = max(1, _blocks(chosen, samples, left_s))
    return Plan(_names(chosen), samples, blocks, enough=False, dropped=dropped | _no_time(kept[2:], chosen))


def block_s(pilots: Sequence[Pilot], samples: int) -> float:
    """Return how long a block is expected to take: a run of each, and the control, which repeats the first."""
    return sum(pilot.run_s(samples) for pilot in [*pilots, pilots[0]])


def _cost_s(pilots: Sequence[Pilot], samples: int, blocks: int) -> float:
    building_s = sum(pilot.build_s(samples) for pilot in pilots)
    return _SAFETY * (building_s + blocks * block_s(pilots, samples))


def _blocks(pilots: Sequence[Pilot], samples: int, left_s: float) -> int:
    free_s = left_s / _SAFETY - sum(pilot.build_s(samples) for pilot in pilots)
    return int(free_s / block_s(pilots, samples))


def _sizes(total: int, smallest: int) -> list[int]:
    sizes = [total]
    while sizes[-1] // _SMALLER >= smallest:
        sizes.append(sizes[-1] // _SMALLER)
    return sizes if sizes[-1] == smallest or len(sizes) > 1 else [*sizes, smallest]


def _names(pilots: Sequence[Pilot]) -> tuple[str, ...]:
    return tuple(pilot.name for pilot in pilots)


def _no_time(left_out: Sequence[Pilot], chosen: Sequence[Pilot]) -> dict[str, str]:
    best = min(pilot.epoch_s for pilot in chosen)
    return {
        pilot.name: f"no time for it; its epoch of {pilot.samples:,} samples took {pilot.epoch_s / best:.1f} times "
        "that of the fastest one measured, in one run"
        for pilot in left_out
    }
