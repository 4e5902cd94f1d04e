"""Processes that work for this one: they report, they fail in one line, they never outlive it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench import child
from bench.child import Child, ChildDiedError, StartError, failure_of, sigint_held, signal_text, start_held
from bench.contracts.backend import BackendError
from bench.contracts.errors import BenchError
from bench.contracts.source import SilentProgress, SourceError
from bench.specs.spec import StoreSpec, make_spec
from bench.stores import isolated
from bench.stores.store import StoreError, files_state


def speak(link, *words) -> None:
    for word in words:
        link.tell("word", word)
    link.tell("answer", link.ask("question", 1) + 1)


def die(link, how) -> None:
    link.tell("word", "last")
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep(link) -> None:
    link.tell("asleep")
    time.sleep(600)


def test_messages_arrive_in_order_and_questions_are_answered() -> None:
    heard = []
    with Child(speak, "a", "b") as child:
        for message in child.messages():
            if message is not None:
                heard.append(message)
                if message[0] == "question":
                    child.answer(41)
    assert heard == [("word", "a"), ("word", "b"), ("question", 1), ("answer", 42)]


def chatter(link) -> None:
    print("from Python", flush=True)  # noqa: T201  # which is what is tested
    os.write(1, b"from C\n")


def test_what_it_prints_does_not_come_between_what_we_print(capfd: pytest.CaptureFixture[str]) -> None:
    with Child(chatter) as child:
        assert [message for message in child.messages() if message] == []
    found = capfd.readouterr()
    assert found.out == ""
    assert "from Python\nfrom C\n" in found.err


@pytest.mark.parametrize(("how", "text"), [("exit", "exit code 7"), ("crash", "signal SIGSEGV")])
def test_a_death_is_told_after_everything_that_was_said(how: str, text: str) -> None:
    heard = []
    with Child(die, how) as child, pytest.raises(ChildDiedError, match=text):
        heard += [message for message in child.messages() if message]
    assert heard == [] or heard == [("word", "last")]


def complain(link, how) -> None:
    sys.stderr.write("first complaint\n")
    os.write(2, b"from a library \xff\n\n")
    subprocess.run(["sh", "-c", "echo from a worker >&2"], check=True)
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize("how", ["end", "crash"])
def test_what_a_process_says_last_on_stderr_is_kept_and_not_shown(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Child(complain, how, keep_stderr=True) as child:
        try:
            assert list(filter(None, child.messages())) == []
        except ChildDiedError:
            assert how == "crash"
        lines = child.last_lines()
    if how == "end":
        assert lines == ["first complaint", "from a library \ufffd", "from a worker"]
    else:
        assert any("in complain" in line for line in lines), "where it crashed"
    assert capfd.readouterr().err == ""


def crash_and_complain(link) -> None:
    subprocess.run([sys.executable, "-X", "faulthandler", "-c", "import os; os.kill(os.getpid(), 11)"], check=False)
    sys.stderr.writelines(f"line {number}\n" for number in range(5000))


def test_the_place_of_a_crash_is_kept_however_much_follows_it() -> None:
    with Child(crash_and_complain, keep_stderr=True) as child:
        assert list(filter(None, child.messages())) == []
        lines = child.last_lines()
    assert lines[0] == "Fatal Python error: Segmentation fault"
    assert any('"<string>", line 1 in <module>' in line for line in lines)
    assert lines[-3:] == ["line 4997", "line 4998", "line 4999"]
    assert len(lines) <= 20


def test_only_the_last_lines_are_kept(tmp_path: Path) -> None:
    with Child(print_many, keep_stderr=True) as child:
        list(child.messages())
        lines = child.last_lines()
    assert lines == [f"line {number}" for number in range(100_000 - len(lines), 100_000)]
    assert 5 <= len(lines) <= 50


def print_many(link) -> None:
    for number in range(100_000):
        sys.stderr.write(f"line {number}\n")


def leave_much_behind(link, folder: Path) -> None:
    import atexit

    class Slow:
        """What an interpreter takes apart at its very end, as torch's modules are."""

        def __del__(self) -> None:
            (folder / "taken apart").touch()

    sys.modules["slow"] = Slow()
    atexit.register((folder / "tidied up").touch)
    sys.stderr.write("said last")


def test_a_process_tidies_up_and_is_not_taken_apart(tmp_path: Path) -> None:
    with Child(leave_much_behind, tmp_path, keep_stderr=True) as child:
        assert list(filter(None, child.messages())) == []
        child._process.join()
        assert child.last_lines() == ["said last"]
        assert child._process.exitcode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tidied up"]


def test_a_python_that_may_not_be_run_is_told_and_not_a_death(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    foreign = tmp_path / "python"
    foreign.touch(mode=0o600)
    monkeypatch.setattr(child.spawn, "get_executable", lambda: str(foreign).encode())
    with pytest.raises(child.StartError, match=f"this user may not run {foreign}. Install bench where"):
        Child(speak)


def test_what_may_not_be_looked_at_does_not_hide_the_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(data_dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(data_dir))

    monkeypatch.setattr(isolated.store, "find_leftovers", refuse)
    spec = make_spec(StoreSpec, [], backend="memmap", dataset="cifar10", source=f"local:{tmp_path / 'nowhere'}")
    with pytest.raises(SourceError, match="nowhere"):
        isolated.prepare(spec, tmp_path, (), SilentProgress())


def test_what_the_kernel_means_by_a_signal_is_told() -> None:
    assert signal_text(signal.SIGBUS) == (
        "signal SIGBUS, which is what the kernel does when a mapped file has been cut short, or cannot be read"
    )
    assert signal_text(signal.SIGSEGV) == "signal SIGSEGV"


def test_a_death_before_the_answer_is_a_death() -> None:
    with Child(speak) as child:
        messages = child.messages()
        assert next(message for message in messages if message) == ("question", 1)
        os.kill(child.pid, signal.SIGKILL)
        wait_until_zombie(child.pid)
        with pytest.raises(ChildDiedError, match="signal SIGKILL"):
            answer_and_listen(child, messages)


def wait_until_zombie(pid: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def answer_and_listen(child: Child, messages) -> None:
    child.answer(1)
    list(messages)


class ChunkError(BackendError):
    """As others write their errors: more than the text goes in."""

    def __init__(self, chunk: int, why: str) -> None:
        super().__init__(f"chunk {chunk}: {why}")


class LockedError(ChunkError):
    def __init__(self) -> None:
        super().__init__(7, "it is locked")
        self.lock = threading.Lock()


def fail(link, how: int) -> None:
    try:
        raise (ChunkError(7, "it is short"), LockedError(), StoreError("it is gone"))[how]
    except Exception as error:
        link.tell("failed", failure_of(error, BenchError))


@pytest.mark.parametrize(
    ("how", "kind", "name", "text"),
    [
        (0, BackendError, "ChunkError", "chunk 7: it is short"),
        (1, BackendError, "LockedError", "chunk 7: it is locked"),
        (2, StoreError, "StoreError", "it is gone"),
    ],
)
def test_errors_of_any_class_arrive(how: int, kind: type, name: str, text: str) -> None:
    with Child(fail, how) as process:
        ((_, failure),) = [message for message in process.messages() if message is not None]
    assert (failure.type, failure.message) == (name, text)
    assert type(failure.error) is kind
    assert str(failure.error) == text


def test_leaving_the_block_ends_the_child_at_once() -> None:
    begun = time.monotonic()
    with Child(sleep) as child:
        next(message for message in child.messages() if message)
        process = psutil.Process(child.pid)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    assert not process.is_running()


def spec(backend: str) -> StoreSpec:
    return make_spec(StoreSpec, [], backend=backend, dataset="toys", source="synthetic")


def test_preparing_elsewhere_gives_the_store_and_its_own_memory(tmp_path: Path) -> None:
    store = isolated.prepare(spec("toy"), tmp_path, (), SilentProgress())
    assert store.manifest.files_id == files_state(store.root).id
    assert store.manifest.prepare_baseline_rss_bytes < 400_000_000
    assert isolated.verify(spec("toy"), tmp_path, (), SilentProgress())[1].problem is None


def test_a_crash_while_preparing_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="ended by signal SIGSEGV"):
        isolated.prepare(spec("toy-crash-write"), tmp_path, (), SilentProgress())
    assert not list(tmp_path.rglob(".building-*"))


def test_a_defect_is_one_line_with_its_traceback_kept_aside(tmp_path: Path) -> None:
    with pytest.raises(isolated.UnexpectedError, match="Unexpected ZeroDivisionError: division by zero") as caught:
        isolated.prepare(spec("toy-defect"), tmp_path, (), SilentProgress())
    assert "toy_plugins.py" in caught.value.trace
    assert not list(tmp_path.rglob(".building-*"))


def sleep_a_moment(link) -> None:
    time.sleep(1)
    link.tell("slept")


def interrupt_both(pid: int) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(pid, signal.SIGINT)


def interrupt_while_starting(started: list[Child]) -> None:
    with sigint_held():
        started.append(Child(sleep_a_moment))
        interrupt_both(started[0].pid)


class InterruptedStart:
    """A process whose user presses Ctrl-C before its start is known to be over."""

    def __init__(self) -> None:
        self.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        self.kill, self.join = self.process.kill, self.process.join

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def start(self) -> None:
        self.process.start()
        interrupt_both(self.process.pid)


def interrupt_and_wait() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What runs in the background of a shell begins with Ctrl-C ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_while_a_process_starts_is_neither_lost_nor_passed_on() -> None:
    started: list[Child] = []
    with pytest.raises(KeyboardInterrupt):
        interrupt_while_starting(started)
    with started[0] as child:
        assert ("slept", None) in list(child.messages())
    with pytest.raises(KeyboardInterrupt):
        interrupt_and_wait()


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_while_it_starts_leaves_no_process() -> None:
    starting = InterruptedStart()
    with pytest.raises(KeyboardInterrupt):
        start_held(starting)
    assert starting.process.exitcode == -signal.SIGKILL


def test_ctrl_c_before_a_process_has_started_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "sigint_held", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_held(multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1,)))


@pytest.mark.parametrize("keep_stderr", [True, False], ids=["no folder", "no process"])
def test_what_the_system_refuses_to_a_process_is_one_line(monkeypatch: pytest.MonkeyPatch, keep_stderr: bool) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    def limited(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(child.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", limited)
    reason = r"No usable temporary directory found in \['/tmp'\]" if keep_stderr else "Resource temporarily unavailable"
    with pytest.raises(StartError, match=rf"^bench cannot start its processes: {reason}\. Check \$TMPDIR"):
        Child(speak, keep_stderr=keep_stderr)


def test_an_error_without_a_text_is_told_by_its_type() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        failure = failure_of(error, BenchError)
    assert (failure.type, failure.message) == ("MemoryError", "MemoryError")
