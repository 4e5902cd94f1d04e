"""What to choose for a work, how sure that is, and why: sentences that claim no more than was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.comparisons.comparison import NO_DIFFERENCE, Contrast
from bench.comparisons.ranking import EXACT_METRICS, Ranking, rank
from bench.page.payback import Cost, least_in_total
from bench.records.bottleneck import NEGLIGIBLE_SHARE, held_back, possible_over, share_of_epoch
from bench.records.groups import Group, Work
from bench.records.metrics import IMPOSSIBLE_SHARE, METRICS, significant
from bench.report.labels import Methods
from bench.report.tables import cache_text
from bench.report.verdict import verdict
from bench.specs.spec import NO_MODEL

Sureness = Literal["shown", "in part", "not shown", "does not matter", "no choice"]

SOME_RUNS = 3
NAMED = 3
"""How many methods a sentence names before it counts the others."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A headline, how sure it is, sentences that say why, and what else may decide.

    ``doubts`` say what puts the numbers themselves in question. ``best`` is the number of the group with the shortest
    epoch, None where no group has one; ``close`` are the numbers of all groups that were not shown to be slower.
    """

    headline: str
    sureness: Sureness
    why: tuple[str, ...]
    also: tuple[str, ...]
    doubts: tuple[str, ...]
    best: int | None
    close: tuple[int, ...]


def judge(work: Work, labels: Sequence[str], ranking: Ranking) -> Verdict:
    """Return the verdict on a work; ``ranking`` is that of its epochs, ``labels`` name its groups."""
    names = dict(zip(work.groups, labels, strict=True))
    numbers = {group: number for number, group in enumerate(work.groups)}
    best = ranking.best
    if best is None:
        return Verdict("No run completed an epoch", "no choice", (), (), (), None, ())
    doubts = (*ranking.warnings, *_doubts(work))
    close = ranking.no_worse()
    places = tuple(numbers[group] for group in close)
    why: tuple[str, ...]
    if len(ranking.groups) == 1:
        alone = f"Only {names[best]} was measured on this work: there is nothing to compare with."
        why = (verdict(best.counted), alone)
        return Verdict("One method, no comparison", "no choice", why, (), doubts, numbers[best], places)
    free = [group for group in ranking.groups if _within_ceiling(group)]
    headline, sureness = _headline(ranking, names)
    if _impossible(best):
        headline, sureness = f"No verdict: {names[best]} seems faster than training from memory", "not shown"
    why = (_how_sure(ranking, names), _lead(ranking, names))
    if len(free) == len(ranking.groups):
        headline, sureness, why = "The format hardly matters here", "does not matter", (_all_free(free, names), *why)
    else:
        why = (*why, _ceiling(ranking, free, names))
    return Verdict(headline, sureness, why, tuple(_also(close, names)), doubts, numbers[best], places)


def _headline(ranking: Ranking, names: dict[Group, str]) -> tuple[str, Sureness]:
    best, close = names[ranking.groups[0]], ranking.no_worse()
    if ranking.shown:
        return f"Choose {best}", "shown"
    if len(close) == len(ranking.groups):
        return f"{best} seems fastest, which was not shown", "not shown"
    if len(close) > NAMED:
        return f"Choose {best} or one of {len(close) - 1} others that were not shown to be slower", "in part"
    *others, last = [names[group] for group in close]
    return f"Choose {', '.join(others)} or {last}: not told apart in speed", "in part"


def _how_sure(ranking: Ranking, names: dict[Group, str]) -> str:
    best = ranking.groups[0]
    others = len(ranking.groups) - 1
    if ranking.shown:
        return (
            f"Shown: in randomised blocks, {names[best]} was faster than {_each(others)} (95 % confidence, adjusted "
            "for the number of comparisons, and more than equal runs differ by)."
        )
    reason = (ranking.reason or NO_DIFFERENCE).rstrip(".").replace(NO_DIFFERENCE, "what they differ by may be chance")
    if not ranking.contrasts:
        return f"Nothing was shown: {reason}. The order below is that of the medians, and may be chance."
    close = [group for group in ranking.no_worse() if group is not best]
    text = f"Not shown to be faster than {_named(close, names)}: {reason}."
    slower = others - len(close)
    return f"{text} Shown to be slower: {slower} of {others}." if slower else text


def _each(others: int) -> str:
    return "the other" if others == 1 else f"each of the {others} others"


def _lead(ranking: Ranking, names: dict[Group, str]) -> str:
    best, *others = ranking.groups
    epoch = best.summary("epoch_s")
    assert epoch is not None  # noqa: S101  # a ranking holds only groups that have the metric
    runs = f"{epoch.n} runs" if len(best.counted) > 1 else "1 run"
    text = f"Its median epoch is {significant(epoch.median, 3)} s ({runs})"
    contrast = ranking.contrasts.get(others[0])
    if contrast is not None and contrast.ratio is not None:
        return f"{text}. {_gap(others[0], contrast, contrast.ratio, names)}"
    second = others[0].summary("epoch_s")
    assert second is not None  # noqa: S101  # as above
    return f"{text}; that of the next, {names[others[0]]}, {significant(second.median, 3)} s."


def _gap(group: Group, contrast: Contrast, ratio: float, names: dict[Group, str]) -> str:
    interval = contrast.interval
    spread = f" (95 % interval {interval.low:.3f}…{interval.high:.3f}, {contrast.n} blocks)" if interval else ""
    return f"An epoch with the next, {names[group]}, takes {ratio:.3f} times as long{spread}."


def _over_ceiling(group: Group) -> float | None:
    summary = group.summary("over_ceiling")
    return None if summary is None else summary.median


def _impossible(group: Group) -> bool:
    over = _over_ceiling(group)
    return over is not None and over < -IMPOSSIBLE_SHARE


def _within_ceiling(group: Group) -> bool:
    return possible_over(group.counted) is not None and held_back(group.counted) is False


def _all_free(free: Sequence[Group], names: dict[Group, str]) -> str:
    return (
        f"Storage is not the bottleneck: by the medians, {_named(free, names)} all train within {NEGLIGIBLE_SHARE:g} % "
        "of the ceiling, which is the same training from memory, and hardly wait for data. A faster format could gain "
        "no more than that."
    )


def _ceiling(ranking: Ranking, free: Sequence[Group], names: dict[Group, str]) -> str:
    best = ranking.groups[0]
    if best.first.spec.model == NO_MODEL:
        rate = METRICS["samples_per_s"].text(best.counted)
        return f"Loading alone: the fastest delivers {rate} samples/s. Training that takes fewer need not wait for it."
    over = _over_ceiling(best)
    if over is None:
        return "The ceiling was not measured, so it is unknown how much storage costs at all."
    if _impossible(best):
        return (
            f"By the medians, the fastest epoch is {significant(-over, 2)} % shorter than training from memory, which "
            "is impossible: the machine is too noisy for runs this short."
        )
    if free:
        others = [group for group in free if group is not best]
        more = f", and so are {_named(others, names)}" if others else ""
        return (
            f"By the medians, the fastest is within {NEGLIGIBLE_SHARE:g} % of the ceiling, training from memory{more}."
        )
    wait, share = best.summary("wait_share"), share_of_epoch(over)
    if wait is not None and wait.median > share:
        return f"The fastest waits for data in {significant(wait.median, 2)} % of its epoch: no format can gain more."
    over_text = f"{significant(over, 2)} % over the ceiling, training from memory"
    return f"The fastest is {over_text}: no format can gain more than that, {significant(share, 2)} % of the epoch."


def _also(close: Sequence[Group], names: dict[Group, str]) -> list[str]:
    """Return in what the methods that were not shown to be slower differ otherwise."""
    found = []
    if len(close) > 1:
        methods = Methods([record for group in names for record in group.records], spoken=True)
        stores = {group: methods.store(group.first) for group in names}
        found.append(f"Not told apart in speed: {_named(close, names)}. Among them:")
        found.append(_least(close, "store_mb", "Disk", stores))
        found.append(_least(close, "peak_pss_mb", "RAM at its peak", names))
        found.append(_least(close, "prepare_s", "Time to prepare", stores))
    costs = [
        Cost(names[group], prepare.median, epoch.median)
        for group in close
        if (prepare := group.summary("prepare_s")) and (epoch := group.summary("epoch_s"))
    ]
    if len(costs) > 1:
        found.append(_in_total(least_in_total(costs)))
    lossy = [group for group in close if group.is_lossy]
    found += [f"Lossy, so not the same bytes: {_named(lossy, names)}."] if lossy else []
    return [text for text in found if text]


def _least(groups: Sequence[Group], metric: str, what: str, names: dict[Group, str]) -> str:
    ranking = rank(Work(tuple(groups)), metric)
    if len(ranking.groups) < 2:
        return ""
    unit, texts = METRICS[metric].unit, {group: METRICS[metric].text(group.counted) for group in ranking.groups}
    first, *_ = texts.values()
    alike = [group for group, text in texts.items() if text == first]
    others = [group for group in texts if group not in alike]
    if not others:
        return f"{what}: {first} {unit} with each of them."
    doubt = " (measured once for each store)" if metric == "prepare_s" else " (not shown)"
    doubt = "" if ranking.shown or metric in EXACT_METRICS else doubt
    after = f"next {names[others[0]]}, {texts[others[0]]} {unit}{doubt}"
    return f"{what}: least with {_named(alike, names)}, {first} {unit}; {after}."


def _in_total(steps: Sequence[tuple[int, str]]) -> str:
    if len(steps) == 1:
        return f"Preparation and epochs together: {steps[0][1]} takes least from the first epoch on, by the medians."
    later = "; ".join(f"from {start:,} epochs on {name}" for start, name in steps[1:])
    return f"Preparation and epochs together: at first {steps[0][1]} takes least, {later}, by the medians."


def _doubts(work: Work) -> list[str]:
    """Return what puts all numbers of a work in question."""
    found, records = [], work.records
    record = work.first
    if record.cache.asked != "as-is" and record.cache.achieved != "verified":
        found.append(f"The page cache was to be {record.cache.asked}, which was not verified: {cache_text(record)}.")
    if record.data is not None and record.data.origin == "synthetic":
        found.append("The data is a synthetic stand-in: what it shows need not hold for the real data set.")
    if min(len(group.counted) for group in work.groups) < SOME_RUNS:
        found.append("Some methods ran fewer than 3 times, so how far equal runs differ is hardly known.")
    warned = sum(any(warning.kind != "no-repeats" for warning in run.warnings) for run in records)
    if warned:
        found.append(f"{warned} of {len(records)} runs come with a warning; see Warnings.")
    return found


def _named(groups: Sequence[Group], names: dict[Group, str]) -> str:
    # Methods that read one store have one name where the store is meant.
    found = list(dict.fromkeys(names[group] for group in groups))
    shown = found[:NAMED]
    more = len(found) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
