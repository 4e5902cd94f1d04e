"""How a network is trained: the part of a run's spec that has nothing to do with how samples are stored and loaded."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

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


class Protocol(BaseModel):
    """The optimizer and its options; None becomes what the optimizer takes by default, so that records tell it.

    Loading alone trains nothing, so it takes none of this.
    """

    model: str = "cnn"
    optimizer: Optimizer = "sgd"
    lr: float | None = Field(None, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    momentum: float | None = Field(None, ge=0, lt=1)

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
    def _options_have_a_use(self) -> Protocol:
        if self.momentum is not None and DEFAULTS[self.optimizer].momentum is None:
            knowing = " and ".join(name for name, defaults in DEFAULTS.items() if defaults.momentum is not None)
            raise ValueError(f"--momentum goes with --optimizer {knowing}: {self.optimizer} has none")
        chosen = (name for name in _OF_NETWORKS if getattr(self, name) != Protocol.model_fields[name].default)
        if self.model == NO_MODEL and (name := next((n for n in chosen if n not in self.implied()), None)):
            raise ValueError(f"{flag(name)} goes with a network: --model none trains nothing")
        return self

    def implied(self) -> set[str]:
        """Return the fields whose values follow from the others, so that they are no part of a run's identity."""
        defaults = DEFAULTS[self.optimizer]._asdict()
        return {name for name, value in defaults.items() if getattr(self, name) in (None, value)}


_OF_NETWORKS = ("optimizer", "lr", "weight_decay", "momentum")


def flag(field: str) -> str:
    """Return how a field is written on the command line."""
    return f"--{field.replace('_', '-')}"
