"""Which of several groups of equal runs is best in a metric, and whether that was shown or only seems so.

Runs that were not made in blocks cannot be paired, so whatever changed on the machine between them would count as a
difference: of those nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.comparisons.comparable import BY_SEED, INSTEAD, SAME_IN_ALL_RUNS, ComparisonError
from bench.comparisons.comparison import NO_DIFFERENCE, Contrast, compare
from bench.comparisons.shared import cell_name, shared_runs
from bench.contracts.errors import BenchError
from bench.records.comparability import LOADING_FIELDS
from bench.records.groups import Group, Work
from bench.records.metrics import METRICS

EXACT_METRICS = ("store_mb", "files")
"""What does not vary between runs: any difference is one."""

FEW_SEEDS = (
    "runs of one seed differ in this by lossy stores or the order of additions, which says nothing of other seeds"
)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The groups that have a metric, best first: by their medians, unless runs in the same blocks showed otherwise.

    ``contrasts`` are those of the others with the best, by group, where they ran in the same blocks. ``shown`` is
    whether the best was shown to be better than every other; ``reason`` says why not. ``warnings`` are those of the
    comparison: of its runs, or of a control that differs from itself.
    """

    groups: tuple[Group, ...]
    shown: bool
    reason: str | None = None
    contrasts: dict[Group, Contrast] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> Group | None:
        """The best, shown or not; None where no group has the metric."""
        return self.groups[0] if self.groups else None

    def no_worse(self) -> tuple[Group, ...]:
        """Return the best and all groups that were not shown to be worse."""
        worse = {group for group, contrast in self.contrasts.items() if contrast.verdict != NO_DIFFERENCE}
        return tuple(group for group in self.groups if group not in worse)


def rank(work: Work, metric: str) -> Ranking:
    """Rank the groups of a work by a metric that has a better direction."""
    found = [(summary.median, group) for group in work.groups if (summary := group.summary(metric)) is not None]
    sign = -1 if METRICS[metric].better == "higher" else 1
    # Sorting is stable: groups of equal value stay in their order.
    found.sort(key=lambda item: sign * item[0])
    groups = tuple(group for _, group in found)
    if len(groups) < 2:
        return Ranking(groups, shown=False, reason="there is nothing to compare with")
    if metric in EXACT_METRICS:
        shown = found[0][0] != found[1][0]
        return Ranking(groups, shown, None if shown else "another one has the same value")
    if metric in SAME_IN_ALL_RUNS:
        why = "this is measured once for each store"
        if metric in BY_SEED:
            alike = len({repr(value) for group in groups for value in group.values(metric)}) == 1
            why = "this is the same in all runs, by their seed" if alike else FEW_SEEDS
        return Ranking(groups, shown=False, reason=why)
    if any(group.summary(metric) is None and group.values(metric) for group in work.groups):
        return Ranking(groups, shown=False, reason="of one of them only some runs have it")
    if metric in INSTEAD:
        return Ranking(groups, shown=False, reason="this is a difference, of which ratios say nothing")
    if found[0][0] <= 0:
        return Ranking(groups, shown=False, reason="the best value is not above zero, so no other has a ratio to it")
    try:
        return _judged(groups, metric)
    except BenchError as error:
        return Ranking(groups, shown=False, reason=str(error))


def _judged(groups: tuple[Group, ...], metric: str) -> Ranking:
    """Rank by contrasts within blocks. Raises BenchError where there are none."""
    promoted: set[Group] = set()
    while True:
        contrasts, warnings = _contrasts(groups, metric)
        # Medians over all runs are of several campaigns, or of more blocks for one than for another: where they say
        # otherwise than runs in the same blocks, the machine's drift is in them.
        better = [group for group in groups if group in contrasts and contrasts[group].shows_better(METRICS[metric])]
        if not better:
            break
        if promoted & set(better):
            reason = "runs in the same blocks contradict each other"
            return Ranking(groups, shown=False, reason=reason, warnings=warnings)
        promoted.add(better[0])
        groups = (better[0], *(group for group in groups if group is not better[0]))
    unproved = [group for group in groups[1:] if group not in contrasts or contrasts[group].verdict == NO_DIFFERENCE]
    if not unproved:
        return Ranking(groups, shown=True, contrasts=contrasts, warnings=warnings)
    contrast = contrasts.get(unproved[0])
    reason = "not all of them ran in the same blocks" if contrast is None else contrast.reason or NO_DIFFERENCE
    return Ranking(groups, shown=False, reason=reason, contrasts=contrasts, warnings=warnings)


def _contrasts(groups: Sequence[Group], metric: str) -> tuple[dict[Group, Contrast], tuple[str, ...]]:
    """Return the contrast of each other group with the first, and warnings. Raises BenchError where there are none."""
    runs = shared_runs(groups[0], groups)
    if not runs:
        raise ComparisonError("they did not run in turns: use `bench compare` or `bench matrix`")
    names = {group: cell_name(records) for group, records in runs.items()}
    flat = [record for records in runs.values() for record in records]
    compared = compare(flat, metric, names[groups[0]], own=LOADING_FIELDS)
    by_name = {contrast.cell: contrast for contrast in compared.contrasts}
    return {group: by_name[name] for group, name in names.items() if name in by_name}, compared.warnings
