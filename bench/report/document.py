"""Generated passages inside hand-written documents."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from bench.contracts.errors import BenchError
from bench.files import replacing


class DocumentError(BenchError):
    """A document that cannot take a generated passage."""


def update(path: Path, name: str, content: str, identity: str = "") -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a file. Raises DocumentError.

    A passage that is marked ``<!-- name identity -->`` is replaced instead, where there is one: so a document can
    hold several of a kind. The document is replaced as a whole, keeps its line ends, and is UTF-8. Raises OutputError
    where it cannot be written.
    """
    before = read(path)
    text = between_markers(before, f"{name} {identity}", content) if identity else None
    if text is None:
        text = between_markers(before, name, content)
    if text is None:
        raise DocumentError(f"{path} has no <!-- {name} --> … <!-- /{name} -->. Add the two lines where it belongs.")
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        # The file keeps its permissions.
        shutil.copymode(path, part)


def read(path: Path) -> str:
    """Return the text of a document with the line ends that it has. Raises DocumentError."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DocumentError(f"Cannot update {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DocumentError(f"Cannot update {path}: it is not UTF-8. Save it as such first.") from error


def between_markers(text: str, name: str, content: str) -> str | None:
    """Return ``text`` with the passage replaced, its lines ending as the opening does, or None without a marker."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found_opening, rest = text.partition(opening)
    _, found_closing, after = rest.partition(closing)
    if not found_opening or not found_closing:
        return None
    end = "\r\n" if rest.partition("\n")[0].endswith("\r") else "\n"
    passage = f"\n{content.strip()}\n".replace("\n", end)
    return f"{before}{opening}{passage}{closing}{after}"


class Passage(NamedTuple):
    """A generated passage of a file, by the name in its markers."""

    path: Path
    name: str

    def write(self, content: str) -> None:
        """Replace it. Raises DocumentError."""
        update(self.path, self.name, content)
