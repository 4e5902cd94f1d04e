"""Which way of storing and loading to take for an aim, by what was measured: from runs of one work to an Advice.

Nothing is claimed here that was not shown: what was not told apart is a tie, and the next criterion of the aim decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.comparisons.comparison import Contrast
from bench.comparisons.criteria import Step, median, order
from bench.comparisons.tradeoffs import (
    PARETO_METRICS,
    BreakEven,
    Noise,
    balance,
    break_evens,
    epoch_contrasts,
    noise,
    pareto,
)
from bench.contracts.errors import BenchError
from bench.records.bottleneck import held_back, possible_over, shares_cpu
from bench.records.comparability import LOADING_FIELDS, Difference, differences
from bench.records.groups import Group, Work, equal_runs, finished, same_work
from bench.records.record import RunRecord
from bench.specs.spec import NO_MODEL, RunSpec

TRAINING_EPOCHS = 10
"""How many epochs a training is taken to have where nothing is said."""

PILOT = "-pilot"
"""How the ids of campaigns end whose runs only say what is worth measuring."""

AimName = Literal["speed", "disk", "ram", "remote", "balanced"]


class AdviceError(BenchError):
    """Records from which no advice follows."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What the user wants: in words, and as metrics, each of which decides what those before it left tied."""

    name: AimName
    meaning: str
    criteria: tuple[str, ...]


AIMS: Mapping[str, Aim] = {
    aim.name: aim
    for aim in (
        Aim("speed", "the shortest epoch", ("epoch_s", "store_mb", "peak_pss_mb", "prepare_s")),
        Aim("disk", "the store that takes least of the disk", ("store_mb", "epoch_s", "peak_pss_mb", "prepare_s")),
        Aim(
            "ram",
            "the lowest peak RAM of all processes of a run; mapped files are part of it, although the system can take "
            "that part back",
            ("peak_pss_mb", "epoch_s", "store_mb", "prepare_s"),
        ),
        Aim(
            "remote",
            "few requests to storage over a network, where each costs a round trip: few files (up to ten times as many "
            "count as equal), then few bytes read from storage per epoch (cold page cache), then few read calls, which "
            "reads through a mapping are none of",
            ("files", "storage_read_mb", "read_calls", "epoch_s"),
        ),
        Aim(
            "balanced",
            "of those that nothing else is preferable to, the least product of three factors to the best: time of "
            "a training with its preparation, store, peak RAM. Each weighs the same: twice the disk is as bad as "
            "twice the time",
            (),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """Whether storage holds the training back, judged by the ``fastest`` group.

    ``over`` is what its epoch takes more than training from memory, ``wait`` its waiting for data, in percent; None
    where unknown, or impossible by noise. ``free`` are the groups that storage does not hold back, ``unclear`` those of
    which that cannot be told. ``reason`` says what keeps from telling it of the fastest.
    """

    is_storage: bool | None
    fastest: Group
    over: float | None
    wait: float | None
    free: tuple[Group, ...] = ()
    unclear: tuple[Group, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Related:
    """What other runs of the same data set say: in what they differ, and which group is the first there."""

    work: Work
    differences: tuple[Difference, ...]
    first: Group
    shown: bool
    same: bool


@dataclass(frozen=True, slots=True)
class Advice:
    """The groups of a work for an aim, the recommended one first, and all that speaks for it.

    ``lossy`` groups were left out: they do not deliver the data set's samples, and at least two others do.
    ``factors`` are those of a balanced choice, ``floors`` the noise that the Pareto set rests on, ``contrasts`` those
    of the other groups' epochs with that of the recommended one, where they ran in the same blocks.
    """

    aim: Aim
    work: Work
    groups: tuple[Group, ...]
    lossy: tuple[Group, ...]
    steps: tuple[Step, ...]
    bottleneck: Bottleneck
    floors: Mapping[str, Noise]
    pareto: tuple[Group, ...]
    factors: Mapping[Group, float]
    contrasts: Mapping[Group, Contrast]
    break_evens: tuple[BreakEven, ...]
    related: tuple[Related, ...]
    training_epochs: int

    @property
    def recommended(self) -> Group:
        """The first of the groups."""
        return self.groups[0]

    @property
    def shown(self) -> bool:
        """Whether the recommended group was shown to be the best in what the aim asks for first."""
        return bool(self.steps) and self.steps[0].shown


def choose_work(records: Sequence[RunRecord]) -> tuple[Work, list[Work]]:
    """Return the work that has most groups, the newest of several, and the others. Raises AdviceError for none."""
    works = works_of(records)
    if not works:
        raise AdviceError("There is no finished run to advise from. Make some with `bench advise --dataset NAME`.")
    chosen = max(works, key=lambda work: (len(work.groups), max(record.started_at for record in work.records)))
    return chosen, [work for work in works if work is not chosen]


def works_of(records: Iterable[RunRecord]) -> list[Work]:
    """Return what finished runs did, apart from runs that only searched for what is worth measuring.

    Those are the pilots of a measurement for advice and the runs of a tuning: single ones, on few samples.
    """
    return same_work(equal_runs([record for record in finished(records) if not _only_searched(record)]))


def _only_searched(record: RunRecord) -> bool:
    pilot = record.campaign is not None and record.campaign.id.endswith(PILOT)
    return pilot or "tuning" in record.environment


def advise(
    work: Work,
    aim: str = "balanced",
    others: Iterable[Work] = (),
    training_epochs: int = TRAINING_EPOCHS,
    *,
    lossy: bool = False,
) -> Advice:
    """Return the advice that the runs of a work allow. Raises AdviceError where there is nothing to choose from.

    Unless ``lossy`` ones are welcome, they are left out where that leaves two or more to choose from.
    """
    if aim not in AIMS:
        raise AdviceError(f"--for {aim}: unknown. Choose from: {', '.join(AIMS)}.")
    wanted = AIMS[aim]
    known = [group for group in work.groups if group.summary("epoch_s") is not None]
    if len(known) < 2:
        raise AdviceError(
            "There is nothing to choose from: fewer than two ways of storing did the same work under the same "
            "circumstances. `bench advise --dataset NAME` measures some."
        )
    lossless = [group for group in known if not group.is_lossy]
    left_out: list[Group] = []
    if not lossy and len(lossless) > 1:
        left_out, known = [group for group in known if group.is_lossy], lossless
    bottleneck = judge_bottleneck(known)
    floors = {metric: noise(known, metric) for metric in PARETO_METRICS}
    best = pareto(known, floors, bottleneck.free)
    factors = balance(known, training_epochs, bottleneck.free)
    if wanted.name == "balanced":
        last = float("inf")
        ordered = sorted(known, key=lambda group: (group not in best, factors.get(group, last)))
        steps: list[Step] = []
    else:
        ordered, steps = order(known, wanted.criteria, bottleneck.free)
    contrasts = epoch_contrasts(ordered[0], known)
    return Advice(
        wanted,
        work,
        tuple(ordered),
        tuple(left_out),
        tuple(steps),
        bottleneck,
        floors,
        tuple(best),
        factors,
        contrasts,
        tuple(break_evens(ordered[0], contrasts)),
        tuple(_related(work, ordered[0], others, wanted, training_epochs, lossy=lossy)),
        training_epochs,
    )


def judge_bottleneck(groups: Sequence[Group]) -> Bottleneck:
    """Return whether storage holds the training back, by the group of the shortest epoch; at least one has epochs."""
    fastest = min(groups, key=lambda group: median(group, "epoch_s") or float("inf"))
    over, wait = possible_over(fastest.counted), median(fastest, "wait_share")
    if fastest.first.spec.model == NO_MODEL:
        return Bottleneck(None, fastest, None, wait, reason="no network was trained, so nothing could be held back")
    judged = {group: held_back(group.counted) for group in groups}
    free = tuple(group for group, held in judged.items() if held is False)
    unclear = tuple(group for group, held in judged.items() if held is None)
    reason = _why_unclear(fastest) if fastest in unclear else None
    return Bottleneck(judged[fastest], fastest, over, wait, free, unclear, reason)


def _why_unclear(group: Group) -> str:
    if not shares_cpu(group.first):
        return "its epochs took longer than from memory, though they hardly waited for data"
    if median(group, "over_ceiling") is None:
        return "the ceiling was not measured, and workers share the CPU with the training"
    return "epochs seemed faster than from memory, and workers share the CPU with the training: too much noise"


def way(group: Group) -> str:
    """Return what identifies a way of storing and loading, whatever the work."""
    spec = group.first.spec
    return RunSpec.model_dump_json(spec, include=set(LOADING_FIELDS))


def _related(
    work: Work, recommended: Group, others: Iterable[Work], aim: Aim, training_epochs: int, *, lossy: bool
) -> Iterable[Related]:
    for other in others:
        if not _same_data_set(work.first, other.first):
            continue
        try:
            found = advise(other, aim.name, training_epochs=training_epochs, lossy=lossy)
        except AdviceError:
            # A single way of storing says nothing about which to take.
            continue
        own = differences([work.first, other.first], own=LOADING_FIELDS)
        yield Related(other, tuple(own), found.recommended, found.shown, way(found.recommended) == way(recommended))


def _same_data_set(one: RunRecord, other: RunRecord) -> bool:
    return one.data is not None and other.data is not None and one.data.name == other.data.name
