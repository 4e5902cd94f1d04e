"""Folders of a user's own data: a folder per class, divided into splits or not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contracts.source import SourceError, Split

from .trees import class_folders, files_below

_SPLITS: dict[str, Split] = {
    **{"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}
"""Names of folders that are splits, in any case of letters."""


@dataclass(frozen=True, slots=True)
class ClassTree:
    """The classes, and for each split the paths of its files with their class numbers, sorted."""

    classes: tuple[str, ...]
    files: dict[Split, list[tuple[str, int]]]


def class_tree(path: Path, suffixes: Collection[str], what: str) -> ClassTree:
    """Return the files in ``PATH/CLASS/...`` (all for training) or ``PATH/train/CLASS/...``, at any depth.

    ``PATH/train`` (or ``training``) is a split if it holds folders; so are ``val`` (``valid``, ``validation``)
    and ``test`` (``testing``) beside it, in any case of letters. Files of other suffixes, and hidden ones, are
    passed over. ``what`` names the files in messages.

    Raises:
        SourceError: fewer than two classes, a class without files, files of no class, a class that
            the training data lacks.
    """
    if not path.is_dir():
        raise SourceError(f"{path} is no folder. Name one that holds a folder of {what} per class.")
    roots = _roots(path, suffixes, what)
    for root in roots.values():
        _refuse_stray(root, suffixes, what)
    classes = class_folders(roots["train"])
    if len(classes) < 2:
        found = f"only the folder {classes[0]!r}" if classes else "no folders"
        raise SourceError(f"{roots['train']} holds {found}: at least 2 are needed, one per class, with {what}.")
    for name in classes:
        if not name.isprintable():
            raise SourceError(f"{roots['train']} holds the folder {name!r}, whose name cannot be shown. Rename it.")
    return ClassTree(tuple(classes), {split: _files(root, classes, suffixes, what) for split, root in roots.items()})


def _roots(path: Path, suffixes: Collection[str], what: str) -> dict[Split, Path]:
    names = class_folders(path)
    found: dict[Split, Path] = {}
    for name in names:
        split = _SPLITS.get(name.lower())
        if split is None or not class_folders(path / name):
            continue
        if split in found:
            raise SourceError(f"{found[split]} and {path / name} are the same split. Rename one of them.")
        found[split] = path / name
    if not found:
        return {"train": path}
    first = next(iter(found.values()))
    if "train" not in found:
        raise SourceError(f"{path} holds {first.name}, but no train. Add that folder, or name {first} itself.")
    for name in names:
        if name.lower() not in _SPLITS and files_below(path / name, suffixes):
            raise SourceError(
                f"{path / name} has {what}, but beside {found['train'].name} there are only {', '.join(_SPLITS)}. "
                "Rename it, or move it elsewhere."
            )
    _refuse_stray(path, suffixes, what)
    return found


def _refuse_stray(root: Path, suffixes: Collection[str], what: str) -> None:
    stray = [
        entry.name
        for entry in root.iterdir()
        if entry.suffix.lower() in suffixes and not entry.name.startswith(".") and entry.is_file()
    ]
    if stray:
        raise SourceError(
            f"{root} holds {len(stray)} {what} that are of no class, {min(stray)!r} among them. "
            "Put each into the folder of its class, or elsewhere."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])


def _files(root: Path, classes: Sequence[str], suffixes: Collection[str], what: str) -> list[tuple[str, int]]:
    names = class_folders(root)
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise SourceError(f"{root / unknown[0]} is of no class that train has ({_some(classes)}).")
    files: list[tuple[str, int]] = []
    for name in names:
        paths = files_below(root / name, suffixes)
        if not paths:
            raise SourceError(
                f"{root / name} has no {what} ({', '.join(sorted(suffixes))}). Add some, or remove the folder."
            )
        files += [(path, classes.index(name)) for path in paths]
    return files
