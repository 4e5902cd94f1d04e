"""Messages of errors as a record can hold them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def _writable(text: Any) -> Any:
    # A path in a message may hold bytes that are no text, which JSON cannot.
    return text.encode(errors="backslashreplace").decode() if isinstance(text, str) else text


Message = Annotated[str, BeforeValidator(_writable)]
"""Text in which bytes that are none are written out."""
