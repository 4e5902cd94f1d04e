"""Folders of files: which files there are, of which class, and in which split.

Everything is a function of names alone, so that the same folder gives the same splits and
the same order on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from bench.contracts.source import SourceError

T = TypeVar("T")

SEED = 0


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in ``root``, sorted, without hidden ones. Raises SourceError."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{root} cannot be read: {error.strerror}.") from error


def files_below(folder: Path, suffixes: Collection[str]) -> list[str]:
    """Return the paths of all files below a folder that end in one of the (lower-case) suffixes, sorted.

    Hidden files and folders are passed over, as are links to folders. Raises SourceError.
    """
    wanted = frozenset(suffixes)
    try:
        return sorted(path for path in _walk(str(folder)) if os.path.splitext(path)[1].lower() in wanted)  # noqa: PTH122  # 100,000 Path objects take seconds
    except OSError as error:
        raise SourceError(f"{error.filename} cannot be read: {error.strerror}.") from error


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif entry.is_file() or (entry.is_symlink() and not entry.is_dir()):
                # A link to nowhere too: it is named when it cannot be decoded.
                yield entry.path


def shuffled(items: Sequence[T]) -> list[T]:
    """Return items in a fixed random order, so that the first N of them have all classes."""
    order = np.random.default_rng([SEED, len(items)]).permutation(len(items))
    return [items[i] for i in order]


def stratified(by_class: Mapping[str, Sequence[T]], fraction: float) -> tuple[list[T], list[T]]:
    """Divide the items of every class at random, ``fraction`` of them (rounded) to the second part.

    A class of two items or more is in both parts. Seeded: the same items give the same parts.
    """
    first: list[T] = []
    second: list[T] = []
    for number, items in enumerate(by_class.values()):
        order = np.random.default_rng([SEED, number, len(items)]).permutation(len(items))
        count = round(len(items) * fraction)
        if len(items) > 1:
            count = min(max(count, 1), len(items) - 1)
        second += [items[i] for i in order[:count]]
        first += [items[i] for i in order[count:]]
    return first, second


def first_folder(path: Path, names: Sequence[str], is_root: Callable[[Path], bool]) -> Path | None:
    """Return the first of ``path`` and some folders below it that ``is_root`` recognises.

    ``names`` are looked for in ``path``, and in the folders of these names in there.
    """
    if not path.is_dir():
        return None
    nested = [path / outer / inner for outer in names for inner in names if outer != inner]
    for candidate in [path, *(path / name for name in names), *nested]:
        if candidate.is_dir() and is_root(candidate):
            return candidate
    return None
