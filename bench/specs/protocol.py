"""How a network is trained: the part of a run's spec that has nothing to do with how samples are stored and loaded."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from bench.contracts.source import Split

Optimizer = Literal["sgd", "adam", "radam", "rmsprop"]

NO_MODEL = "none"


class Defaults(NamedTuple):
    """What an optimizer takes where nothing is said; ``momentum`` is None where it has no such thing."""

    lr: float
    momentum: float | None


DEFAULTS: dict[Optimizer, Defaults] = {
    "sgd": Defaults(0.05, 0.9),
    # The others as in torch.optim.
    "adam": Defaults(0.001, None),
    "radam": Defaults(0.001, None),
    "rmsprop": Defaults(0.01, 0.0),
}


AS_RECORDED = {"recorded": True}
"""The context in which the spec of a record is read: what is refused today was run then, and stays readable."""

HELD_OUT = "held out"
"""What a share of the training samples is called that is kept for validation."""


class Protocol(BaseModel):
    """The optimizer, the samples that are evaluated on, and what is done about unequal classes.

    Options of the optimizer that are None become what it takes by default, so that records tell it. Loading alone
    trains nothing, so it takes none of this but the sampler.
    """

    model: str = "cnn"
    optimizer: Optimizer = "sgd"
    lr: float | None = Field(None, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    momentum: float | None = Field(None, ge=0, lt=1)
    val: str | None = None
    """What is evaluated after every epoch: a split, or a share of the training samples, which then are held out."""

    test: Split | None = None
    """The split that is evaluated at the end, with the weights that were best in validation where there is one."""

    early_stopping: int | None = Field(None, ge=1)
    """After how many epochs without a higher validation accuracy training ends."""

    class_weights: bool = False
    balanced_sampler: bool = False
    """Whether samples are drawn with replacement, every class as often as any other."""

    @field_validator("val", mode="before")
    @classmethod
    def _split_or_share(cls, value: Any) -> Any:
        if value is None or value in get_args(Split):
            return value
        try:
            share = float(value)
        except (TypeError, ValueError):
            share = 0.0
        if not 0 < share < 1:
            raise ValueError(f"must be a split ({', '.join(get_args(Split))}) or a share between 0 and 1, like 0.1")
        # In full: a share that is rounded to 1 would be none.
        return repr(share)

    @model_validator(mode="before")
    @classmethod
    def _complete_optimizer(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = DEFAULTS.get(values.get("optimizer", "sgd"))
        if defaults is None:
            return values
        given = {key: value for key, value in values.items() if value is not None}
        return {**values, **defaults._asdict(), **given}

    @model_validator(mode="after")
    def _options_have_a_use(self, info: ValidationInfo) -> Protocol:
        if as_recorded(info):
            return self
        if self.momentum is not None and DEFAULTS[self.optimizer].momentum is None:
            knowing = " and ".join(name for name, defaults in DEFAULTS.items() if defaults.momentum is not None)
            raise ValueError(f"--momentum goes with --optimizer {knowing}: {self.optimizer} has none")
        chosen = (name for name in _OF_NETWORKS if getattr(self, name) != Protocol.model_fields[name].default)
        if self.model == NO_MODEL and (name := next((n for n in chosen if n not in self.implied()), None)):
            raise ValueError(f"{flag(name)} goes with a network: --model none trains nothing")
        if self.early_stopping is not None and self.val is None:
            raise ValueError("--early-stopping goes with --val, whose accuracy it watches")
        if self.test is not None and self.test == self.val:
            raise ValueError(
                f"--test {self.test} is what --val chooses the weights by: validate on another split, or on a share of "
                "the training samples, like --val 0.1"
            )
        return self

    @property
    def val_share(self) -> float | None:
        """The share of the training samples that is held out, None where there is none."""
        return None if self.val is None or self.val in get_args(Split) else float(self.val)

    @property
    def evaluated_splits(self) -> dict[str, Split]:
        """The splits that are evaluated on, each with a store of its own, by the name of the field."""
        named = {"val": None if self.val_share is not None else self.val, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}  # type: ignore[misc]  # checked above

    def implied(self) -> set[str]:
        """Return the fields whose values follow from the others, so that they are no part of a run's identity."""
        defaults = DEFAULTS[self.optimizer]._asdict()
        return {name for name, value in defaults.items() if getattr(self, name) in (None, value)}


_OF_NETWORKS = (
    *("optimizer", "lr", "weight_decay", "momentum"),
    *("val", "test", "early_stopping", "class_weights"),
)


def as_recorded(info: ValidationInfo) -> bool:
    """Whether a spec is read out of a record, and not asked for."""
    return info.context == AS_RECORDED


def flag(field: str) -> str:
    """Return how a field is written on the command line."""
    return f"--{field.replace('_', '-')}"
