"""The words by which records are grouped and filtered: backend, an option of it, data set, workers, machine ...

A facet tells one fact of a record as text. It belongs to a kind, and facts of a kind that a table has an axis for are
told apart on that axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.contracts.errors import BenchError
from bench.records.record import RunRecord
from bench.specs import augmentation

Kind = Literal["loading", "data", "work", "circumstances", "machine", "outcome"]
"""How samples are stored and loaded; which; what is done with them; device, cache, campaign; where; what came of it."""

NOTHING = "none"
OPTION, DATA_OPTION, VERSION = "option.", "data_option.", "version."


class FacetError(BenchError):
    """A word by which records can be neither grouped nor filtered, or a filter that leaves nothing."""


@dataclass(frozen=True, slots=True)
class Facet:
    """One fact of a record. ``also`` are other words that a filter takes for it, such as ``cuda`` for ``cuda:0``."""

    name: str
    kind: Kind
    meaning: str
    of: Callable[[RunRecord], str]
    fields: tuple[str, ...] = ()
    also: Callable[[RunRecord], Sequence[str]] = lambda _: ()

    def words(self, record: RunRecord) -> tuple[str, ...]:
        """Return all words that this fact of a record goes by."""
        return (self.of(record), *self.also(record))


@dataclass(frozen=True, slots=True)
class Condition:
    """``KEY=VALUE``, or ``KEY!=VALUE`` where ``negated``."""

    facet: Facet
    value: str
    negated: bool

    def __str__(self) -> str:
        return f"{self.facet.name}{'!=' if self.negated else '='}{self.value}"


def facet(name: str) -> Facet:
    """Return a facet by its name. Raises FacetError."""
    if name in FACETS:
        return FACETS[name]
    for prefix, make in _FAMILIES.items():
        if name.startswith(prefix) and name != prefix:
            return make(name, name.removeprefix(prefix))
    families = ", ".join(f"{prefix}NAME" for prefix in _FAMILIES)
    raise FacetError(f"There is nothing called {name!r} in a record. Choose from: {', '.join(FACETS)}, {families}.")


def facets(texts: Iterable[str]) -> tuple[Facet, ...]:
    """Return facets by their names, each text being one or several with commas between. Raises FacetError."""
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if names.count(name) > 1:
            raise FacetError(f"{name} is given twice. Once is enough.")
    return tuple(facet(name) for name in names)


def conditions(texts: Iterable[str]) -> list[Condition]:
    """Read filters written as ``KEY=VALUE`` or ``KEY!=VALUE``. Raises FacetError."""
    found = []
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.removesuffix("!"):
            raise FacetError(f"--where {text!r} is neither KEY=VALUE nor KEY!=VALUE. For example: --where device=cuda.")
        found.append(Condition(facet(key.removesuffix("!")), value, key.endswith("!")))
    return found


def choose(records: Sequence[RunRecord], where: Sequence[Condition]) -> list[RunRecord]:
    """Return the records that meet all conditions; several ``KEY=`` of one key are alternatives. Raises FacetError.

    A condition that no record meets is an error, as it is most likely a slip of the pen.
    """
    alternatives: dict[str, list[Condition]] = {}
    for condition in where:
        alternatives.setdefault(str(condition) if condition.negated else condition.facet.name, []).append(condition)
    chosen = list(records)
    for group in alternatives.values():
        for condition in group:
            if not any(_meets(condition, record) for record in records):
                known = sorted({condition.facet.of(record) for record in records})
                listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
                name = condition.facet.name
                raise FacetError(f"--where {condition}: no record meets it. {name} is here one of: {listed}.")
        chosen = [record for record in chosen if any(_meets(condition, record) for condition in group)]
    if records and not chosen:
        texts = " ".join(f"--where {condition}" for condition in where)
        raise FacetError(f"{texts}: no record meets all of them. Leave one out.")
    return chosen


def _meets(condition: Condition, record: RunRecord) -> bool:
    return (condition.value in condition.facet.words(record)) != condition.negated


def word(value: Any) -> str:
    """Return a value of a record as a word."""
    if isinstance(value, tuple):
        value = augmentation.text(value)
    return NOTHING if value is None or value == "" else str(value)


def used_options(record: RunRecord) -> dict[str, Any]:
    """Return the options that a store was made and read with; what was asked for where there is no store."""
    return record.store.options if record.store is not None else record.spec.options


def options_words(record: RunRecord) -> str:
    """Return a backend's options that have a value, without the reader, as KEY=VALUE words."""
    used = used_options(record)
    return " ".join(f"{key}={value}" for key, value in used.items() if key != "reader" and value is not None)


def cache_words(record: RunRecord) -> str:
    """Return the state of the page cache that was asked for, and what became of it where there was something to do."""
    cache = record.cache
    achieved = (cache.achieved or "unknown").replace("not-achieved", "NOT achieved")
    return cache.asked if cache.asked == "as-is" else f"{cache.asked}: {achieved}"


def machine_words(record: RunRecord) -> str:
    """Return CPU, cores, memory and GPU."""
    known = record.environment
    memory_gib = (known.get("memory_bytes") or 0) / 2**30
    cpu = f"{known.get('cpu') or 'unknown CPU'}, {known.get('cpu_count')} cores, {memory_gib:.0f} GiB RAM"
    return f"{cpu}, {known.get('gpu') or 'no GPU'}"


def _method(record: RunRecord) -> str:
    spec = record.spec
    reader = used_options(record).get("reader")
    options = options_words(record)
    workers = f" {spec.workers} {spec.worker_kind} workers" if spec.workers else ""
    return spec.backend + (f"[{reader}]" if reader else "") + (f" {options}" if options else "") + workers


def _spec(name: str, kind: Kind, meaning: str) -> Facet:
    return Facet(name, kind, meaning, lambda record: word(getattr(record.spec, name)), (name,))


def _environment(name: str, meaning: str, key: str | None = None) -> Facet:
    return Facet(name, "machine", meaning, lambda record: word(record.environment.get(key or name)))


def _option(name: str, key: str) -> Facet:
    def of(record: RunRecord) -> str:
        return word(used_options(record).get(key))

    def asked(record: RunRecord) -> Sequence[str]:
        return (word(record.spec.options.get(key)),)

    return Facet(name, "loading", f"option {key} of the backend", of, also=asked)


def _data_option(name: str, key: str) -> Facet:
    return Facet(name, "data", f"option {key} of the data set", lambda r: word(r.spec.dataset_options.get(key)))


def _version(name: str, key: str) -> Facet:
    def of(record: RunRecord) -> str:
        return word((record.environment.get("libraries") or {}).get(key))

    return Facet(name, "machine", f"version of {key}", of)


_FAMILIES: dict[str, Callable[[str, str], Facet]] = {OPTION: _option, DATA_OPTION: _data_option, VERSION: _version}

_LOADING = ("backend", "options", "workers", "worker_kind", "start_method", "prefetch")
_WORK = (
    *("model", "weights", "batch_size", "epochs", "seed", "lr", "weight_decay", "momentum"),
    *("val", "test", "early_stopping", "class_weights", "balanced_sampler"),
    *("shuffle", "amp", "compile", "channels_last", "augment", "deterministic"),
)

FACETS: dict[str, Facet] = {
    found.name: found
    for found in (
        Facet("method", "loading", "backend, reader, options and workers", _method, _LOADING),
        _spec("backend", "loading", "storage backend"),
        Facet("reader", "loading", "how the store is read", lambda r: word(used_options(r).get("reader"))),
        Facet("options", "loading", "options of the backend but the reader", lambda r: word(options_words(r))),
        _spec("workers", "loading", "number of workers"),
        _spec("worker_kind", "loading", "processes or threads"),
        _spec("start_method", "loading", "how worker processes are started"),
        _spec("prefetch", "loading", "batches that each worker keeps ready"),
        Facet(
            "dataset",
            "data",
            "data set",
            lambda r: r.spec.dataset_label,
            also=lambda r: (r.spec.dataset_name, r.spec.dataset),
        ),
        Facet("origin", "data", "official, local or synthetic", lambda r: word(r.data.origin if r.data else None)),
        Facet("split", "data", "part of the data set", lambda r: r.data.split if r.data else r.spec.split),
        Facet("samples", "data", "number of samples", lambda r: word(r.data.count if r.data else r.spec.limit)),
        *(_spec(name, "work", name.replace("_", " ")) for name in _WORK),
        Facet(
            "optimizer",
            "work",
            "how weights are updated",
            lambda r: word(r.spec.optimizer),
            ("optimizer", "lr", "weight_decay", "momentum"),
        ),
        Facet(
            "device",
            "circumstances",
            "where the model is",
            lambda r: r.device or r.spec.device,
            ("device",),
            lambda r: ((r.device or r.spec.device).partition(":")[0], r.spec.device),
        ),
        Facet(
            "cache",
            "circumstances",
            "state of the page cache: asked for, and achieved",
            cache_words,
            ("cache", "drop_caches"),
            lambda r: (r.cache.asked, word(r.cache.achieved)),
        ),
        _spec("memory_limit_bytes", "circumstances", "limit of memory"),
        Facet("machine", "machine", "CPU, cores, memory and GPU", machine_words),
        _environment("cpu", "processor"),
        _environment("gpu", "GPU"),
        _environment("system", "operating system"),
        _environment("kernel", "version of the kernel"),
        _environment("file_system", "file system of the store", "store_file_system"),
        _environment("python", "version of Python"),
        _environment("bench", "version of bench"),
        _environment("revision", "git revision of bench", "git_revision"),
        Facet("status", "outcome", "ok, failed, unsupported or interrupted", lambda r: r.status),
        Facet("campaign", "circumstances", "comparison", lambda r: word(r.campaign.id if r.campaign else None)),
    )
}

DATA_FIELDS = ("dataset", "dataset_options", "source", "split", "limit")
"""Fields of a spec that say which samples."""
