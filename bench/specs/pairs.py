"""Options of a backend as they are written, ``KEY=VALUE``, and errors about what was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from bench import registry
from bench.contracts.backend import Backend
from bench.contracts.errors import BenchError
from bench.contracts.options import Options


class SpecError(BenchError):
    """A flag or option that does not make sense."""


def parse_options(cls: type[Backend[Any]], pairs: Iterable[str]) -> Options:
    """Turn ``KEY=VALUE`` pairs into a backend's options; raises SpecError naming the pair at fault."""
    fields = cls.options_type.model_fields
    return validated_options(cls, split_pairs("--option", pairs, f"{cls.name} has: {', '.join(fields)}."))


def split_pairs(flag: str, pairs: Iterable[str], advice: str) -> dict[str, str]:
    """Split ``KEY=VALUE`` texts; raises SpecError for one that is none, or that comes twice."""
    values: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise SpecError(f"{flag} {pair!r} is not KEY=VALUE. {advice}")
        if key in values:
            raise SpecError(f"{flag} {key} is given twice.")
        values[key] = value
    return values


def validated_options(cls: type[Backend[Any]], values: Mapping[str, Any]) -> Options:
    """Validate option values, or texts of them; raises SpecError in one line."""
    fields = cls.options_type.model_fields
    for key in values:
        if key not in fields:
            raise SpecError(registry.unknown(f"{cls.name} option", key, fields))
    try:
        made = cls.options_type.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = plain(first["msg"])
        if not first["loc"]:
            raise SpecError(f"--option of {cls.name}: {message}.") from error
        raise SpecError(f"--option {first['loc'][0]}={first['input']}: {message} ({cls.name}).") from error
    for key, value in values.items():
        # To pydantic True is a 1, as no text is: who says so means something else.
        if isinstance(value, bool) and type(getattr(made, key)) in {int, float}:
            raise SpecError(f"--option {key}={value}: input should be a number ({cls.name}).")
    return made


def plain(message: str) -> str:
    """Return pydantic's message as part of a sentence."""
    text = message.removeprefix("Value error, ").rstrip(".")
    return text[:1].lower() + text[1:]
