"""Whether all methods of a work trained alike: losses batch by batch, validations and tests, else side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.records.groups import Group, Work
from bench.records.learned import EvaluationInfo
from bench.records.metrics import significant
from bench.records.record import RunRecord
from bench.specs.spec import NO_MODEL


@dataclass(frozen=True, slots=True)
class Losses:
    """Of one group: whether its losses equal those of the reference bit for bit, and where they first do not.

    ``equal`` is None where they were not recorded.
    """

    equal: bool | None
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Equality:
    """What is known of a work: ``equal`` is None where it cannot be judged; ``losses`` are in the order of groups.

    ``evaluated`` has a sentence each on validations and tests, where there are several to compare.
    """

    equal: bool | None
    text: str
    losses: tuple[Losses, ...]
    evaluated: tuple[str, ...] = ()


def equality(work: Work, labels: Sequence[str]) -> Equality:
    """Compare the losses of all batches, and all evaluations, of all runs with those of the first that has any."""
    none = tuple(Losses(None) for _ in work.groups)
    if work.first.spec.model == NO_MODEL:
        return Equality(None, "Loading alone: nothing was trained, so there are no losses to compare.", none)
    sentences = [
        _evaluated("Validation", work, labels, lambda record: record.validation),
        _evaluated("Test", work, labels, lambda record: [record.test] if record.test else []),
    ]
    evaluated = tuple(text for text in sentences if text)
    reference = next((record for record in work.records if _batch_losses(record)), None)
    if reference is None:
        return Equality(None, "The losses of batches were not recorded, so they cannot be compared.", none, evaluated)
    losses = tuple(_compare(group, reference) for group in work.groups)
    return Equality(*_judge(losses, work, labels), losses, evaluated)


def _evaluated(
    name: str, work: Work, labels: Sequence[str], of: Callable[[RunRecord], Sequence[EvaluationInfo]]
) -> str:
    """Return whether evaluations of all runs found the same, in a sentence; nothing for fewer than two runs."""
    found = [
        (label, group.first, of(record))
        for label, group in zip(labels, work.groups, strict=True)
        for record in group.records
        if of(record)
    ]
    if len(found) < 2:
        return ""
    facts = [[_facts(one) for one in ones] for _, _, ones in found]
    last = [100 * ones[-1].accuracy for _, _, ones in found]
    low, high = significant(min(last), 4), significant(max(last), 4)
    other = {label: first for (label, first, _), fact in zip(found, facts, strict=True) if fact != facts[0]}
    if not other:
        where = f"after each of {len(facts[0])} epochs, " if len(facts[0]) > 1 else ""
        return f"{name}: identical in all {len(found)} runs, {where}bit for bit: loss, accuracy ({low} %), averages."
    named = ", ".join(list(other)[:5]) + (" and others" if len(other) > 5 else "")
    accuracy = f"accuracy is {low} % in all" if low == high else f"accuracy lies between {low} and {high} %"
    if all(first.store is not None and first.store.lossy is not None for first in other.values()):
        why = "as is to be expected of lossy stores"
    elif work.first.spec.deterministic:
        why = "although these runs are deterministic and have one seed"
    else:
        why = "but these runs were not made with --deterministic"
    return f"{name}: not identical ({named}), {why}; {accuracy}."


def _facts(evaluation: EvaluationInfo) -> tuple[str, list[list[int]] | None]:
    """Return what can differ between evaluations, apart from their time; a NaN equals itself when written."""
    values = evaluation.model_dump(exclude={"evaluate_s", "per_class", "confusion"})
    return repr(values), evaluation.confusion


def _judge(losses: Sequence[Losses], work: Work, labels: Sequence[str]) -> tuple[bool | None, str]:
    deterministic = work.first.spec.deterministic
    runs = sum(len(group.records) for group, one in zip(work.groups, losses, strict=True) if one.equal is not None)
    unknown = sum(one.equal is None for one in losses)
    left_out = f" {unknown} of {len(losses)} methods have no recorded losses." if unknown else ""
    different = [name for name, one in zip(labels, losses, strict=True) if one.equal is False]
    if runs < 2:
        return None, f"Only one run has losses, so there is nothing to compare them with.{left_out}"
    if not different:
        asked = "" if deterministic else ", although determinism was not asked for"
        return (
            True,
            f"Identical: the loss of every batch is the same, bit for bit, in all {runs} runs{asked}.{left_out}",
        )
    lossy = [group.is_lossy for group, one in zip(work.groups, losses, strict=True) if one.equal is False]
    named = ", ".join(different[:5]) + (" and others" if len(different) > 5 else "")
    if all(lossy):
        return False, f"Not identical, as is to be expected of lossy stores: {named}.{left_out}"
    if deterministic:
        return False, (
            f"Not identical, although these runs are deterministic and have one seed: {named}. They did not train on "
            f"the same values in the same order; where it begins stands in the table.{left_out}"
        )
    return None, (
        "Not judged: these runs were not made with --deterministic, so their losses may differ by the order of "
        f"additions alone. The accuracies below stand side by side.{left_out}"
    )


def _batch_losses(record: RunRecord) -> list[list[float]]:
    return [epoch.batch_loss for epoch in record.epochs if epoch.batch_loss]


def _compare(group: Group, reference: RunRecord) -> Losses:
    expected = _batch_losses(reference)
    known = [found for record in group.records if (found := _batch_losses(record))]
    if not known:
        return Losses(None)
    for found in known:
        where = _first_difference(expected, found)
        if where is not None:
            return Losses(False, where)
    return Losses(True)


def _first_difference(expected: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> str | None:
    for epoch, (one, other) in enumerate(zip(expected, found, strict=False)):
        for batch, (a, b) in enumerate(zip(one, other, strict=False)):
            if a != b and not (math.isnan(a) and math.isnan(b)):
                return f"epoch {epoch}, batch {batch}: {b:.9g} instead of {a:.9g}"
        if len(one) != len(other):
            return f"epoch {epoch}: {len(other)} batches instead of {len(one)}"
    return None if len(expected) == len(found) else f"{len(found)} epochs instead of {len(expected)}"
