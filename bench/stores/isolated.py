"""Preparing and verifying in a process of their own.

Whatever a library does there (threads that go on writing after an interruption, a crash, a
disk that fills up while it closes a file) ends with that process, and memory is measured
from a clean start.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from bench.child import Child, ChildDiedError, Failure, Link, failure_of
from bench.contracts.errors import BenchError
from bench.contracts.source import Progress
from bench.specs.spec import StoreSpec
from bench.stores import prepare as preparing
from bench.stores import store
from bench.stores.store import Store, StoreError
from bench.stores.verification import Verification

T = TypeVar("T")


class UnexpectedError(BenchError):
    """Something that no user should see: a defect of ours or of a library. Carries its traceback."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class _RemoteProgress:
    """Progress that is shown by the parent."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def note(self, text: str) -> None:
        self._link.tell("note", (text,))

    def start(self, label: str, total: int | None, unit: str) -> None:
        self._link.tell("start", (label, total, unit))

    def advance(self, count: int) -> None:
        self._link.tell("advance", (count,))

    def finish(self) -> None:
        self._link.tell("finish", ())


def prepare(
    spec: StoreSpec,
    data_dir: Path,
    search: tuple[Path, ...],
    progress: Progress,
    *,
    repair: bool = False,
    rebuild: bool = False,
) -> Store:
    """See :func:`bench.stores.prepare.prepare`."""
    options = {"repair": repair, "rebuild": rebuild}
    return call(preparing.prepare, (spec, data_dir, search), progress, **options)


def verify(spec: StoreSpec, data_dir: Path, search: tuple[Path, ...], progress: Progress) -> tuple[Store, Verification]:
    """See :func:`bench.stores.prepare.verify`."""
    return call(preparing.verify, (spec, data_dir, search), progress)


def call(function: Callable[..., T], args: tuple[Any, ...], progress: Progress, **options: Any) -> T:
    """Return ``function(*args, progress, **options)``, called in a process of its own.

    The first arguments are a spec and the data folder. Raises what ``function`` raises where it
    is a BenchError, StoreError when the process dies, and UnexpectedError for the rest.
    """
    spec, data_dir = args[:2]
    child = Child(_work, function, args, options)
    try:
        with child:
            for message in child.messages():
                if message is None:
                    continue
                topic, value = message
                if topic == "result":
                    result: T = value
                    return result
                if topic == "failed":
                    raise _as_error(value)
                getattr(progress, topic)(*value)
        raise ChildDiedError("its end, without a result")
    except ChildDiedError as death:
        raise StoreError(
            f"The process that works on {spec.dataset} ended by {death}. "
            "Check the raw data and the memory of this machine."
        ) from death
    finally:
        progress.finish()
        # Only what this child left: it is dead by now, so nothing is written there any more; and where this user may
        # not look, it has not written either.
        with suppress(OSError):
            for leftover in store.find_leftovers(data_dir):
                if leftover.name.endswith(f"-{child.pid}"):
                    shutil.rmtree(leftover, ignore_errors=True)


def _as_error(failure: Failure) -> Exception:
    if failure.error is not None:
        return failure.error
    return UnexpectedError(f"Unexpected {failure.type}: {failure.message}. --debug shows where.", failure.trace)


def _work(link: Link, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    try:
        link.tell("result", function(*args, _RemoteProgress(link), **options))
    except ImportError as error:
        cause = BenchError(f"A library cannot be imported: {error}. Install or repair it with pip.")
        link.tell("failed", Failure("ImportError", str(error), "", cause))
    except Exception as error:  # whatever it is, the parent reports it in one line
        link.tell("failed", failure_of(error, BenchError))
    sys.stderr.flush()
    # No library gets a chance to fail while it tidies up: HDF5 crashes there after a full disk.
    os._exit(0)
