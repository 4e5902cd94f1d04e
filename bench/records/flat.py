"""Records as rows of a table, one per epoch: every single value under a name of its own, units in the names.

Columns come from the models of the record, so what a record gains is exported, too. The order is that of the models,
then what records hold beside them, sorted: options, libraries, the reader's facts, the environment.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bench.records.learned import EvaluationInfo
from bench.records.record import EpochInfo, RunRecord
from bench.specs import augmentation

Kind = Literal["bool", "int", "float", "text"]
Value = bool | int | float | str | None
Row = dict[str, Value]

_SEPARATE = {"epochs", "environment", "reader", "warnings", "schema_version"}
"""Fields of a record that have columns of their own kind, or one that is made here."""

_VALIDATION = "validation_"
_SAID_BY_THE_RUN = {"split", "epoch"}
"""Fields of a validation that its row has already: the epoch, and what was asked for."""

_PYTHON: dict[type, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}


@dataclass(frozen=True, slots=True)
class Flat:
    """Rows and the kind of each column, in order; a row holds only what is known."""

    columns: dict[str, Kind]
    rows: list[Row]


def flatten(named: Sequence[tuple[str, RunRecord]]) -> Flat:
    """Return one row per epoch of each finished run, and one without epochs for each other run.

    An epoch's row has the validation after it; test, training and fold are the run's.
    ``named`` are records with the names of their runs, which are the first column.
    """
    fixed = _fixed_columns()
    extra: dict[str, set[Kind]] = {}
    rows = []
    for name, record in named:
        common: Row = {"run": name, "schema_version": record.schema_version, **_of_record(record)}
        free = _free(record)
        for key, value in free.items():
            extra.setdefault(key, set()).add(_kind(value))
        epochs = record.epochs if record.status == "ok" else []
        validated = {found.epoch: dict(_values(found, _VALIDATION, _SAID_BY_THE_RUN)) for found in record.validation}
        of_epochs = [{**_of_epoch(epoch), **validated.get(epoch.epoch, {})} for epoch in epochs]
        rows += [{**common, **free, **own} for own in of_epochs] or [{**common, **free}]
    order = sorted(extra, key=lambda key: (_PREFIXES.index(f"{key.partition('_')[0]}_"), key))
    columns = fixed | {key: _widest(extra[key]) for key in order}
    return Flat(columns, [_cast(row, columns) for row in rows])


def epoch_columns() -> list[str]:
    """Return the columns whose values are those of an epoch; all others are the run's."""
    return list(_epoch_columns())


_PREFIXES = ("option_", "dataset_", "library_", "reader_", "environment_")


def _fixed_columns() -> dict[str, Kind]:
    first: dict[str, Kind] = {"run": "text", "schema_version": "int"}
    record = dict(_columns(RunRecord, "", _SEPARATE))
    made: dict[str, Kind] = {
        "data_class_count": "int",
        "data_shape": "text",
        "spec_augment": "text",
        "warnings": "text",
    }
    return first | record | made | _epoch_columns()


def _epoch_columns() -> dict[str, Kind]:
    validation = dict(_columns(EvaluationInfo, _VALIDATION, _SAID_BY_THE_RUN))
    return dict(_columns(EpochInfo, "", set())) | {"batch_count": "int"} | validation


def _columns(model: type[BaseModel], prefix: str, left_out: set[str]) -> Iterator[tuple[str, Kind]]:
    """Yield the columns of a model's single values, those of models inside it behind the name of their field."""
    for name, field in model.model_fields.items():
        if name in left_out:
            continue
        inner = _model(field.annotation)
        if inner is not None:
            yield from _columns(inner, f"{prefix}{name}_", set())
        elif (kind := _scalar(field.annotation)) is not None:
            yield _named(model, prefix, name), kind


def _named(model: type[BaseModel], prefix: str, name: str) -> str:
    # Each epoch has one of its own, too.
    return f"run_{name}" if model is RunRecord and name in EpochInfo.model_fields else f"{prefix}{name}"


def _model(annotation: Any) -> type[BaseModel] | None:
    found = [one for one in _alternatives(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return found[0] if found else None


def _scalar(annotation: Any) -> Kind | None:
    kinds: set[Kind] = set()
    for one in _alternatives(annotation):
        if get_origin(one) is Literal:
            kinds |= {_PYTHON[type(value)] for value in get_args(one) if value is not None}
        elif one in _PYTHON:
            kinds.add(_PYTHON[one])
        else:
            return None
    return _widest(kinds) if kinds else None


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in {Union, types.UnionType}:
        return [one for part in get_args(annotation) for one in _alternatives(part) if one is not type(None)]
    return [annotation]


def _of_record(record: RunRecord) -> Row:
    row = dict(_values(record, "", _SEPARATE))
    if record.data is not None:
        row["data_class_count"] = len(record.data.classes)
        row["data_shape"] = "x".join(map(str, record.data.shape))
    row["spec_augment"] = augmentation.text(record.spec.augment) or None
    row["warnings"] = "; ".join(warning.kind for warning in record.warnings)
    return row


def _of_epoch(epoch: EpochInfo) -> Row:
    return {**dict(_values(epoch, "", set())), "batch_count": len(epoch.batch_wait_s)}


def _values(part: BaseModel, prefix: str, left_out: set[str]) -> Iterator[tuple[str, Value]]:
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if name in left_out or value is None:
            continue
        if isinstance(value, BaseModel):
            yield from _values(value, f"{prefix}{name}_", set())
        elif _scalar(field.annotation) is not None:
            yield _named(type(part), prefix, name), value


def _free(record: RunRecord) -> Row:
    """Return what has no fixed names: options of backend and data set, versions, the reader's facts, the environment.

    Options of the backend are those that were used, with what was not given filled in, where the store tells.
    """
    options = record.store.options if record.store is not None else record.spec.options
    environment = {key: value for key, value in record.environment.items() if key != "libraries"}
    libraries = record.environment.get("libraries")
    return {
        **dict(_leaves(options, "option_")),
        **dict(_leaves(record.spec.dataset_options, "dataset_option_")),
        **dict(_leaves(libraries if isinstance(libraries, Mapping) else {}, "library_")),
        **dict(_leaves(record.reader, "reader_")),
        **dict(_leaves(environment, "environment_")),
    }


def _leaves(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}_")
        elif isinstance(value, bool | int | float | str):
            yield f"{prefix}{key}", value


def _kind(value: Value) -> Kind:
    return _PYTHON[type(value)]


def _widest(kinds: set[Kind]) -> Kind:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float" if kinds == {"int", "float"} else "text"


def _cast(row: Row, columns: Mapping[str, Kind]) -> Row:
    return {name: _as(value, columns[name]) for name, value in row.items() if value is not None}


def _as(value: Value, kind: Kind) -> Value:
    if kind == "float" and isinstance(value, int):
        return float(value)
    return text(value) if kind == "text" else value


def text(value: Value) -> str:
    """Return a value as it is written where all is text: true and false in small letters, nothing for None."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
