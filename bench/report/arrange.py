"""Where groups of equal runs stand in tables of rows and columns: a group a cell, and alike ones in a line.

What tells runs apart and is neither row nor column divides them into sheets, a table each. Methods are told apart by
the axis that has a facet of them (else by the rows), and so are data sets and machines where an axis has one of theirs.
Columns of different data sets may differ in how the training was set up (batch size, epochs ...), as every data set
has its own; their headings say so. They never differ in machine, versions, cache or device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.records.comparability import LOADING_FIELDS, alike, differences
from bench.records.facets import DATA_FIELDS, Facet, machine_words
from bench.records.groups import Group, asked, equal_runs
from bench.records.record import RunRecord
from bench.records.surroundings import machine_facts
from bench.report.labels import DataSets, Key, Methods, covers_method, order
from bench.specs.spec import RunSpec

_SURROUNDINGS = ("device", "cache", "memory_limit_bytes", "drop_caches")


@dataclass(frozen=True, slots=True)
class Axes:
    """The facets that rows and columns stand for; no facet is in both."""

    rows: tuple[Facet, ...]
    columns: tuple[Facet, ...]

    @property
    def facets(self) -> tuple[Facet, ...]:
        """All of them."""
        return (*self.rows, *self.columns)

    def of_kind(self, kind: str) -> tuple[Facet, ...] | None:
        """Return the axis that tells facts of a kind apart, None where neither does; methods always have one."""
        axes = [self.rows, self.columns]
        if kind == "loading":
            # The one that names backends also tells what else there is to tell of them.
            axes.sort(key=lambda axis: not any(map(covers_method, axis)))
        for axis in axes:
            if any(facet.kind == kind for facet in axis):
                return axis
        return self.rows if kind == "loading" else None

    @property
    def own(self) -> tuple[str, ...]:
        """The fields of a spec that lie on the axes."""
        told = [field for facet in self.facets for field in facet.fields]
        return (*LOADING_FIELDS, *told, *(DATA_FIELDS if self.of_kind("data") is not None else ()))

    def stripped(self, record: RunRecord) -> RunRecord:
        """Return a record without what the axes tell apart, for comparing the rest."""
        changes: dict[str, Any] = {}
        if self.of_kind("data") is not None:
            changes["data"] = None
        if self.of_kind("machine") is not None:
            changes["environment"] = {}
        return record.model_copy(update=changes)


@dataclass(slots=True, eq=False)
class Sheet:
    """One table: groups and failed runs by the keys of row and column. ``differs`` are its facts that others lack."""

    cells: dict[tuple[Key, Key], Group] = field(default_factory=dict)
    failures: dict[tuple[Key, Key], list[RunRecord]] = field(default_factory=dict)
    rows: dict[Key, RunRecord] = field(default_factory=dict)
    columns: dict[Key, RunRecord] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> list[Group]:
        """All groups in it."""
        return list(self.cells.values())


@dataclass(frozen=True, slots=True)
class Arrangement:
    """All sheets, the one with most groups first; ``unplaced`` are failed runs that belong to none."""

    axes: Axes
    sheets: list[Sheet]
    methods: Methods
    data_sets: DataSets
    unplaced: list[RunRecord]

    def setup(self, sheet: Sheet) -> dict[Key, dict[str, str]]:
        """Return the facts that tell lines of other data sets or machines apart, beside their names: by row or column.

        Of data sets that is the work that was done with them, of machines what is installed there.
        """
        told: dict[Key, dict[str, str]] = {}
        for axis, lines in ((self.axes.rows, sheet.rows), (self.axes.columns, sheet.columns)):
            records = list(lines.values())
            found: list[list[dict[str, str]]] = []
            if axis is self.axes.of_kind("data"):
                found.append(_told([self.axes.stripped(record) for record in records], self.axes.own))
            if axis is self.axes.of_kind("machine"):
                bare = [record.model_copy(update={"data": None, "device": None}) for record in records]
                found.append(_told(bare, (*RunSpec.model_fields, "cache")))
            for parts in found:
                for key, facts in zip(lines, parts, strict=True):
                    told.setdefault(key, {}).update(facts)
        return told


def arrange(records: Sequence[RunRecord], axes: Axes) -> Arrangement:
    """Put records into sheets."""
    groups = _divided(equal_runs([record for record in records if record.status == "ok"]), axes)
    failed = [record for record in records if record.status != "ok"]
    firsts = [*(group.first for group in groups), *failed]
    data_sets = DataSets([group.first for group in groups])
    for strict in (False, True):
        methods = Methods(firsts, strict=strict)
        sheets, collisions = _sheets(groups, axes, methods)
        if not collisions:
            break
    unplaced = _place_failures(failed, sheets, axes, methods)
    for sheet in sheets:
        sheet.rows = _sorted(sheet.rows, axes.rows, axes, methods, data_sets)
        sheet.columns = _sorted(sheet.columns, axes.columns, axes, methods, data_sets)
    return Arrangement(axes, sheets, methods, data_sets, unplaced)


def _divided(groups: Iterable[Group], axes: Axes) -> list[Group]:
    """Equal runs may still differ in a facet, such as the revision or the campaign, that is to be told apart."""
    divided = []
    for group in groups:
        parts: dict[Key, list[RunRecord]] = {}
        for record in group.records:
            key = tuple(facet.of(record) for facet in axes.facets if facet.kind != "loading")
            parts.setdefault(key, []).append(record)
        divided += [Group(tuple(part)) for part in parts.values()]
    return divided


def _sheets(groups: Sequence[Group], axes: Axes, methods: Methods) -> tuple[list[Sheet], bool]:
    stripped = [axes.stripped(group.first) for group in groups]
    sets = alike(stripped, axes.own)
    around_fields = set(_SURROUNDINGS) - set(axes.own)
    surroundings = alike(stripped, [name for name in RunSpec.model_fields if name not in around_fields])
    around = {number: place for place, numbers in enumerate(surroundings) for number in numbers}
    sheets: list[tuple[int, Sheet]] = []
    collisions = False
    for numbers in sorted(sets, key=len, reverse=True):
        members = [groups[number] for number in numbers]
        sheet = _sheet_for(members, around[numbers[0]], sheets, axes)
        for group in members:
            keys = line_key(group.first, axes.rows, axes, methods), line_key(group.first, axes.columns, axes, methods)
            target = sheet
            if keys in sheet.cells:
                collisions, target = True, Sheet()
                sheets.append((around[numbers[0]], target))
            target.cells[keys] = group
            target.rows.setdefault(keys[0], group.first)
            target.columns.setdefault(keys[1], group.first)
    found = [sheet for _, sheet in sheets]
    firsts = [axes.stripped(sheet.groups[0].first) for sheet in found]
    for sheet, differs in zip(found, _told(firsts, axes.own), strict=True):
        # What differs within a sheet is told by its rows or columns.
        within = differences([axes.stripped(group.first) for group in sheet.groups], axes.own)
        told = {difference.name for difference in within}
        sheet.differs = {name: value for name, value in differs.items() if name not in told}
    return sorted(found, key=lambda sheet: -len(sheet.cells)), collisions


def _sheet_for(members: Sequence[Group], around: int, sheets: list[tuple[int, Sheet]], axes: Axes) -> Sheet:
    """Return a sheet of the same surroundings whose data sets are all others, or a new one."""
    if axes.of_kind("data") is not None:
        new = {DataSets.key(group.first) for group in members}
        for place, sheet in sheets:
            known = {DataSets.key(group.first) for group in sheet.groups}
            names = {key[0] for key in known} & {key[0] for key in new}
            if place == around and not names:
                return sheet
    sheets.append((around, Sheet()))
    return sheets[-1][1]


def _told(records: Sequence[RunRecord], own: Sequence[str]) -> list[dict[str, str]]:
    """Return, for each record, the facts that differ between any of them."""
    if not records:
        return []
    apart = [{d.name: d.values for d in differences([records[0], record], own)} for record in records]
    common = {name: values[0] for values_of in apart for name, values in values_of.items()}
    return [{name: values[name][1] if name in values else first for name, first in common.items()} for values in apart]


def line_key(
    record: RunRecord, axis: Sequence[Facet], axes: Axes, methods: Methods, like: RunRecord | None = None
) -> Key:
    """Return what identifies the row or column of a record; facts that are not of the method are those of ``like``."""
    like = record if like is None else like
    parts: list[str] = []
    for facet in axis:
        if covers_method(facet):
            continue
        parts.append(facet.of(record if facet.kind == "loading" else like))
    if axis is axes.of_kind("loading"):
        parts += methods.key(record, [facet for facet in axes.facets if not covers_method(facet)])
    if axis is axes.of_kind("data"):
        parts += DataSets.key(like)
    if axis is axes.of_kind("machine"):
        parts.append(machine_key(like))
    return tuple(parts)


def machine_key(record: RunRecord) -> str:
    """Return what identifies a machine with what is installed on it."""
    known = record.environment
    machine = machine_facts(known, record.spec.memory_limit_bytes)
    names = ("python", "bench", "freed_memory_kept")
    libraries = sorted((known.get("libraries") or {}).items())
    return "; ".join(
        [machine_words(record), str(machine), *(f"{name} {known.get(name)}" for name in names), str(libraries)]
    )


def _place_failures(
    failed: Sequence[RunRecord], sheets: Sequence[Sheet], axes: Axes, methods: Methods
) -> list[RunRecord]:
    """Put runs without a result where they would stand, beside runs of the same work; return the others."""
    places: dict[str, list[tuple[Sheet, RunRecord]]] = {}
    for sheet in sheets:
        seen = set()
        for record in (record for group in sheet.groups for record in group.records):
            if (work := asked(record)) not in seen:
                seen.add(work)
                places.setdefault(work, []).append((sheet, record))
    unplaced = []
    for record in failed:
        found = [place for place in places.get(asked(record), []) if record.device in (None, place[1].device)]
        for sheet, like in found:
            keys = (
                line_key(record, axes.rows, axes, methods, like),
                line_key(record, axes.columns, axes, methods, like),
            )
            sheet.failures.setdefault(keys, []).append(record)
            sheet.rows.setdefault(keys[0], record)
            sheet.columns.setdefault(keys[1], record)
        if not found:
            unplaced.append(record)
    return unplaced


def _sorted(
    lines: dict[Key, RunRecord], axis: Sequence[Facet], axes: Axes, methods: Methods, data_sets: DataSets
) -> dict[Key, RunRecord]:
    def place(item: tuple[Key, RunRecord]) -> list[Any]:
        return [order(text) for text in line_labels(item[1], axis, axes, methods, data_sets)] + [item[0]]

    return dict(sorted(lines.items(), key=place))


def line_labels(
    record: RunRecord, axis: Sequence[Facet], axes: Axes, methods: Methods, data_sets: DataSets
) -> list[str]:
    """Return a text for each facet of an axis, and one more for methods where none of them stands for those."""
    texts = []
    others = [facet for facet in axes.facets if not covers_method(facet)]
    for facet in axis:
        if covers_method(facet):
            texts.append(methods.label(record, others))
        elif facet.name == "dataset":
            texts.append(data_sets.label(record))
        else:
            texts.append(facet.of(record))
    if needs_method(axis, axes):
        texts.append(methods.label(record, others))
    return texts


def needs_method(axis: Sequence[Facet], axes: Axes) -> bool:
    """Whether an axis tells methods apart and has no facet of its own that says which."""
    return axis is axes.of_kind("loading") and not any(covers_method(facet) for facet in axis)
