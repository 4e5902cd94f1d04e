"""Entry point of ``bench`` and ``python -m bench``: where errors become one line and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import typer

from bench.contracts.errors import BenchError

_INTERRUPTED = 130


def main() -> None:
    """Run the command line; every error that a user can cause ends in one line and exit code 1."""
    _open_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a question mark instead of ending the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Python's tracker of shared semaphores would complain, after our last line, about those of a run that was
    # interrupted; it removes them all the same.
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), quiet]))
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        from bench.cli import app

        code = app(arguments or ["--help"], prog_name="bench", standalone_mode=False) or 0
    except BenchError as error:
        _fail(str(error), error.exit_code, getattr(error, "trace", None) or traceback.format_exc() if debug else None)
    except typer.TyperException as error:
        _fail(error.format_message(), 1, traceback.format_exc() if debug else None)
    except typer.Abort:
        print(file=sys.stderr)  # noqa: T201  # ends the line of the question
        _fail("Nothing was answered, so nothing was done. Use --yes where nobody can answer.", 1, None)
    except KeyboardInterrupt:
        _fail("Interrupted.", _INTERRUPTED, None)
    except Exception as error:  # the last resort: a defect is reported in one line, too
        text = f"Unexpected {type(error).__name__}: {error}. --debug shows where."
        _fail(text, 1, traceback.format_exc() if debug else None)
    else:
        if code == _INTERRUPTED:
            # How typer reports an interruption that it has seen itself.
            _fail("Interrupted.", _INTERRUPTED, None)
        sys.exit(code)


def _fail(message: str, code: int, trace: str | None) -> NoReturn:
    # From here on there is nothing left to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The terminal may be gone: the exit code tells as well.
    with suppress(OSError):
        if trace:
            print(trace, file=sys.stderr)  # noqa: T201  # asked for
        print(f"bench: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201  # the last word
    sys.exit(code)


def _open_streams() -> None:
    """Let those standard streams lead nowhere that whoever started this has closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest number that is free, which a store's file would get otherwise, and what libraries print.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


if __name__ == "__main__":
    main()
