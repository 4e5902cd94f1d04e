"""All that a backend and the loading can be set to, from which ``bench tune`` draws."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from bench.campaigns.tuning import Configuration
from bench.contracts.backend import Backend
from bench.contracts.errors import BenchError

T = TypeVar("T")

CANDIDATES: dict[str, tuple[int, ...]] = {
    "chunk": (1, 4, 16, 64, 256),
    "shard": (64, 256, 1024, 4096),
    "clevel": (1, 3, 9),
}
"""What is tried for options that are numbers, beside not giving them. Of those with named values, all are."""

PREFETCH = (1, 2, 4, 8, 16)
WORKER_KINDS: tuple[Literal["process", "thread"], ...] = ("process", "thread")


class Space:
    """All configurations that a backend's own validation lets pass; what was given or is ``fixed`` stays as it is.

    ``fields`` are the types of its options by name, ``build`` makes a backend of option values or raises BenchError.
    Lossy configurations are left out, as they change the samples, unless the baseline itself is lossy.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        build: Callable[[dict[str, str]], Backend[Any]],
        baseline: Configuration,
        fixed: Collection[str],
        cores: int,
    ) -> None:
        self._baseline, self._build, self._fixed = baseline, build, fixed
        given = dict(baseline.options)
        self._lossy = build(given).capabilities.lossy
        values = {name: (*choices(kind), *CANDIDATES.get(name, ())) for name, kind in fields.items()}
        self._values = {name: found for name, found in values.items() if found and name not in given}
        counts = {0, cores, *(1 << power for power in range(cores.bit_length()))}
        self._workers = [baseline.workers] if "workers" in fixed else sorted(counts)
        self._known = {self._identity(baseline)}

    def draw(self, source: random.Random) -> Configuration | None:
        """Return a configuration at random that was not returned before, None where there seems to be none left.

        Options are drawn one after the other, in random order, each from the values that go with those before: so a
        layout that few values go with is as likely as one that goes with all.
        """
        for _ in range(200):
            drawn = self._drawn(source)
            identity = self._identity(drawn)
            if identity not in self._known:
                self._known.add(identity)
                return drawn
        return None

    def _drawn(self, source: random.Random) -> Configuration:
        chosen = dict(self._baseline.options)
        # Only the sequence of random() is promised to stay the same in every version of Python.
        for name in sorted(self._values, key=lambda _: source.random()):
            possible = [one for value in (None, *self._values[name]) if self._valid(one := _with(chosen, name, value))]
            chosen = _pick(source, possible or [chosen])
        return self._with_loading(self._shortest(chosen), source)

    def _with_loading(self, chosen: dict[str, str], source: random.Random) -> Configuration:
        able = self._build(chosen).capabilities
        names = [name for name in (*dict(self._baseline.options), *self._values) if name in chosen]
        drawn = dataclasses.replace(self._baseline, options=tuple((name, chosen[name]) for name in names))
        possible = {"process": able.process_workers, "thread": able.thread_workers}
        asked = [drawn.worker_kind] if "worker_kind" in self._fixed else list(WORKER_KINDS)
        kinds = [kind for kind in asked if possible[kind]]
        workers = _pick(source, self._workers if kinds else [0])
        if workers == 0:
            return dataclasses.replace(drawn, workers=0)
        prefetch = _pick(source, [drawn.prefetch] if "prefetch" in self._fixed else PREFETCH)
        return dataclasses.replace(drawn, workers=workers, worker_kind=_pick(source, kinds), prefetch=prefetch)

    def _shortest(self, chosen: dict[str, str]) -> dict[str, str]:
        """Leave out what makes no difference, so that a command says what matters."""
        for name in self._values:
            without = _with(chosen, name, None)
            if self._valid(without) and self._resolved(without) == self._resolved(chosen):
                chosen = without
        return chosen

    def _identity(self, configuration: Configuration) -> str:
        loading = [configuration.worker_kind, configuration.prefetch] if configuration.workers else []
        return json.dumps([self._resolved(dict(configuration.options)), configuration.workers, *loading])

    def _resolved(self, options: dict[str, str]) -> str:
        return str(self._build(options).options.model_dump_json())

    def _valid(self, options: dict[str, str]) -> bool:
        try:
            return not self._build(options).capabilities.lossy or self._lossy
        except BenchError:
            return False


def choices(annotation: Any) -> tuple[str, ...]:
    """Return the named values of a type, those inside a union included."""
    if get_origin(annotation) is Literal:
        return tuple(value for value in get_args(annotation) if isinstance(value, str))
    return tuple(value for inner in get_args(annotation) for value in choices(inner))


def _with(options: dict[str, str], name: str, value: Any) -> dict[str, str]:
    rest = {key: kept for key, kept in options.items() if key != name}
    return rest if value is None else {**rest, name: str(value)}


def _pick(source: random.Random, values: Sequence[T]) -> T:
    return values[int(source.random() * len(values))]
