"""Records as groups of equal runs, and as work: what several groups did, each in its own way of storing and loading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.records.comparability import LOADING_FIELDS, alike
from bench.records.facets import machine_words
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.stats import Interval, Summary, median_interval


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Runs that do not differ in what they did, machine, versions, data or cache state; at least one.

    Compared by identity, so that it can be a key.
    """

    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """Any one of them, for what they have in common."""
        return self.records[0]

    @property
    def counted(self) -> tuple[RunRecord, ...]:
        """The runs that values are made of: without those that repeat them as a control, unless there are no others.

        So every way has as many runs as there were blocks, in a table as in the comparison that they were made for.
        """
        own = tuple(record for record in self.records if not (record.campaign and record.campaign.control))
        return own or self.records

    @property
    def is_lossy(self) -> bool:
        """Whether its store delivers other samples than the data set has."""
        return self.first.store is not None and self.first.store.lossy is not None

    def summary(self, metric: str) -> Summary | None:
        """Return the summary of a metric, see :meth:`bench.records.metrics.Metric.over`."""
        return METRICS[metric].over(self.counted)

    def values(self, metric: str) -> list[float]:
        """Return one value of a metric for each run that has it: the median of its epochs, where it has several."""
        found = [METRICS[metric].of(record) for record in self.counted]
        return [summary.median for summary in found if summary is not None]

    def interval(self, metric: str) -> Interval | None:
        """Return the 95 % interval of the median over runs; None for fewer than six, whose spread is all there is."""
        return median_interval(self.values(metric))


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Groups that did the same work under the same circumstances, and differ in how they stored and loaded samples."""

    groups: tuple[Group, ...]

    @property
    def records(self) -> list[RunRecord]:
        """All runs of all groups."""
        return [record for group in self.groups for record in group.records]

    @property
    def first(self) -> RunRecord:
        """Any one of its runs, for what they have in common."""
        return self.groups[0].first


def equal_runs(records: Sequence[RunRecord]) -> list[Group]:
    """Group equal runs, controls of a comparison among those that they repeat, in the order of their first runs.

    What was done counts: runs that were asked for differently, such as ``--device auto`` and ``--device cpu``, and did
    the same all the same, are equal.
    """
    return [Group(tuple(records[number] for number in numbers)) for numbers in alike(records, own=())]


def same_work(groups: Sequence[Group]) -> list[Work]:
    """Divide groups by what they did and under which circumstances, apart from how they stored and loaded samples."""
    sets = alike([group.first for group in groups], own=LOADING_FIELDS)
    return [Work(tuple(groups[number] for number in numbers)) for numbers in sets]


def asked(record: RunRecord) -> str:
    """Return what a run was to do and on what kind of machine, apart from how it was to store and load samples.

    Known of runs without a result, too, which belong to work for which the same was asked.
    """
    known = record.environment
    # A limit of its own hides that of the container, and is in force only once a run has come so far.
    limit = known.get("memory_limit_bytes") if record.spec.memory_limit_bytes is None else None
    machine = f"{machine_words(record)} {known.get('cpu_quota_cores')} {limit}"
    return f"{machine} {record.spec.model_dump_json(exclude=set(LOADING_FIELDS))}"


def finished(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs that gave a result."""
    return [record for record in records if record.status == "ok"]
