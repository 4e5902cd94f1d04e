"""What every worker process does first, whatever starts it."""

from __future__ import annotations

import faulthandler
import os
import select
import threading

from bench.measure.heap import keep_freed_memory


def begin_worker(pid: int) -> None:
    """Set up a worker process that is used by the process ``pid``, and ends with it."""
    keep_freed_memory()
    # A crash is told with its place. torch has put a handler of its own over one that a fork inherits.
    faulthandler.disable()
    faulthandler.enable(all_threads=False)
    _end_with(pid)


def _end_with(pid: int) -> None:
    """Have a worker end when the process ``pid`` does, even if it is killed.

    torch's own watch is on the parent, which under forkserver is not the process that
    uses the workers: they would wait for ever.
    """
    if not hasattr(os, "pidfd_open"):
        return
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(1)

    def watch() -> None:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.poll()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
