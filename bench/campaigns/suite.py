"""Suite files: a matrix written down in TOML, read with the line of every mistake.

Each ``[[matrix]]`` is the product of its lists; what stands in ``[common]`` holds for all of them.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contracts.errors import BenchError
from bench.specs.spec import RunSpec, make_spec

_RUN_FIELDS = [name for name in RunSpec.model_fields if name not in {"options", "dataset_options"}]
_OWN = {"name": str, "blocks": int, "order_seed": int}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")

EXAMPLE = """\
# A suite for `bench matrix THIS-FILE`. `bench matrix THIS-FILE --dry-run` shows what it would run.

name = "formats"      # names the campaign: the same suite goes on where it stopped
blocks = 3            # how often each cell runs; 8 and more can show small differences
order_seed = 0        # seed of the order of runs

[common]              # holds for every matrix below; the keys are the flags of `bench run`
model = "cnn"
epochs = 3
batch_size = 128
limit = 10000         # only the first samples: leave it out for the whole data set

[[matrix]]            # each matrix is the product of its lists
dataset = ["cifar10"]
backend = ["filesystem", "memmap", "hdf5", "hdf5,reader=mapped", "zarr", "zarr,reader=mapped,chunk=64"]
workers = [0, 2]
cache = ["warm"]

[[matrix]]
dataset = ["cifar10"]
backend = ["hdf5,reader=mapped", "zarr,reader=mapped"]
cache = ["cold"]
worker_kind = "thread"
workers = 2
# data_options = { size = "64" }   # options of the data set: `bench list datasets NAME`
"""


class SuiteError(BenchError):
    """A suite file that makes no sense."""


@dataclass(frozen=True, slots=True)
class Axes:
    """One matrix: the values of each field, all of which are combined with each other.

    ``backends`` are written as NAME[,KEY=VALUE…]. ``where`` is the line that it begins in.
    """

    backends: Sequence[str]
    fields: Mapping[str, Sequence[Any]]
    data_options: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    def specs(self) -> Iterator[tuple[RunSpec, str]]:
        """Yield the runs and the labels of their backends. Raises BenchError for what cannot be."""
        names = list(self.fields)
        for values in itertools.product(*self.fields.values()):
            for text in self.backends:
                backend, *options = text.split(",")
                chosen = dict(zip(names, values, strict=True))
                try:
                    spec = make_spec(
                        RunSpec, options, dataset_options=dict(self.data_options), backend=backend, **chosen
                    )
                except BenchError as error:
                    if not self.where:
                        raise
                    raise SuiteError(f"{self.where}: {error}") from error
                yield spec, backend_label(spec, options)


@dataclass(frozen=True, slots=True)
class Suite:
    """All that a suite file says; None is what it leaves open."""

    name: str
    matrices: Sequence[Axes]
    blocks: int | None = None
    order_seed: int | None = None


def backend_label(spec: RunSpec, options: Sequence[str]) -> str:
    """Return what to call a backend with options of its own: zarr[mapped] chunk=64."""
    reader = spec.options.get("reader")
    others = " ".join(option for option in options if not option.startswith("reader="))
    return f"{spec.backend}{f'[{reader}]' if reader else ''}{f' {others}' if others else ''}"


def read_suite(path: Path) -> Suite:
    """Read a suite file. Raises SuiteError, with the line and the key."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise SuiteError(f"{path}: {error.strerror}. `bench matrix --init {path}` writes an example.") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path} is no text file in UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{path} is no TOML: {error}.") from error
    return _Reader(path, text).suite(content)


class _Reader:
    """Checks what a file holds; knows where each key stands."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def suite(self, content: dict[str, Any]) -> Suite:
        for key in content:
            if key not in {*_OWN, "common", "matrix"}:
                self._refuse(key, f"unknown. Known are: {', '.join((*_OWN, '[common]', '[[matrix]]'))}")
        own = {key: self._typed(key, content[key], kind) for key, kind in _OWN.items() if key in content}
        name = own.get("name", self._path.stem)
        if not _NAME.fullmatch(name):
            self._refuse("name", f"{name!r} is no name: use letters, digits and . _ -")
        tables = content.get("matrix", [])
        common = content.get("common", {})
        if not isinstance(common, dict):
            self._refuse("common", "must be a table: [common]")
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise SuiteError(f"{self._path}: there is no [[matrix]]. `bench matrix --init FILE` writes an example.")
        matrices = [self._axes(common, table, number) for number, table in enumerate(tables)]
        return Suite(name, matrices, own.get("blocks"), own.get("order_seed"))

    def _axes(self, common: dict[str, Any], table: dict[str, Any], number: int) -> Axes:
        values: dict[str, list[Any]] = {}
        options: dict[str, Any] = {}
        for section, content in (("common", common), (number, table)):
            for key, value in content.items():
                if key == "data_options":
                    if not isinstance(value, dict):
                        self._refuse(key, 'must be a table: data_options = { size = "64" }', section)
                    options |= value
                elif key not in _RUN_FIELDS:
                    known = ", ".join([*_RUN_FIELDS, "data_options"])
                    self._refuse(key, f"unknown. Known are: {known}", section)
                else:
                    values[key] = self._values(key, value, section)
        line = self._line("matrix", number)
        for key in ("dataset", "backend"):
            if key not in values:
                raise SuiteError(f"{self._path}, line {line}: this [[matrix]] has no {key}.")
        backends = [str(value) for value in values.pop("backend")]
        return Axes(backends, values, options, f"{self._path}, [[matrix]] in line {line}")

    def _values(self, key: str, value: Any, section: str | int) -> list[Any]:
        values = value if isinstance(value, list) else [value]
        if not values:
            self._refuse(key, "must have a value", section)
        for one in values:
            if isinstance(one, dict | list):
                self._refuse(key, "must be a value or a list of values", section)
            if values.count(one) > 1:
                self._refuse(key, f"has {one!r} twice", section)
        return values

    def _typed(self, key: str, value: Any, kind: type) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            self._refuse(key, f"must be {'a text' if kind is str else 'a whole number'}, not {value!r}")
        return value

    def _refuse(self, key: str, problem: str, section: str | int | None = None) -> None:
        raise SuiteError(f"{self._path}, line {self._line(key, section)}: {key}: {problem}.")

    def _line(self, key: str, section: str | int | None = None) -> int:
        """Return the line of a key, or of the ``section``-th [[matrix]] itself; 1 where it is written unusually."""
        here: str | int | None = None
        matrices = 0
        for number, line in enumerate(self._lines, 1):
            heading = re.match(r"\s*\[\[?\s*([\w.]+)\s*\]?\]", line)
            if heading is not None:
                here = heading[1]
                if here == "matrix":
                    here, matrices = matrices, matrices + 1
                if (key == "matrix" and here == section) or (section is None and heading[1] == key):
                    return number
            elif here == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
                return number
        return 1
