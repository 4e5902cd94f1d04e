"""Decoding on all cores: worker processes that give their results back in order.

Processes, because much of what decodes holds the GIL. They come from a fork server that
imports the decoding libraries once. Each has a pipe of its own, so a worker whose user is
gone reads the end of its pipe and ends, too, and a worker that crashes is noticed at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from threadpoolctl import threadpool_limits

from bench.contracts.source import SourceError

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 12  # each takes some 20 MB where librosa is loaded; more would cost more memory than time
_QUEUED = 2
"""Groups that a worker has at a time: one in work, one waiting, so that it never waits for us."""


class DecoderError(RuntimeError):
    """An exception in a worker that no user should see; the text has its traceback."""


def usual_workers() -> int:
    """Return how many workers there are if nobody says: one per core that this process may use, up to a limit."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)))


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    group: int,
    preload: Sequence[str],
    workers: int | None = None,
) -> Generator[Result | SourceError, None, None]:
    """Yield ``function(item)`` for every item, in order; a SourceError that it raises is yielded.

    ``function`` and items travel by pickle; ``group`` items travel together. ``preload``
    names the modules that the fork server imports. An item on which the decoder crashes
    gives a SourceError, too.

    Raises:
        DecoderError: ``function`` raised anything else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    pool = [_Worker(context, function) for _ in range(workers or usual_workers())]
    try:
        queued: deque[tuple[_Worker[Item, Result], list[Item]]] = deque()
        # Strictly in turn: the next result is always that of the worker at the head of the queue.
        for number, part in enumerate(_grouped(items, group)):
            worker = pool[number % len(pool)]
            if len(queued) == _QUEUED * len(pool):
                yield from _results(*queued.popleft())
            worker.send(part)
            queued.append((worker, part))
        while queued:
            yield from _results(*queued.popleft())
    finally:
        for worker in pool:
            worker.close()


def _grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _results(worker: _Worker[Item, Result], part: list[Item]) -> Iterator[Result | SourceError]:
    try:
        results = worker.receive()
    except EOFError:
        # Something in this group crashes its decoder: one at a time, the rest comes through.
        results = [result for item in part for result in worker.alone(item)]
        worker.restart()
    for result in results:
        if isinstance(result, DecoderError):
            raise result
        yield result


class _Worker(Generic[Item, Result]):
    """One process, its pipe, and what it has been sent but not answered."""

    def __init__(self, context: Any, function: Callable[[Item], Result]) -> None:
        self._context = context
        self._function = function
        self._unanswered: deque[list[Item]] = deque()
        self._start()

    def _start(self) -> None:
        self._pipe, pipe = self._context.Pipe()
        self._process = self._context.Process(target=_work, args=(pipe, self._function), daemon=True)
        self._process.start()
        pipe.close()

    def send(self, part: list[Item]) -> None:
        """Queue a group."""
        self._unanswered.append(part)
        try:
            self._pipe.send(part)
        except OSError:
            # It has crashed. Who waits for its results will find out, and send this group again.
            return

    def receive(self) -> list[Any]:
        """Return the results of the oldest group. Raises EOFError when the process has died."""
        try:
            results: list[Any] = self._pipe.recv()
        except OSError as error:
            raise EOFError from error
        self._unanswered.popleft()
        return results

    def alone(self, item: Item) -> list[Any]:
        """Return the result of one item, worked on by a process of its own."""
        single = _Worker(self._context, self._function)
        try:
            single.send([item])
            return single.receive()
        except EOFError:
            return [SourceError(f"its decoder crashed ({single.death()})")]
        finally:
            single.close()

    def restart(self) -> None:
        """Replace a dead process, and give the new one all that is still to be done."""
        self.close()
        self._unanswered.popleft()
        waiting, self._unanswered = self._unanswered, deque()
        self._start()
        for part in waiting:
            self.send(part)

    def death(self) -> str:
        """Say how the process ended."""
        self._process.join()
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _work(pipe: Connection, function: Callable[[Any], Any]) -> None:
    # Only whoever waits for the results decides what an interruption means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is wrong with a file comes back as an error; what libraries print about it besides is no line of ours.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    # The cores are taken by the other workers; and a fixed number of threads gives fixed sums.
    threadpool_limits(1)
    while True:
        try:
            part = pipe.recv()
            pipe.send([_outcome(function, item) for item in part])
        except (EOFError, OSError):
            return


def _outcome(function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except SourceError as error:
        return SourceError(str(error))
    except Exception:  # a defect, shown where it can be seen
        return DecoderError(traceback.format_exc())
