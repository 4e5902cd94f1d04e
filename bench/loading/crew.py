"""Threads that read what they are given, in the order in which it was given."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Task(Generic[T]):
    """Something to read, and a lock that is held until that is done."""

    # A bare lock is what an Event, or a Future, is made of, at a fraction of its cost.
    __slots__ = ("_done", "_error", "_read", "_result")

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Read; an error is for whoever waits for the result."""
        try:
            self._result = self._read()
        except BaseException as error:  # raised again by result
            self._error = error
        finally:
            # A thread knows its last task until the next one comes, and what was read into must not be held by that.
            del self._read
            self._done.release()

    def skip(self) -> None:
        """Say that this will not be read."""
        self._done.release()

    def wait(self) -> None:
        """Wait until this is read or skipped; to be called once, unless the result is asked for."""
        self._done.acquire()

    def result(self) -> T:
        """Wait, and return what was read, or raise its error; to be called once."""
        self._done.acquire()
        if self._error is not None:
            raise self._error
        # Whoever still knows this task does not hold what was read.
        found = self._result
        del self._result
        return found


class Crew(Generic[T]):
    """Some threads and the tasks that lie before them."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Task[T] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    @property
    def started(self) -> bool:
        """Whether there are threads."""
        return bool(self._threads)

    def start(self, count: int, begin: Callable[[], None] = lambda: None) -> None:
        """Start ``count`` threads; each calls ``begin`` first, which raises nothing."""
        for number in range(count):
            thread = threading.Thread(target=self._work, args=(begin,), name=f"loader-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self, begin: Callable[[], None]) -> None:
        begin()
        while (task := self._tasks.get()) is not None:
            task.run()

    def give(self, task: Task[T]) -> None:
        """Have a task read, once those before it have been begun."""
        self._tasks.put(task)

    def abandon(self, ahead: Iterable[Task[T]]) -> None:
        """Take back what nobody has begun, and wait for the rest of ``ahead``, which nobody has waited for."""
        with suppress(queue.Empty):
            while task := self._tasks.get_nowait():
                task.skip()
        for task in ahead:
            task.wait()

    def close(self) -> None:
        """Wait for reads under way and end the threads."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
