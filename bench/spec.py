"""What to run, as frozen and validated values: the identity of a store and of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench import registry
from bench.contracts.backend import Backend, Options
from bench.contracts.errors import BenchError
from bench.contracts.source import DataSource, SourceRequest, Split

NO_MODEL = "none"


class SpecError(BenchError):
    """A flag or option that does not make sense."""


class StoreSpec(BaseModel):
    """Which data, prepared how. ``options`` holds every option of the backend, defaults included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    source: str = "auto"
    split: Split = "train"
    limit: int | None = Field(None, ge=1)
    backend: str
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value in {"auto", "official", "synthetic"} or (value.startswith("local:") and len(value) > len("local:")):
            return value
        raise ValueError("must be auto, official, synthetic or local:PATH")

    def open_source(self, search: Iterable[Path]) -> DataSource:
        """Return the data set, not yet prepared, looking for raw data in ``search``."""
        if self.source.startswith("local:"):
            request = SourceRequest("local", Path(self.source.removeprefix("local:")).expanduser())
        else:
            request = SourceRequest(self.source, None, tuple(search))  # type: ignore[arg-type]  # checked above
        return registry.dataset_class(self.dataset)(request)

    def open_backend(self) -> Backend[Any]:
        """Return the backend with its options."""
        cls = registry.backend_class(self.backend)
        return cls(cls.options_type.model_validate(self.options))


class RunSpec(StoreSpec):
    """One run, complete: two runs of equal ``spec_id`` did the same work in the same way."""

    model: str = "cnn"
    epochs: int = Field(3, ge=1)
    batch_size: int = Field(128, ge=1)
    workers: int = Field(0, ge=0, le=512)
    worker_kind: Literal["process", "thread"] = "process"
    start_method: Literal["fork", "forkserver", "spawn"] = "fork"
    device: str = "auto"
    seed: int = Field(0, ge=0, lt=2**63)
    shuffle: Literal["full", "none"] = "full"
    amp: bool = False
    deterministic: bool = False

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        kind, _, number = value.partition(":")
        if value in {"auto", "cpu", "cuda"} or (kind == "cuda" and number.isdecimal()):
            return value
        raise ValueError("must be auto, cpu, cuda or cuda:N")

    @model_validator(mode="after")
    def _batch_fits(self) -> RunSpec:
        if self.limit is not None and self.batch_size > self.limit:
            raise ValueError(f"--batch-size {self.batch_size} is larger than the data: --limit is {self.limit}")
        return self

    @property
    def spec_id(self) -> str:
        """Hash of all fields, 16 hex digits."""
        return content_hash(self.model_dump())


SpecT = TypeVar("SpecT", bound=StoreSpec)


def content_hash(value: Any) -> str:
    """Return 16 hex digits that depend on the content of a JSON-able value alone."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def make_spec(kind: type[SpecT], options: Iterable[str], **fields: Any) -> SpecT:
    """Build a spec from flags; raises SpecError (or UnknownNameError) naming the flag at fault."""
    cls = registry.backend_class(fields["backend"])
    dataset = registry.dataset_class(fields["dataset"])
    model = fields.get("model", NO_MODEL)
    if model != NO_MODEL:
        registry.require_model(model)
    parsed = parse_options(cls, options)
    try:
        spec = kind(options=parsed.model_dump(mode="json"), **fields)
    except ValidationError as error:
        raise SpecError(_flag_message(error)) from error
    if spec.split not in dataset.splits:
        raise SpecError(f"{spec.dataset} has no split {spec.split!r}. It has: {', '.join(dataset.splits)}.")
    return spec


def parse_options(cls: type[Backend[Any]], pairs: Iterable[str]) -> Options:
    """Turn ``KEY=VALUE`` pairs into a backend's options; raises SpecError naming the pair at fault."""
    values: dict[str, str] = {}
    fields = cls.options_type.model_fields
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise SpecError(f"--option {pair!r} is not KEY=VALUE. {cls.name} has: {', '.join(fields)}.")
        if key not in fields:
            raise SpecError(registry.unknown(f"{cls.name} option", key, fields))
        if key in values:
            raise SpecError(f"--option {key} is given twice.")
        values[key] = value
    return validated_options(cls, values)


def validated_options(cls: type[Backend[Any]], values: Mapping[str, Any]) -> Options:
    """Validate option values; raises SpecError in one line."""
    try:
        return cls.options_type.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = _plain(first["msg"])
        if not first["loc"]:
            raise SpecError(f"--option of {cls.name}: {message}.") from error
        key = first["loc"][0]
        raise SpecError(f"--option {key}={first['input']}: {message} ({cls.name}).") from error


def _flag_message(error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return f"{_plain(first['msg'])}."
    flag = str(first["loc"][0]).replace("_", "-")
    return f"--{flag} {str(first['input'])!r}: {_plain(first['msg'])}."


def _plain(message: str) -> str:
    text = message.removeprefix("Value error, ").rstrip(".")
    return text[:1].lower() + text[1:]
