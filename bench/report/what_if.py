"""What would change an advice: what other runs say, and what to measure where none do."""

from __future__ import annotations

from collections.abc import Mapping

from bench.comparisons.advice import Advice, Related
from bench.comparisons.tradeoffs import BreakEven
from bench.records.groups import Group
from bench.records.metrics import METRICS, significant
from bench.report.reruns import compare_command
from bench.stats import blocks_needed

MOST_RELATED = 5
_BLOCKS = 8


def break_even_text(point: BreakEven, names: Mapping[Group, str]) -> str:
    """Return when a preparation has repaid, with its uncertainty."""
    low, high = significant(point.interval.low, 3), significant(point.interval.high, 3)
    saves = f"{names[point.faster]} saves {significant(point.saved_s, 3)} s an epoch ({low}…{high})"
    if point.extra_prepare_s <= 0:
        return f"{saves} against {names[point.slower]}, and takes no longer to prepare: ahead from the first epoch."
    extra = f"its {significant(point.extra_prepare_s, 3)} s of preparation more than {names[point.slower]}"
    latest = "it may never do so" if point.latest is None else f"{point.earliest} to {point.latest}"
    epochs = "1 epoch" if point.epochs == 1 else f"{point.epochs} epochs"
    return f"{saves}, so it repays {extra} after {epochs} (95 % interval: {latest}; preparation was timed once)."


def what_if(advice: Advice, names: Mapping[Group, str]) -> list[str]:
    """Return, a sentence each, under which circumstances the advice would be another, or may be."""
    return [
        *_epochs(advice, names),
        *_more_blocks(advice),
        *_related(advice),
        *_cache(advice),
        *_workers(advice, names),
        *_samples(advice),
        *_machine(advice),
    ]


def _epochs(advice: Advice, names: Mapping[Group, str]) -> list[str]:
    texts = []
    for point in advice.break_evens:
        if point.extra_prepare_s <= 0:
            continue
        if point.faster is advice.recommended:
            texts.append(f"With fewer than {point.epochs} epochs in all, {names[point.slower]} takes less time.")
        else:
            texts.append(f"Over more than {point.epochs} epochs, {names[point.faster]} takes less time in all.")
    return texts


def _more_blocks(advice: Advice) -> list[str]:
    undecided = [group for group in advice.groups if group not in advice.bottleneck.free]
    if advice.shown or len(undecided) < 2:
        return []
    known = [advice.contrasts.get(group) for group in advice.groups[1:]]
    needed = max(_BLOCKS, blocks_needed(len(advice.groups) - 1))
    if known and all(contrast is not None and contrast.n >= needed for contrast in known):
        return []
    command = compare_command([group.first for group in advice.groups], "--blocks", str(needed))
    return [f"Too few runs in the same blocks to show all differences. More: {command}"]


def _related(advice: Advice) -> list[str]:
    nearest = sorted(advice.related, key=lambda other: len(other.differences))
    return [_other(other) for other in nearest[:MOST_RELATED] if other.differences]


def _other(other: Related) -> str:
    first = f"{other.first.first.spec.backend}"
    reader = (other.first.first.store.options if other.first.first.store else {}).get("reader")
    label = f"{first}[{reader}]" if reader else first
    what = "; ".join(f"{found.name} {found.values[-1]} instead of {found.values[0]}" for found in other.differences[:4])
    more = len(other.differences) - 4
    what += f" and {more} more" if more > 0 else ""
    told = "shown" if other.shown else "not shown"
    which = f"{label} comes first, too" if other.same else f"{label} comes first instead"
    return f"Measured with {what}: {which} ({told}, {len(other.work.groups)} ways compared)."


def _cache(advice: Advice) -> list[str]:
    record = advice.work.first
    asked = record.spec.cache
    measured = {asked, *(other.work.first.spec.cache for other in advice.related if _differs_in_cache_alone(other))}
    runs = [group.first for group in advice.groups]
    if asked == "cold":
        situation, wanted = "If the store stayed in memory between epochs", "warm"
    else:
        situation, wanted = "If the data did not fit into memory", "cold"
    if wanted in measured:
        return []
    memory = {} if wanted == "cold" else {"memory_limit_bytes": None, "drop_caches": False}
    return [f"{situation}: not measured. Measure it: {compare_command(runs, cache=wanted, **memory)}"]


def _differs_in_cache_alone(other: Related) -> bool:
    return all(found.name.startswith("cache ") for found in other.differences)


def _workers(advice: Advice, names: Mapping[Group, str]) -> list[str]:
    first: dict[int, Group] = {}
    for group in advice.groups:
        first.setdefault(group.first.spec.workers, group)
    if len(first) > 1:
        label = METRICS["epoch_s"].label
        return [
            f"With {workers} workers: {names[group]} comes first ({label} {METRICS['epoch_s'].text(group.counted)} s)."
            for workers, group in sorted(first.items())
        ]
    (workers,) = first
    other = 0 if workers else 2
    runs = [group.first for group in advice.groups]
    return [f"With {other} workers: not measured. Measure it: {compare_command(runs, workers=other)}"]


def _samples(advice: Advice) -> list[str]:
    record = advice.work.first
    if record.spec.limit is None:
        return []
    runs = [group.first for group in advice.groups]
    return [
        f"Measured on the first {record.spec.limit:,} samples. On all of them caches and files may behave differently: "
        f"{compare_command(runs, limit=None)}"
    ]


def _machine(advice: Advice) -> list[str]:
    del advice
    return ["On another machine: measure there, and bring the records together with `bench import FOLDER`."]
