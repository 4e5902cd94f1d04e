"""How a record decides the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contracts.errors import BenchError

if TYPE_CHECKING:
    from bench.records.record import RunRecord

INTERRUPTED = 130


class RunFailedError(BenchError):
    """A run without a result; its record says more."""

    def __init__(self, message: str, exit_code: int, trace: str | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.trace = trace


def require_ok(record: RunRecord, trace: str | None) -> None:
    """Raise RunFailedError for a run that did not end well."""
    if record.error is not None:
        code = INTERRUPTED if record.status == "interrupted" else 1
        where = f"{record.status} while in phase {record.error.phase}"
        text = f"{where}." if code == INTERRUPTED else f"{where}: {record.error.message}"
        raise RunFailedError(text, code, trace)
