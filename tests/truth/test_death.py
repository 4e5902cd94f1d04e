"""A measured process that hangs or dies: the record says how, the command stays healthy, nothing is left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from told import KINDS, Told, marked, run, still_running

TIMEOUT_S = 5
LIMIT_BYTES = 1536 * 2**20


def died(environment, folder: Path, how: str, *more: str, prefix=()) -> Told:
    """Run what dies, and hold it to what holds for every death."""
    own = marked(environment)
    arguments = ("truth-dies", "--epochs", "1", "--timeout", str(TIMEOUT_S), *more)
    told = run(own, folder, *arguments, prefix=prefix, count=160, how=how)
    assert told.ended.returncode == 1
    assert told.record.status == "failed"
    assert told.record.error.phase == "train"
    assert [line for line in told.ended.stderr.splitlines() if line.startswith("bench: ")] == [
        told.ended.stderr.splitlines()[-1]
    ]
    assert "Traceback" not in told.ended.stderr
    assert still_running(own) == []
    return told


@pytest.mark.parametrize("kind", ["inline", "forkserver"])
def test_a_hang_ends_with_the_timeout(bench_environment, tmp_path: Path, kind: str) -> None:
    told = died(bench_environment, tmp_path, "hang", *KINDS.get(kind, ()))
    assert told.record.error.type == "Timeout"
    assert f"no sign of life for {TIMEOUT_S} s" in told.record.error.message


def test_a_crash_is_told_with_its_place(bench_environment, tmp_path: Path) -> None:
    error = died(bench_environment, tmp_path, "crash").record.error
    assert error.type == "ProcessDied"
    assert "signal SIGSEGV" in error.message
    assert "Segmentation fault" in "\n".join(error.last_lines)
    assert "truth_plugins.py" in "\n".join(error.last_lines)


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_crash_of_a_worker_is_told_with_its_place(bench_environment, tmp_path: Path, kind: str) -> None:
    error = died(bench_environment, tmp_path, "crash", *KINDS[kind]).record.error
    assert error.type == "WorkerDiedError"
    assert "was killed by signal SIGSEGV" in error.message
    assert "Segmentation fault" in "\n".join(error.last_lines)
    assert "truth_plugins.py" in "\n".join(error.last_lines)


@pytest.mark.parametrize("kind", ["fork", "thread"])
def test_what_a_worker_raises_is_told_in_one_line(bench_environment, tmp_path: Path, kind: str) -> None:
    told = died(bench_environment, tmp_path, "raise", *KINDS[kind])
    assert told.record.error.type == "ValueError"
    assert told.record.error.message == "the decoder gave up on sample 0"
    assert "truth_plugins.py" in "\n".join(told.record.error.last_lines)
    assert told.record.error.last_lines[-1] == "ValueError: the decoder gave up on sample 0"


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory, of version 1 or 2; the path of the file that takes pids."""
    made, reason = _made_group()
    if made is None:
        pytest.skip(f"no control group with a memory limit can be made here: {reason}")
    folder, pids = made
    yield folder / pids
    deadline = time.monotonic() + 10
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            assert time.monotonic() < deadline, f"{folder} cannot be removed"
            time.sleep(0.1)


def _made_group() -> tuple[tuple[Path, str] | None, str]:
    reason = "there is no cgroup hierarchy with a memory controller"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        version_1 = "memory" in controllers.split(",")
        if controllers and not version_1:
            continue
        top = Path("/sys/fs/cgroup/memory" if version_1 else "/sys/fs/cgroup")
        folder = top / own.lstrip("/") / f"bench-truth-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            reason = f"{folder}: {error.strerror}"
            continue
        names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "tasks")
        limit, swap, pids = names if version_1 else ("memory.max", "memory.swap.max", "cgroup.procs")
        try:
            (folder / limit).write_text(str(LIMIT_BYTES))
            if (folder / swap).exists():
                (folder / swap).write_text(str(LIMIT_BYTES) if version_1 else "0")
        except OSError as error:
            reason = f"{folder}: {error.strerror}"
            folder.rmdir()
            continue
        return (folder, pids), ""
    return None, reason


def test_the_out_of_memory_killer_is_named(bench_environment, tmp_path: Path, small_group: Path) -> None:
    prefix = ("sh", "-c", 'echo $$ > "$0"; exec "$@"', str(small_group))
    told = died(bench_environment, tmp_path, "exhaust", prefix=prefix)
    assert told.record.error.type == "ProcessDied"
    assert "signal SIGKILL, and the kernel's out-of-memory killer was at work" in told.record.error.message
