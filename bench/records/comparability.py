"""What makes runs incomparable: anything that differs and is not what is being compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contracts.errors import BenchError
from bench.records.facets import used_options
from bench.records.record import RunRecord
from bench.records.surroundings import machine_facts
from bench.specs import augmentation
from bench.specs.spec import RunSpec

OWN_FIELDS = ("backend", "options", "workers")
"""The fields of a spec in which cells usually differ, because they are what is compared."""

LOADING_FIELDS = (*OWN_FIELDS, "worker_kind", "start_method", "prefetch")
"""The fields of a spec that say how samples are stored and loaded, and nothing of what is done with them."""

_HARNESS = ("bench", "freed_memory_kept", "weights")
_DATA_ASKED = ("dataset", "source", "split", "limit")
_KNOWN_BETTER = (*_DATA_ASKED, "options", "device", "cache")
"""Fields of a spec that say what was asked for, where the record has what it was."""

_LIBRARY = "version of "
_DECODER = "image decoder"
_UNKNOWN = "unknown"


class IncomparableError(BenchError):
    """Runs that differ in more than what is compared."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which runs differ, and the values found, in the order of the runs."""

    name: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({' or '.join(self.values)})"


def differences(records: Sequence[RunRecord], own: Collection[str] = OWN_FIELDS) -> list[Difference]:
    """Return in what runs differ in machine, versions, data, cache state and work, apart from fields of their ``own``.

    What one run recorded and another did not, because an older version wrote it, is a difference whose value there
    is ``unknown``: it cannot be shown to be equal. What none recorded is none. Libraries and decoders are the
    exception: a run lists those that were there, and one that is not listed was not needed, so only two versions make
    a difference.
    """
    return unlike([facts_of(record, own) for record in records])


def surroundings(environment: Mapping[str, Any], own_limit_bytes: int | None = None) -> dict[str, str]:
    """Return by name what a record's environment tells of machine, settings, storage, harness and versions.

    ``own_limit_bytes`` is the memory limit that the run was asked to have.
    """
    facts = machine_facts(environment, own_limit_bytes)
    facts |= {name: environment[name] for name in _HARNESS if name in environment}
    return _named(facts | _versions(environment))


def unlike(found: Sequence[dict[str, str]]) -> list[Difference]:
    """Return in which facts, by name, sets of them differ, by the rules of :func:`differences`."""
    names = dict.fromkeys(name for facts in found for name in facts)
    listed = [Difference(name, _values(name, found)) for name in names]
    return [difference for difference in listed if len(difference.values) > 1]


def alike(records: Sequence[RunRecord], own: Collection[str] = OWN_FIELDS) -> list[list[int]]:
    """Divide runs into sets without :func:`differences`, and return their numbers, both in the order of the runs.

    Two versions of a library, or two decoders, keep runs apart; a run that did not need it goes with either, and is
    put into the set that came first.
    """
    sets: dict[tuple[tuple[str, str], ...], list[tuple[dict[str, str], list[int]]]] = {}
    for number, record in enumerate(records):
        facts = facts_of(record, own)
        versions = {name: value for name, value in facts.items() if _is_used_by_some(name)}
        same_but_versions = sets.setdefault(tuple(sorted(facts.items() - versions.items())), [])
        for known, numbers in same_but_versions:
            if all(known.get(name, value) == value for name, value in versions.items()):
                known.update(versions)
                numbers.append(number)
                break
        else:
            same_but_versions.append((versions, [number]))
    found = [numbers for entries in sets.values() for _, numbers in entries]
    return sorted(found, key=lambda numbers: numbers[0])


def require_comparable(found: Sequence[Difference]) -> None:
    """Raise IncomparableError where there are differences."""
    if found:
        raise IncomparableError(
            f"These runs cannot be compared, they differ in: {', '.join(map(str, found))}. "
            "Nothing is lost: `bench compare --recorded last --anyway` compares them in spite of that, and says so."
        )


def _values(name: str, found: Sequence[dict[str, str]]) -> tuple[str, ...]:
    if _is_used_by_some(name):
        found = [facts for facts in found if name in facts]
    return tuple(dict.fromkeys(facts.get(name, _UNKNOWN) for facts in found))


def _is_used_by_some(name: str) -> bool:
    return name.startswith(_LIBRARY) or name == _DECODER


def facts_of(record: RunRecord, own: Collection[str] = OWN_FIELDS) -> dict[str, str]:
    """Return by name all in which a run may differ from others, apart from fields of its ``own``."""
    facts: dict[str, Any] = {}
    if "decoder" in record.reader:
        facts[_DECODER] = record.reader["decoder"]
    if "options" not in own:
        facts |= {f"option {name}": value for name, value in used_options(record).items()}
        facts |= _reading(record.reader)
    if record.data is None:
        facts |= {name: getattr(record.spec, name) for name in _DATA_ASKED if name not in own}
    else:
        data = record.data
        facts |= {"data": data.digest[:16], "samples": data.count, "split": data.split}
        facts |= {"dtype": data.dtype, "shape": "x".join(map(str, data.shape)) or "single values"}
    if "cache" not in own:
        facts |= {"cache asked": record.cache.asked, "cache achieved": record.cache.achieved}
    if "device" not in own:
        facts["device"] = record.device or record.spec.device
    work = (name for name in RunSpec.model_fields if name not in own and name not in _KNOWN_BETTER)
    facts |= {name: getattr(record.spec, name) for name in work}
    facts |= {name: RunSpec.model_fields[name].default for name in record.spec.without_use() if name in facts}
    return surroundings(record.environment, record.spec.memory_limit_bytes) | _named(facts)


def _named(facts: Mapping[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): _text(value) for name, value in facts.items()}


def _reading(facts: Mapping[str, Any], of: str = "reader") -> dict[str, Any]:
    """Return how a reader read. Sizes, times and reasons, which vary, are no part of that."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            found |= _reading(value, f"{of} {name}")
        elif name not in {"decoder", "why"} and not name.endswith(("_bytes", "_s")):
            found[f"{of} {name}"] = value
    return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return augmentation.text(value) or "none"
    return "none" if value is None else str(value)


def _versions(environment: Mapping[str, Any]) -> dict[str, Any]:
    versions = {"python": environment["python"]} if "python" in environment else {}
    libraries = environment.get("libraries")
    if libraries is None:
        return versions
    return versions | {"libraries": "known"} | {f"{_LIBRARY}{name}": value for name, value in libraries.items()}
