"""What exists here and whether it is usable: tables for `bench list`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import registry
from bench.contracts.errors import BenchError
from bench.contracts.options import Options
from bench.contracts.source import Archived, DataSource, Schema
from bench.records import results
from bench.records.metrics import METRICS
from bench.records.record import RecordError
from bench.registry import Entry, ModelEntry
from bench.report.tables import Table, runs_table
from bench.specs.spec import DataSpec


def backends() -> Table:
    """Return all backends with what each needs and offers."""
    rows = []
    for name, entry in registry.backends().items():
        usable, options = _usable(entry), ""
        if not entry.missing():
            try:
                options = " ".join(registry.backend_class(name).options_type.model_fields)
            except BenchError as error:
                usable = f"no: {error}"
        rows.append([name, entry.summary, _needs(entry), usable, options])
    notes = ["`bench list backends NAME` explains the options of one."]
    return Table("Backends", ["name", "what", "needs", "usable here", "options"], rows, notes, text_columns=5)


def backend_options(name: str) -> Table:
    """Return the options of one backend with default and meaning."""
    return _options(name, registry.backend_class(name).options_type, as_flags=False)


def dataset_options(name: str) -> Table:
    """Return the options of one data set, as flags, with default and meaning."""
    cls = registry.dataset_class(name)
    table = _options(name, cls.options_type, as_flags=True)
    layout = [" ".join(part.split()) for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n")]
    return replace(table, notes=[*table.notes, *(text for text in layout if text)])


def _options(name: str, options: type[Options], *, as_flags: bool) -> Table:
    rows = []
    whole = options.model_json_schema()
    schema, named = whole.get("properties", {}), whole.get("$defs", {})
    for key, field in options.model_fields.items():
        default = "none" if field.default is None else str(field.default)
        shown = f"--{key.replace('_', '-')}" if as_flags else key
        rows.append([shown, _values(schema[key], named), default, field.description or ""])
    notes = [] if rows else [f"{name} has no options."]
    return Table(f"Options of {name}", ["option", "values", "default", "meaning"], rows, notes, text_columns=4)


def datasets(search: Iterable[Path]) -> Table:
    """Return all data sets and where the raw data of each was found."""
    rows = []
    for name, entry in registry.datasets().items():
        usable, found = _usable(entry), ""
        if not entry.missing():
            try:
                found = _found(registry.dataset_class(name), search)
            except BenchError as error:
                usable = f"no: {error}"
        rows.append([name, entry.summary, _needs(entry), usable, found])
    notes = ["`bench list datasets NAME` explains the options of one."]
    notes += [f"Looked for raw data in {', '.join(map(str, search))}."]
    return Table("Data sets", ["name", "what", "needs", "usable here", "raw data"], rows, notes, text_columns=5)


def metrics() -> Table:
    """Return what a run measures, by the names that commands take."""
    rows = [[metric.key, metric.label.strip(), metric.unit, metric.better] for metric in METRICS.values()]
    return Table("Metrics", ["name", "what", "unit", "better is"], rows, text_columns=4)


def models(spec: DataSpec | None, data_dir: Path, search: Iterable[Path]) -> Table:
    """Return all models with their size: for the samples of a data set, or else for those of its own study each.

    Nothing is downloaded or decoded. Raises BenchError where own data is not there.
    """
    schema = None if spec is None else _schema(spec, data_dir, search)
    rows = [_model_row(name, entry, schema) for name, entry in registry.models().items()]
    rows.append(["none", "no model: loading alone", "", "", "yes", "", ""])
    title = "Models, each for samples like those that it is known for"
    if schema is not None:
        title = f"Models, for samples of {schema.name}: {_samples(schema.shape, len(schema.classes))}"
    columns = ["name", "what", "takes from", "samples", "usable here", "parameters", "FLOPs per sample"]
    notes = [
        "FLOPs: of one forward pass, in convolutions and products of matrices; a multiply-add counts as 2. A step of "
        "training takes about three times as many.",
    ]
    if schema is None:
        notes.append("`bench list models --dataset NAME` shows what they are for a data set.")
    return Table(title, columns, rows, notes, text_columns=5)


def _model_row(name: str, entry: ModelEntry, schema: Schema | None) -> list[str]:
    shape, classes = entry.made_for if schema is None else (schema.shape, len(schema.classes))
    least = "x".join(map(str, entry.smallest))
    usable = _usable(entry)
    sizes = ["", ""]
    if len(shape) != 3 or not entry.takes(shape):
        usable = "no: samples are too small" if len(shape) == 3 else "no: samples are no images"
    elif usable == "yes":
        from bench.models.cost import cost_of

        cost = cost_of(registry.model_builder(name), shape, classes)
        sizes = [f"{cost.parameters:,}", f"{cost.flops:,}"]
    return [name, entry.summary, least, _samples(shape, classes), usable, *sizes]


def _samples(shape: tuple[int, ...], classes: int) -> str:
    return f"{'x'.join(map(str, shape)) or 'single values'}, {classes} classes"


def _schema(spec: DataSpec, data_dir: Path, search: Iterable[Path]) -> Schema:
    source = spec.open_source(search)
    if source.takes_path:
        source.prepare(data_dir)
        return source.schema(spec.split)
    # The stand-in has the shape and the classes of the real set, and is there without a download.
    return source.imitate().schema(spec.split)


def runs(folder: Path) -> tuple[Table, list[RecordError]]:
    """Return all runs of a folder, and the errors of files that are no records."""
    found, errors = results.read_all(folder)
    return runs_table([path.stem for path, _ in found], [record for _, record in found]), errors


def _needs(entry: Entry) -> str:
    return ", ".join(entry.needs.values()) or "nothing"


def _usable(entry: Entry) -> str:
    missing = entry.missing()
    return f"no: pip install {' '.join(missing)}" if missing else "yes"


def _found(cls: type[DataSource], search: Iterable[Path]) -> str:
    if cls.takes_path:
        return f"your own: {cls.name}:PATH"
    for folder in search:
        try:
            if (found := cls().locate(folder, official_only=False)) is not None:
                return f"in {folder}" + (", packed" if isinstance(found, Archived) else "")
        except BenchError as error:
            return f"damaged: {error}"
    return "not here: downloaded when needed, else synthetic" if cls.downloads else "not here, nor to be downloaded"


def _values(schema: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    """Return in words what an option may be; ``named`` are the parts of its schema that have a name, as enums have."""
    if "$ref" in schema:
        return _values(named[schema["$ref"].rpartition("/")[2]], named)
    if "enum" in schema:
        return "|".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(_values(choice, named) for choice in schema["anyOf"])
    kind = str(schema.get("type", "anything"))
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f" {'' if low is None else low}…{'' if high is None else high}" if (low, high) != (None, None) else ""
    return {"null": "none", "integer": "whole number"}.get(kind, kind) + bounds
