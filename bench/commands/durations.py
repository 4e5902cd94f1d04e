"""Times as they are written in flags."""

from __future__ import annotations

import re

from bench.contracts.errors import BenchError

_UNITS_S = {"s": 1, "m": 60, "h": 3600}


class DurationError(BenchError):
    """A time that is none, or too short."""


def duration_s(flag: str, text: str, least_s: float = 0.0) -> float:
    """Return the seconds that ``90s``, ``5m`` or ``1h`` stand for. Raises DurationError."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if parts is None:
        raise DurationError(f"{flag} {text}: not a time. Write it like 90s, 5m or 1h.")
    seconds = float(parts[1]) * _UNITS_S[parts[2]]
    if not seconds or seconds < least_s:
        raise DurationError(f"{flag} {text} is too short: two runs take longer. Give {max(1.0, least_s):.0f}s or more.")
    return seconds
