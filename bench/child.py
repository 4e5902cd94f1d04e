"""A fresh process that works for this one.

It reports through a pipe, hears nothing of a Ctrl-C, and does not outlive its parent.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker, spawn
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, Any

import psutil

from bench.contracts.errors import BenchError

POLL_S = 0.1
EXIT_S = 5.0
"""How long a child that has reported its end may take to go."""

LAST_LINES = 20
LAST_BYTES = 2**20
"""How much of the end of stderr is looked at: the errors that follow a crash can be long."""


class StartError(BenchError):
    """A process that this user cannot start."""


class ChildDiedError(Exception):
    """The child ended without saying so; the text says how, ``killed`` whether it was by SIGKILL."""

    def __init__(self, message: str, *, killed: bool = False) -> None:
        super().__init__(message)
        self.killed = killed


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception of the child, made fit to travel; ``error`` is the exception itself where it is one of ours."""

    type: str
    message: str
    trace: str
    error: Exception | None


class Link:
    """The child's side of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def tell(self, topic: str, value: Any = None) -> None:
        """Send a fact."""
        self._pipe.send((topic, value))

    def ask(self, topic: str, value: Any = None) -> Any:
        """Send a request and wait for the answer."""
        self.tell(topic, value)
        return self._pipe.recv()


class Child:
    """Runs ``target(link, *args)`` in a spawned process; use as a context manager.

    With ``keep_stderr``, what the process and its children write to stderr, a crash's traceback
    included, is kept for ``last_lines`` instead of being shown.
    """

    def __init__(self, target: Callable[..., None], *args: Any, keep_stderr: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        _require_startable()
        with _start_errors():
            self._pipe, pipe = context.Pipe()
            self._stderr = tempfile.TemporaryFile() if keep_stderr else None  # noqa: SIM115  # closed by __exit__
        stderr = self._stderr and _path_of(self._stderr)
        self._process = context.Process(target=_begin, args=(target, pipe, stderr, args), name="bench-child")
        self._ended = False
        # Only the parent decides what an interruption means.
        start_held(self._process)
        pipe.close()
        self.pid = int(self._process.pid or 0)

    def last_lines(self) -> list[str]:
        """Return the end of what was written to stderr so far, preceded by the place of a crash.

        Empty if it was not kept.
        """
        if self._stderr is None:
            return []
        size_bytes = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size_bytes - LAST_BYTES))
        text = self._stderr.read().decode(errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        # faulthandler's traceback begins where the crash was; a crash of a worker is followed by others' errors.
        crash = next((number for number, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
        if crash is None or crash >= len(lines) - LAST_LINES:
            return lines[-LAST_LINES:]
        return [*lines[crash : crash + LAST_LINES // 2], *lines[-LAST_LINES // 2 :]]

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.join(timeout=EXIT_S if self._ended else 0)
        if self._process.is_alive():
            _kill_tree(self.pid)
            self._process.join()
        self._pipe.close()
        if self._stderr is not None:
            self._stderr.close()

    def messages(self) -> Iterator[tuple[str, Any] | None]:
        """Yield what the child tells, and None whenever it has been silent for a moment.

        Ends when the child has said that it is done. Raises ChildDiedError.
        """
        while True:
            try:
                if not self._pipe.poll(POLL_S):
                    if not self._process.is_alive() and not self._pipe.poll():
                        raise self._died()
                    yield None
                    continue
                message = self._pipe.recv()
            except (EOFError, OSError) as error:
                self._process.join(timeout=EXIT_S)
                raise self._died() from error
            if message[0] == "end":
                self._ended = True
                return
            yield message

    def answer(self, value: Any = None) -> None:
        """Answer what the child has asked. Raises ChildDiedError."""
        try:
            self._pipe.send(value)
        except OSError as error:
            self._process.join(timeout=EXIT_S)
            raise self._died() from error

    def _died(self) -> ChildDiedError:
        code = self._process.exitcode
        if code is None or code >= 0:
            return ChildDiedError(f"exit code {code}")
        return ChildDiedError(signal_text(-code), killed=code == -signal.SIGKILL)


_KERNELS = {
    signal.SIGKILL: "when memory runs out",
    signal.SIGBUS: "when a mapped file has been cut short, or cannot be read",
}
"""When the kernel sends a signal by itself that tells nothing of that."""


def signal_text(number: int) -> str:
    """Return a signal by its name, with what it means where the kernel sends it."""
    found = signal.Signals(number)
    why = f", which is what the kernel does {_KERNELS[found]}" if found in _KERNELS else ""
    return f"signal {found.name}{why}"


def _require_startable() -> None:
    python = os.fsdecode(spawn.get_executable())
    if not os.access(python, os.X_OK):
        raise StartError(
            f"bench cannot start its processes: this user may not run {python}. "
            "Install bench where this user may read and run it."
        )


@contextmanager
def _start_errors() -> Iterator[None]:
    """Turn what the system refuses to a process of ours into one line for the user. Raises StartError."""
    try:
        yield
    except OSError as error:
        raise StartError(
            f"bench cannot start its processes: {error.strerror or error}. Check $TMPDIR, and what `ulimit -a` allows."
        ) from error


def _path_of(file: IO[bytes]) -> str:
    # A name for a file that has none, valid for as long as this process holds it open.
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _begin(target: Callable[..., None], pipe: Connection, stderr: str | None, args: tuple[Any, ...]) -> None:
    ignore_sigint()
    die_with(os.getppid())
    if stderr is not None:
        descriptor = os.open(stderr, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, sys.__stderr__.fileno() if sys.__stderr__ else 2)
        os.close(descriptor)
        faulthandler.enable(all_threads=False)
    if sys.__stdout__ and sys.__stderr__:
        # What code of others prints must not come between the records that our parent prints.
        os.dup2(sys.__stderr__.fileno(), sys.__stdout__.fileno())
    done = not_taken_apart()
    link = Link(pipe)
    target(link, *args)
    link.tell("end")
    done()


def not_taken_apart() -> Callable[[], None]:
    """Have this process, once it has called what is returned, end without taking the interpreter apart.

    With torch that takes a second, for which somebody waits. What libraries have registered to tidy up still runs, if
    this was called before they were imported.
    """
    done: list[bool] = []

    def leave() -> None:
        if done:
            sys.stderr.flush()
            os._exit(0)

    atexit.register(leave)
    return lambda: done.append(True)


def failure_of(error: Exception, ours: type[Exception]) -> Failure:
    """Describe an exception that is being handled; one that is an instance of ``ours`` travels along.

    One that cannot, like those of a class whose ``__init__`` takes more than the text, travels as the nearest of its
    base classes that can.
    """
    own = error if isinstance(error, ours) else None
    if own is not None and not _travels(own):
        bases = (base for base in type(own).__mro__ if issubclass(base, ours) and base.__init__ is ours.__init__)
        own = next(bases)(str(own))
    return Failure(type(error).__name__, str(error) or type(error).__name__, traceback.format_exc(), own)


def _travels(error: Exception) -> bool:
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # made here
    except Exception:  # whatever the code of others does when it is made again
        return False


def die_with(parent: int) -> None:
    """Have Linux kill this process as soon as ``parent``, which started it, is gone, however that comes about."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _kill_tree(pid: int) -> None:
    try:
        root = psutil.Process(pid)
        # Stopped, it can neither start more processes nor complain about those that vanish.
        root.suspend()
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()


@contextmanager
def sigint_held() -> Iterator[None]:
    """Have processes that are started meanwhile begin with SIGINT blocked; here, one that comes is heard afterwards.

    They are to call :func:`ignore_sigint` before anything else. Threads that do not have it blocked may be given one
    all the same, which a handler keeps.
    """
    # Started later, multiprocessing's tracker would unblock the signal.
    resource_tracker.ensure_running()
    came: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, previous)
        if came:
            signal.raise_signal(signal.SIGINT)


def start_held(process: BaseProcess) -> None:
    """Start a process that is to ignore SIGINT; none is left where one comes meanwhile. Raises StartError."""
    try:
        with _start_errors(), sigint_held():
            process.start()
    except KeyboardInterrupt:
        # It can come before anything is held, and before there is a process.
        if process.pid is not None:
            process.kill()
            process.join()
        raise


def ignore_sigint() -> None:
    """Hear nothing of a Ctrl-C from here on, nor have any process that this one starts hear of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
