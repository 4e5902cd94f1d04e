"""Generated passages inside hand-written documents."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bench.contracts.errors import BenchError


class DocumentError(BenchError):
    """A document that cannot take a generated passage."""


def update(path: Path, name: str, content: str, identity: str = "") -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a file. Raises DocumentError.

    A passage that is marked ``<!-- name identity -->`` is replaced instead, where there is one: so a document can
    hold several of a kind.
    """
    try:
        before = path.read_text()
        text = between_markers(before, f"{name} {identity}", content) if identity else None
        if text is None:
            text = between_markers(before, name, content)
        if text is None:
            raise DocumentError(
                f"{path} has no <!-- {name} --> … <!-- /{name} -->. Add the two lines where it belongs."
            )
        path.write_text(text)
    except OSError as error:
        raise DocumentError(f"Cannot update {path}: {error.strerror}.") from error


def between_markers(text: str, name: str, content: str) -> str | None:
    """Return ``text`` with the passage replaced, or None where a marker is missing."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found_opening, rest = text.partition(opening)
    _, found_closing, after = rest.partition(closing)
    if not found_opening or not found_closing:
        return None
    return f"{before}{opening}\n{content.strip()}\n{closing}{after}"


class Passage(NamedTuple):
    """A generated passage of a file, by the name in its markers."""

    path: Path
    name: str

    def write(self, content: str) -> None:
        """Replace it. Raises DocumentError."""
        update(self.path, self.name, content)
