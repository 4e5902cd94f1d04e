"""Many cells, in randomised interleaved blocks, that can be interrupted at any point and go on where they stopped.

All that is known of a matrix under way are its records: what has one is done. So nothing else can get lost or become
wrong, however it ends.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.comparisons.campaign import Slot, plan
from bench.contracts.errors import BenchError
from bench.records.comparability import LOADING_FIELDS, Difference, surroundings, unlike
from bench.records.record import RunRecord
from bench.specs import augmentation
from bench.specs.spec import RunSpec
from bench.stats import blocks_needed

MOST_FAILURES = 2
"""After so many failures a cell is given up, so that one that hangs does not take up the night."""


class MatrixError(BenchError):
    """A matrix that cannot be run."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Cells by name, how often each runs, and the seed of their order.

    With ``by_dataset`` all runs of one data set come before those of the next, so that its stores can be removed then;
    otherwise all are interleaved.
    """

    name: str
    cells: Mapping[str, RunSpec]
    blocks: int
    seed: int
    by_dataset: bool = False

    @property
    def identity(self) -> str:
        """The id of its campaign: its name, and a hash of its cells and their order.

        The number of blocks is no part of it, as more blocks continue a matrix.
        """
        cells = {name: spec.spec_id for name, spec in self.cells.items()}
        text = json.dumps([cells, self.seed, self.by_dataset])
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def slots(self) -> list[Slot]:
        """Return all runs in order, with the controls that a claim needs.

        A control repeats the first of the cells that differ in nothing but how samples are stored and loaded. With too
        few blocks to show any difference there is none.
        """
        enough = self.blocks >= blocks_needed(1)
        planned = plan(list(self.cells), self.blocks, self.seed, self.twins())
        slots = [slot for slot in planned if enough or not slot.control]
        if not self.by_dataset:
            return slots
        order = {dataset: number for number, dataset in enumerate(dict.fromkeys(map(self._dataset, self.cells)))}
        return sorted(slots, key=lambda slot: order[self._dataset(slot.cell)])

    def twins(self) -> list[str]:
        """Return the first cell of each work of which there are several."""
        works: dict[str, list[str]] = {}
        for name, spec in self.cells.items():
            work = spec.model_dump_json(exclude=set(LOADING_FIELDS))
            works.setdefault(work, []).append(name)
        return [names[0] for names in works.values() if len(names) > 1]

    def _dataset(self, cell: str) -> str:
        return self.cells[cell].dataset


class Progressed:
    """What has been done of a matrix, by its records.

    ``unlike`` is in what the machine, its settings or versions were not the same for all of them.

    Raises MatrixError, also when another one is noted, where the data of a cell was not always the same.
    """

    def __init__(self, records: Iterable[RunRecord]) -> None:
        self._done: set[tuple[str, int, bool]] = set()
        self._failures: Counter[str] = Counter()
        self._hopeless: set[str] = set()
        self._digests: dict[str, str] = {}
        self._results: set[tuple[str, int, bool]] = set()
        self._conditions: dict[str, dict[str, str]] = {}
        self.unlike: list[Difference] = []
        for record in records:
            self.note(record)

    def note(self, record: RunRecord) -> None:
        """Take note of a record. One that was interrupted is none."""
        place = record.campaign
        if place is None or record.status == "interrupted":
            return
        slot = (place.cell, place.block, place.control)
        if slot in self._done:
            return
        self._done.add(slot)
        if record.status == "ok":
            self._require_same_data(place.cell, record)
            self._results.add(slot)
            self._compare(record)
            return
        self._failures[place.cell] += 1
        if record.status == "unsupported" or self._failures[place.cell] >= MOST_FAILURES:
            self._hopeless.add(place.cell)

    def _require_same_data(self, cell: str, record: RunRecord) -> None:
        if record.data is not None and self._digests.setdefault(cell, record.data.digest) != record.data.digest:
            raise MatrixError(
                f"{cell}: the data is not what it was in the runs before, so they are not one matrix. "
                "Use --anew, or bring back the data."
            )

    def _compare(self, record: RunRecord) -> None:
        # Each work by itself, which is what is compared: another may have a limit of its own, or another device.
        work = record.spec.model_dump_json(exclude=set(LOADING_FIELDS))
        found = surroundings(record.environment, record.spec.memory_limit_bytes)
        self.unlike = self.unlike or unlike([self._conditions.setdefault(work, found), found])

    def remaining(self, slots: Sequence[Slot]) -> Iterator[Slot]:
        """Yield the runs that are still to be done, each when it is its turn; those of cells given up are not."""
        for slot in slots:
            if not self.is_done(slot) and slot.cell not in self._hopeless:
                yield slot

    def is_done(self, slot: Slot) -> bool:
        """Whether there is a record of a run."""
        return (slot.cell, slot.block, slot.control) in self._done

    def without_result(self, slots: Sequence[Slot]) -> int:
        """Return how many of the runs gave no result, or will not be tried any more."""
        return sum((slot.cell, slot.block, slot.control) not in self._results for slot in slots)

    @property
    def given_up(self) -> list[str]:
        """The cells that have been given up."""
        return sorted(self._hopeless)


def cells_of(specs: Sequence[RunSpec], labels: Sequence[str]) -> dict[str, RunSpec]:
    """Return runs by name: the label of the backend, and what else is not the same in all of them.

    Raises MatrixError where two are equal.
    """
    fields = [name for name in RunSpec.model_fields if name not in {"backend", "options"}]
    varying = [name for name in fields if len({str(getattr(spec, name)) for spec in specs}) > 1]
    cells: dict[str, RunSpec] = {}
    names: dict[str, str] = {}
    for spec, label in zip(specs, labels, strict=True):
        words = [label, *(_word(spec, name) for name in varying)]
        name = " ".join(word for word in words if word)
        if (twin := names.get(spec.spec_id)) is not None:
            other = "" if twin == name else f", the other time as {twin}"
            raise MatrixError(f"{name} is there twice{other}. Name each cell once; --blocks says how often it runs.")
        names[spec.spec_id] = name
        cells[name] = spec
    return cells


def _word(spec: RunSpec, field: str) -> str:
    value = getattr(spec, field)
    if field in spec.implied():
        return ""
    if field in {"dataset", "model", "optimizer", "cache", "shuffle", "device", "split"}:
        return str(value)
    if isinstance(value, tuple):
        return augmentation.text(value)
    if isinstance(value, bool):
        return field.replace("_", "-") if value else ""
    if isinstance(value, dict):
        return " ".join(f"{key}={one}" for key, one in value.items() if one is not None)
    return "" if value is None else f"{field.replace('_', '-')}={value}"
