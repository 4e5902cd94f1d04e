"""What to call methods and data sets in a table: in full where they differ, and no longer than that."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from bench.records.facets import NOTHING, OPTION, Facet, used_options, word
from bench.records.record import RunRecord
from bench.report.tables import differing_options
from bench.specs.spec import PREFETCH_BATCHES

Key = tuple[str, ...]

_WORKERS = ("workers", "worker_kind", "start_method", "prefetch")
_ABSENT = "absent"


class Methods:
    """The methods of some records, and what tells them apart: that alone is shown.

    An option is shown where what was asked for differs between records of a backend and, unless ``strict``, so does
    what was used: ``format=auto`` that became ``png`` is the same as ``format=png``. What an option
    became is told behind what was asked for: ``format=auto (png)``. With ``spoken``, names are fit for sentences and
    lists: the reader is always named, and no comma is inside.
    """

    def __init__(self, records: Sequence[RunRecord], *, strict: bool = False, spoken: bool = False) -> None:
        self._strict = strict
        self._joints = (" with ", " and ") if spoken else (", ", ", ")
        by_backend: dict[str, list[RunRecord]] = {}
        for record in records:
            by_backend.setdefault(record.spec.backend, []).append(record)
        self._options = {name: self._differing(found) for name, found in by_backend.items()}
        self._all_readers = spoken or len({self._reader(record) for record in records}) > 1
        self._workers = [name for name in _WORKERS if len({getattr(r.spec, name) for r in records}) > 1]
        self._records = records
        self._became: dict[tuple[Key, str], set[str]] = {}
        for record in records:
            # Without a store nothing is known to have been used.
            for name in self._options[record.spec.backend] if record.store is not None else ():
                became = self._became.setdefault((self._all_asked(record), name), set())
                became.add(word(used_options(record).get(name)))

    def _differing(self, records: Sequence[RunRecord]) -> list[str]:
        names = dict.fromkeys(name for record in records for name in record.spec.options)
        asked = [name for name in names if len({self._asked(record, name) for record in records}) > 1]
        if self._strict:
            return asked
        return [name for name in asked if len({word(used_options(record).get(name)) for record in records}) > 1]

    def _asked(self, record: RunRecord, name: str) -> str:
        options = record.spec.options
        return word(options[name]) if name in options else (_ABSENT if self._strict else NOTHING)

    def _all_asked(self, record: RunRecord) -> Key:
        backend = record.spec.backend
        return (backend, *(f"{name}={self._asked(record, name)}" for name in self._options[backend]))

    @staticmethod
    def _reader(record: RunRecord) -> str:
        return word(used_options(record).get("reader"))

    def key(self, record: RunRecord, without: Iterable[Facet] = ()) -> Key:
        """Return what identifies the method of a record, apart from facets that are told elsewhere."""
        told = _names(without)
        spec = record.spec
        options = [f"{n}={self._asked(record, n)}" for n in self._options[spec.backend] if f"{OPTION}{n}" not in told]
        if "reader" in told:
            options = [text for text in options if not text.startswith("reader=")]
        if "options" in told:
            options = [text for text in options if text.startswith("reader=")]
        workers = [f"{name}={getattr(spec, name)}" for name in self._workers if name not in told]
        return ("" if "backend" in told else spec.backend, *options, *workers)

    def label(self, record: RunRecord, without: Iterable[Facet] = ()) -> str:
        """Return the name of a method, such as ``zarr[mapped] chunk=16, 2 process workers``."""
        told = _names(without)
        return self._joined(record, told)

    def unique(self, records: Sequence[RunRecord]) -> list[str]:
        """Return the names of methods of which each is there once: what cannot be told apart otherwise is numbered."""
        names = [self.label(record) for record in records]
        return [
            name if names.count(name) == 1 else f"{name} #{names[:place].count(name) + 1}"
            for place, name in enumerate(names)
        ]

    def store(self, record: RunRecord) -> str:
        """Return the name without workers: that of a store and how it is read."""
        return self._store(record, ())

    def family(self, record: RunRecord) -> str:
        """Return the name without the number of workers: methods of one family differ in that alone."""
        return self._joined(record, {"workers"})

    def _joined(self, record: RunRecord, told: Collection[str]) -> str:
        outer, inner = self._joints
        parts = [self._store(record, told), inner.join(self._worker_words(record, told))]
        return outer.join(part for part in parts if part)

    def _store(self, record: RunRecord, told: Collection[str]) -> str:
        spec, differing = record.spec, self._options[record.spec.backend]
        reader = used_options(record).get("reader")
        shown = reader and "reader" not in told and (self._all_readers or "reader" in differing)
        name = "" if "backend" in told else spec.backend
        name += f"[{reader}]" if shown else ""
        names = [n for n in differing if n != "reader" and f"{OPTION}{n}" not in told and "options" not in told]
        options = [f"{n}={self._shown(record, n)}" for n in names]
        return " ".join([name, *options]).strip()

    def _shown(self, record: RunRecord, name: str) -> str:
        if name not in record.spec.options:
            return "unrecorded"
        asked = record.spec.options[name]
        # What was asked for may have become something else for another data set: a name is of all runs of a method.
        became = self._became.get((self._all_asked(record), name), set()) - {word(asked), NOTHING}
        text = "default" if asked is None else word(asked)
        return f"{text} ({' or '.join(sorted(became, key=order))})" if became else text

    def _worker_words(self, record: RunRecord, told: Collection[str]) -> list[str]:
        spec = record.spec
        words = []
        kind = f" {spec.worker_kind}" if spec.workers and "worker_kind" in self._workers else ""
        if "workers" in self._workers and "workers" not in told:
            words.append(workers_words(spec.workers, kind))
        elif kind and "worker_kind" not in told:
            words.append(f"{spec.worker_kind} workers")
        others = [name for name in ("start_method", "prefetch") if name in self._workers and name not in told]
        return [*words, *(f"{name.replace('_', ' ')} {getattr(spec, name)}" for name in others)]

    def common(self) -> str:
        """Return in a sentence what all methods of a backend have in common, as it was used."""
        parts = [] if self._all_readers else [f"reader {self._reader(self._records[0])}"]
        if "workers" not in self._workers:
            spec = self._records[0].spec
            kind = "" if "worker_kind" in self._workers else f" {spec.worker_kind}"
            ahead = spec.workers and "prefetch" not in self._workers and spec.prefetch != PREFETCH_BATCHES
            parts.append(workers_words(spec.workers, kind) + (f" (prefetch {spec.prefetch})" if ahead else ""))
        for backend in sorted(self._options):
            records = [record for record in self._records if record.spec.backend == backend]
            texts = self._common_options(records, {"reader", *self._options[backend]})
            parts += [f"{backend} {' '.join(texts)}"] if texts else []
        return "; ".join(parts)

    @staticmethod
    def _common_options(records: Sequence[RunRecord], shown: Collection[str]) -> list[str]:
        names = dict.fromkeys(name for record in records for name in used_options(record) if name not in shown)
        texts = []
        for name in names:
            used = {str(value) for r in records if (value := used_options(r).get(name)) is not None}
            texts += [f"{name}={' or '.join(sorted(used, key=order))}"] if used else []
        return texts


def workers_words(workers: int, kind: str) -> str:
    """Return a number of workers in words."""
    return f"{workers}{kind} {'worker' if workers == 1 else 'workers'}" if workers else "no workers"


def _names(facets: Iterable[Facet]) -> set[str]:
    return {facet.name for facet in facets}


def covers_method(facet: Facet) -> bool:
    """Whether a facet's place in a table is where the rest of a method is told."""
    return facet.name in {"method", "backend"}


class DataSets:
    """The data sets of some records, and what tells them apart: options, origin, number of samples, bytes."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self._options = differing_options(records)
        known = [record for record in records if record.data is not None]
        self._origins = _several((self._name(r), r.data.origin) for r in known if r.data)
        self._counts = _several((self._name(r), r.data.count) for r in known if r.data)
        self._splits = _several((self._name(r), r.data.split) for r in known if r.data)
        self._digests = _several((self._without_digest(r), r.data.digest) for r in known if r.data)

    @staticmethod
    def key(record: RunRecord) -> Key:
        """Return what identifies the samples of a record."""
        data = record.data
        own = (record.spec.dataset_label, str(sorted(record.spec.dataset_options.items())))
        return own if data is None else (*own, data.split, data.origin, data.digest)

    def _name(self, record: RunRecord) -> str:
        chosen = sorted(self._options.get(record.spec.dataset, ()))
        options = "".join(f" {key}={word(record.spec.dataset_options.get(key))}" for key in chosen)
        return record.spec.dataset_label + options

    def _without_digest(self, record: RunRecord) -> str:
        name, data = self._name(record), record.data
        if data is None:
            return name
        told: list[str] = [data.origin] if data.origin == "synthetic" or name in self._origins else []
        told += [f"{data.split} split"] if name in self._splits else []
        told += [f"{data.count:,} samples"] if name in self._counts else []
        return name + (f" ({', '.join(told)})" if told else "")

    def label(self, record: RunRecord) -> str:
        """Return the name of a data set; synthetic data is always named as such."""
        name = self._without_digest(record)
        return f"{name} [{record.data.digest[:8]}]" if record.data and name in self._digests else name


def _several(pairs: Iterable[tuple[str, Any]]) -> set[str]:
    values: dict[str, set[Any]] = {}
    for name, value in pairs:
        values.setdefault(name, set()).add(value)
    return {name for name, found in values.items() if len(found) > 1}


_NUMBER = re.compile(r"(\d+(?:,\d{3})*(?:\.\d+)?)")


def order(text: str) -> tuple[tuple[int, float, str], ...]:
    """Return a key for sorting in which numbers inside of a text count as numbers."""
    parts = _NUMBER.split(text)
    return tuple((0, float(p.replace(",", "")), "") if n % 2 else (1, 0.0, p) for n, p in enumerate(parts) if p)
