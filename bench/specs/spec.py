"""What to run, as frozen and validated values: the identity of a store and of a run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from bench import registry
from bench.contracts.backend import Backend
from bench.contracts.options import Options
from bench.contracts.source import DataSource, OwnData, SourceRequest, Split
from bench.measure.page_cache import CacheState
from bench.specs import augmentation
from bench.specs.pairs import SpecError as SpecError
from bench.specs.pairs import parse_options, plain
from bench.specs.pairs import split_pairs as split_pairs
from bench.specs.pairs import validated_options as validated_options
from bench.specs.protocol import NO_MODEL as NO_MODEL
from bench.specs.protocol import Protocol, as_recorded, flag

Shuffle = Literal["full", "block", "none"]

BLOCK_SAMPLES = 256
BUFFER_BLOCKS = 16
"""What a block shuffle has where nothing is said: a buffer of 4,096 samples."""

PREFETCH_BATCHES = 2
"""Batches that each worker keeps ready where nothing is said, as torch's DataLoader does by default."""

_ADDED = (
    "dataset_options",
    "cache",
    "memory_limit_bytes",
    "drop_caches",
    "block_samples",
    "buffer_blocks",
    "prefetch",
    "compile",
    "channels_last",
    "augment",
    "weights",
    "optimizer",
    "lr",
    "weight_decay",
    "momentum",
    "val",
    "test",
    "early_stopping",
    "class_weights",
    "balanced_sampler",
)
"""Fields that later versions added: at their defaults they are no part of a run's identity."""


class DataSpec(BaseModel):
    """Which data: ``dataset`` is ``NAME`` or ``NAME:PATH``, ``dataset_options`` has every option, defaults included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    dataset_options: dict[str, Any] = Field(default_factory=dict)
    source: str = "auto"
    split: Split = "train"
    limit: int | None = Field(None, ge=1)

    @field_validator("source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value in {"auto", "official", "synthetic"} or (value.startswith("local:") and len(value) > len("local:")):
            return value
        raise ValueError("must be auto, official, synthetic or local:PATH")

    @field_validator("dataset", "source")
    @classmethod
    def _writable(cls, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            text = "the path has bytes that are no text, which no record can hold: rename it, or use a link"
            raise ValueError(text) from None
        return value

    @property
    def dataset_name(self) -> str:
        """The registered name, without a path."""
        return self.dataset.partition(":")[0]

    @property
    def dataset_label(self) -> str:
        """The name, with the last part of the path where there is one: fit for a file name."""
        name, _, path = self.dataset.partition(":")
        last = re.sub(r"[^A-Za-z0-9_.]+", "_", Path(path).absolute().name).strip("._") if path else ""
        return f"{name}-{last}" if last else name

    @property
    def place(self) -> Path | None:
        """The path that was given for the data, if any. Raises SpecError."""
        path = self.dataset.partition(":")[2] or self.source.partition(":")[2]
        try:
            return Path(path).expanduser() if path else None
        except RuntimeError as error:
            raise SpecError(f"{path}: there is no such user. Write the path in full.") from error

    def require_apart(self, **folders: Path) -> None:
        """Raise SpecError where one of our own folders, named by its flag, would become part of the user's data."""
        cls = registry.dataset_class(self.dataset_name)
        if self.place is None or not issubclass(cls, OwnData) or not cls.whole_folder:
            return
        place = self.place.resolve()
        for name, folder in folders.items():
            if folder.expanduser().resolve().is_relative_to(place):
                raise SpecError(f"{name} {folder} lies inside {self.dataset} and would become data. Choose another.")

    def open_source(self, search: Iterable[Path]) -> DataSource:
        """Return the data set, not yet prepared, looking for raw data in ``search``."""
        cls = registry.dataset_class(self.dataset_name)
        place = self.place
        if place is not None:
            request = SourceRequest("local", place)
        else:
            request = SourceRequest(self.source, None, tuple(search))  # type: ignore[arg-type]  # checked above
        return cls(request, cls.options_type.model_validate(self.dataset_options))


class StoreSpec(DataSpec):
    """Which data, prepared how. ``options`` holds every option of the backend, defaults included."""

    backend: str
    options: dict[str, Any] = Field(default_factory=dict)

    def open_backend(self) -> Backend[Any]:
        """Return the backend with its options."""
        cls = registry.backend_class(self.backend)
        return cls(cls.options_type.model_validate(self.options))


LOADING = ("workers", "worker_kind", "prefetch")
"""Fields of a RunSpec that say how samples are loaded, which each cell of a comparison may have of its own."""


class RunSpec(Protocol, StoreSpec):
    """One run, complete: two runs of equal ``spec_id`` did the same work in the same way."""

    weights: str | None = None
    """A file of weights that the network begins with; None draws them by ``seed``."""

    epochs: int = Field(3, ge=1)
    batch_size: int = Field(128, ge=1)
    workers: int = Field(0, ge=0, le=512)
    worker_kind: Literal["process", "thread"] = "process"
    start_method: Literal["fork", "forkserver", "spawn"] = "fork"
    prefetch: int = Field(PREFETCH_BATCHES, ge=1, le=64)
    """Batches that each worker keeps ready, rounded up to whole tasks where it reads several batches at once."""

    device: str = "auto"
    seed: int = Field(0, ge=0, lt=2**63)
    shuffle: Shuffle = "full"
    block_samples: int | None = Field(None, ge=1)
    """Consecutive samples that a block shuffle keeps in one buffer; None for any other shuffle."""

    buffer_blocks: int | None = Field(None, ge=1)
    """Blocks whose samples a block shuffle shuffles together; None for any other shuffle."""

    amp: bool = False
    compile: bool = False
    channels_last: bool = False
    deterministic: bool = False
    cache: CacheState = "as-is"
    memory_limit_bytes: int | None = Field(None, ge=1)
    augment: tuple[str, ...] = ()
    """How samples are changed before each step, in the order of :data:`bench.specs.augmentation.AUGMENTATIONS`."""

    drop_caches: bool = False
    """Whether root's machine-wide drop of all caches brings about ``cold``."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        kind, _, number = value.partition(":")
        if value in {"auto", "cpu", "cuda"} or (kind == "cuda" and number.isdecimal()):
            return value
        raise ValueError("must be auto, cpu, cuda or cuda:N")

    @field_validator("augment", mode="before")
    @classmethod
    def _known_augmentations(cls, value: Any) -> tuple[str, ...]:
        return augmentation.chosen(value)

    @model_validator(mode="before")
    @classmethod
    def _complete_blocks(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("shuffle") != "block":
            return values
        given = {key: value for key, value in values.items() if value is not None}
        return {**values, "block_samples": BLOCK_SAMPLES, "buffer_blocks": BUFFER_BLOCKS, **given}

    @model_validator(mode="after")
    def _blocks_have_a_use(self, info: ValidationInfo) -> RunSpec:
        if as_recorded(info):
            return self
        for name in ("block_samples", "buffer_blocks"):
            if self.shuffle != "block" and getattr(self, name) is not None:
                raise ValueError(f"{flag(name)} goes with --shuffle block alone")
        if self.balanced_sampler and self.shuffle != "full":
            raise ValueError("--balanced-sampler is an order of its own: leave --shuffle out")
        if self.val_share is not None and (copies := self.dataset_options.get("augment_copies")):
            raise ValueError(
                f"--val {self.val} does not go with --augment-copies {copies}: what is held out would have copies of "
                "itself among what is trained on. Use a split for --val"
            )
        for name, split in self.evaluated_splits.items():
            if split == self.split:
                raise ValueError(f"--{name} {split}: that is what is trained on. Choose another split, or --split")
        return self

    @model_validator(mode="after")
    def _there_is_a_network(self, info: ValidationInfo) -> RunSpec:
        if as_recorded(info):
            return self
        useless = next((name for name in _OF_NETWORKS if self.model == NO_MODEL and getattr(self, name)), None)
        if useless is not None:
            raise ValueError(f"{flag(useless)} goes with a network: --model none trains nothing")
        return self

    @model_validator(mode="after")
    def _batch_fits(self, info: ValidationInfo) -> RunSpec:
        if as_recorded(info):
            return self
        if self.limit is not None and self.batch_size > self.limit:
            raise ValueError(f"--batch-size {self.batch_size} is larger than the data: --limit is {self.limit}")
        if self.drop_caches and self.cache != "cold":
            raise ValueError("--drop-caches goes with --cache cold alone")
        if self.memory_limit_bytes is not None and self.cache == "warm":
            raise ValueError(
                "--memory-limit does not go with --cache warm: what is kept in memory for it is not limited"
            )
        return self

    def without_use(self) -> tuple[str, ...]:
        """Return the fields that change nothing in this run, whatever their values are."""
        if self.workers == 0:
            return "worker_kind", "start_method", "prefetch"
        return ("start_method",) if self.worker_kind == "thread" else ()

    def require_use(self) -> None:
        """Raise SpecError where something was asked for that changes nothing in this run.

        Of one run alone: among several, it may have a use in another.
        """
        for name in self.without_use():
            if getattr(self, name) != type(self).model_fields[name].default:
                where = "without --workers" if self.workers == 0 else "where workers are threads"
                raise SpecError(f"{flag(name)} {getattr(self, name)} does nothing {where}. Leave it out.")

    def evaluated_stores(self) -> dict[str, StoreSpec]:
        """Return the stores of the splits that are evaluated, whole whatever the limit, by the name of the field."""
        fields = {name: getattr(self, name) for name in StoreSpec.model_fields}
        splits = self.evaluated_splits.items()
        return {name: StoreSpec(**{**fields, "split": split, "limit": None}) for name, split in splits}

    @property
    def spec_id(self) -> str:
        """Hash of all fields, 16 hex digits."""
        # What was added later and is not used leaves runs the identity they had before.
        fields = type(self).model_fields
        left_out = {n for n in _ADDED if getattr(self, n) == fields[n].get_default(call_default_factory=True)}
        return content_hash(self.model_dump(exclude=left_out | self.implied()))


_OF_NETWORKS = ("weights", "augment", "amp", "compile", "channels_last")

SpecT = TypeVar("SpecT", bound=DataSpec)


def content_hash(value: Any) -> str:
    """Return 16 hex digits that depend on the content of a JSON-able value alone."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def make_spec(
    kind: type[SpecT], options: Iterable[str], *, dataset_options: Mapping[str, Any] | None = None, **fields: Any
) -> SpecT:
    """Build a spec from flags; raises SpecError (or UnknownNameError) naming the flag at fault.

    ``options`` are ``KEY=VALUE`` pairs for the backend, ``dataset_options`` values for the data set.
    """
    if "backend" in fields:
        fields["options"] = parse_options(registry.backend_class(fields["backend"]), options).model_dump(mode="json")
    name, sign, path = fields["dataset"].partition(":")
    dataset = registry.dataset_class(name)
    _require_place(dataset, path, named=bool(sign), source=fields.get("source", "auto"))
    model = fields.get("model", NO_MODEL)
    if model != NO_MODEL:
        registry.require_model(model)
    chosen = _dataset_options(dataset, dataset_options or {})
    try:
        spec = kind(dataset_options=chosen.model_dump(mode="json"), **fields)
    except ValidationError as error:
        raise SpecError(_flag_message(error)) from error
    for split in (spec.split, *(spec.evaluated_splits.values() if isinstance(spec, RunSpec) else ())):
        if split not in dataset.splits:
            raise SpecError(f"{spec.dataset} has no split {split!r}. It has: {', '.join(dataset.splits)}.")
    augmentation.require_content(getattr(spec, "augment", ()), spec.dataset, dataset.content)
    return spec


def _require_place(dataset: type[DataSource], path: str, *, named: bool, source: str) -> None:
    name = dataset.name
    if dataset.takes_path and not path:
        raise SpecError(f"--dataset {name} needs to know where: {name}:PATH.")
    if dataset.takes_path and source != "auto":
        raise SpecError(f"--source {source} does not go with {name}:PATH, which names its own place. Leave it out.")
    if named and not dataset.takes_path:
        raise SpecError(f"--dataset {name}:{path}: {name} takes no path. Use --source local:PATH.")


def _dataset_options(dataset: type[DataSource], values: Mapping[str, Any]) -> Options:
    fields = dataset.options_type.model_fields
    has = f"It has: {', '.join(map(flag, fields))}." if fields else "It has no options."
    for key in values:
        if key not in fields:
            raise SpecError(f"{dataset.name} has no {flag(key)}. {has}")
    try:
        return dataset.options_type.model_validate({k: None if v == "none" else v for k, v in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SpecError(f"{dataset.name}: {plain(first['msg'])}.") from error
        key = str(first["loc"][0])
        raise SpecError(f"{flag(key)} {first['input']}: {plain(first['msg'])} ({dataset.name}).") from error


def _flag_message(error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return f"{plain(first['msg'])}."
    return f"{flag(str(first['loc'][0]))} {str(first['input'])!r}: {plain(first['msg'])}."
