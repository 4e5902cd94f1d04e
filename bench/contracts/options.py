"""Options of plug-ins: declared once, checked, explained, and part of what identifies a store."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """A plug-in's own options: frozen, comparable, JSON in and out; unknown names are refused.

    Each field carries a description; its type and bounds are checked when it is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
