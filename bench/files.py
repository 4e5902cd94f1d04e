"""Files that are written whole or not at all."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.contracts.errors import BenchError


class OutputError(BenchError):
    """A file that cannot be written."""


def require_place(path: Path, flag: str = "-o", suffixes: Sequence[str] = ()) -> None:
    """Raise OutputError where a file could not be written to ``path``, given by ``flag``; its folder must exist.

    With ``suffixes``, a file that is there already must have one of them, or be empty: one of another kind is hardly
    meant to be replaced.
    """
    if path.is_dir():
        raise OutputError(f"{flag} {path} is a folder. Name a file in it.")
    if path.exists() and not path.is_file():
        # It would be replaced: a device or a pipe is nothing to lose.
        raise OutputError(f"{flag} {path} is no ordinary file. Choose another.")
    if suffixes and path.suffix.lower() not in suffixes and path.exists() and path.stat().st_size:
        raise OutputError(
            f"{flag} {path} is there already, and is not replaced as its name does not end in {' or '.join(suffixes)}. "
            "Choose another name, or remove it."
        )
    folder = _target(path).parent
    if not folder.is_dir():
        raise OutputError(f"{flag} {path}: there is no folder {path.parent}. Make it, or choose another.")
    try:
        # Tried, because permissions alone do not tell.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{flag} {path}: cannot write to {path.parent}: {error.strerror}. Choose another.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to, which takes its name at the end. Raises OutputError.

    After an error what was there is still there, and nothing else. A link stays one: the file is where it leads to.
    """
    own = _target(path)
    part = own.with_name(f".{own.name}.part-{os.getpid()}")
    try:
        yield part
        part.replace(own)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}. Choose another place.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def remove_parts(folder: Path, name: str = "*") -> None:
    """Remove what processes that were killed while they wrote a file of this name, any if none is given, have left."""
    import psutil

    for part in folder.glob(f".{name}.part-*"):
        number = part.name.rpartition("-")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            with suppress(OSError):
                part.unlink()


def remove_parts_of(path: Path) -> None:
    """Remove what processes that were killed while they wrote this file have left."""
    own = _target(path)
    remove_parts(own.parent, glob.escape(own.name))


def _target(path: Path) -> Path:
    return Path(os.path.realpath(path))


def write_text(path: Path, text: str) -> None:
    """Write a file of text. Raises OutputError."""
    with replacing(path) as part:
        # A lone surrogate, which a message of an error may hold, is no text that a file can have.
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
