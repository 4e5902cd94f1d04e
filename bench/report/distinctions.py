"""In what works differ from others that would be called the same."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.comparability import LOADING_FIELDS, differences
from bench.records.groups import Work

LONGEST_VALUE = 40
"""Characters of a value in a title; a shape or a processor's name may be longer."""


def distinctions(works: Sequence[Work], names: Sequence[str]) -> list[list[str]]:
    """Return for each work by what it differs from others of the same name, such as ``seed 1``; none where alone."""
    found = []
    for work, name in zip(works, names, strict=True):
        same = [other for other, others in zip(works, names, strict=True) if others == name]
        found.append(_distinction(work, same))
    return found


def _distinction(work: Work, same: Sequence[Work]) -> list[str]:
    base = same[0]
    by_name: dict[str, str] = {}
    for other in same[1:]:
        for difference in differences([base.first, other.first], own=LOADING_FIELDS):
            if len(difference.values) < 2:
                continue
            if other is work:
                by_name[difference.name] = difference.values[1]
            elif difference.name not in by_name:
                by_name[difference.name] = difference.values[0]
    # Fewer samples have another digest.
    implied = {"data"} if "samples" in by_name else set()
    return [f"{name} {_short(value)}" for name, value in by_name.items() if name not in implied]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
