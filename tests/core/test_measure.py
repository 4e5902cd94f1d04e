"""Counters against known acts."""

import mmap
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.measure import environment, memory, probes

MB = 1_000_000


def hold_anonymous(ready, done) -> None:
    block = bytearray(200 * MB)
    block[::4096] = b"x" * len(block[::4096])
    ready.set()
    done.wait()


def read_and_burn(path: str, ready, done) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(100):
        os.pread(descriptor, 100_000, 0)
    deadline = time.process_time() + 0.5
    while time.process_time() < deadline:
        pass
    ready.set()
    done.wait()


class Child:
    """A child process that has done something and waits."""

    def __init__(self, target, *args) -> None:
        context = multiprocessing.get_context("fork")
        self._done = context.Event()
        ready = context.Event()
        self.process = context.Process(target=target, args=(*args, ready, self._done))
        self.process.start()
        assert ready.wait(60)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.process.join()


# Alone, since a page of a library belongs to fewer processes as soon as another test's process with torch ends.
@pytest.mark.alone
def test_pss_of_the_tree_counts_a_childs_anonymous_memory_once() -> None:
    before = memory.tree_pss(os.getpid())
    with Child(hold_anonymous):
        after = memory.tree_pss(os.getpid())
    # Forked pages that the child rewrites add a little of their own.
    assert after.anon_bytes - before.anon_bytes == pytest.approx(200 * MB, rel=0.05)
    assert after.total_bytes - before.total_bytes == pytest.approx(200 * MB, rel=0.05)


def test_pss_tells_file_pages_and_shared_memory_apart(tmp_path: Path) -> None:
    path = tmp_path / "mapped"
    path.write_bytes(b"x" * (64 * MB))
    before = memory.tree_pss(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        sum(mapped[i] for i in range(0, len(mapped), 4096))
        file_backed = memory.tree_pss(os.getpid())
    with mmap.mmap(-1, 64 * MB) as shared:
        shared.write(b"x" * (64 * MB))
        in_shmem = memory.tree_pss(os.getpid())
    assert file_backed.file_bytes - before.file_bytes == pytest.approx(64 * MB, rel=0.05)
    assert in_shmem.shmem_bytes - before.shmem_bytes == pytest.approx(64 * MB, rel=0.05)


def test_pss_of_a_process_that_is_gone_is_unknown_not_zero() -> None:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    assert memory.tree_pss(process.pid) is None


def test_the_peak_outlives_what_caused_it_and_sampling_stays_cheap() -> None:
    values = iter([memory.Pss(5, 5), memory.Pss(9, 9), memory.Pss(3, 3)])
    with memory.PeakPss(0, interval_s=1000, read=lambda pid: next(values)) as sampler:
        for _ in range(3):
            sampler.sample()
    assert sampler.peak == memory.Pss(9, 9)
    assert sampler.samples == 3


def test_peak_rss_is_reset() -> None:
    block = b"x" * (150 * MB)
    assert memory.peak_rss_bytes() >= 150 * MB
    del block
    memory.reset_peak_rss()
    baseline = memory.current_rss_bytes()
    assert memory.peak_rss_bytes() - baseline < 50 * MB
    block = b"x" * (100 * MB)
    assert memory.peak_rss_bytes() - baseline == pytest.approx(100 * MB, rel=0.2)
    del block


def test_counters_of_a_child_are_counted_while_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    before = probes.snapshot_before()
    with Child(read_and_burn, str(path)):
        used = probes.used_between(before, probes.snapshot_after())
    assert used.read_call_bytes == pytest.approx(10 * MB, rel=0.02)
    assert used.read_calls == pytest.approx(100, abs=20)
    assert used.cpu_user_s + used.cpu_system_s == pytest.approx(0.5, abs=0.1)


def read_by(action: Callable[[], object]) -> tuple[int, int]:
    """What an action reads by calls; the least of several, as other threads of the test runner read, too."""

    def once() -> tuple[int, int]:
        before = probes.snapshot_before()
        action()
        used = probes.used_between(before, probes.snapshot_after())
        return used.read_calls, used.read_call_bytes

    return min(once() for _ in range(5))


def test_counting_itself_is_not_counted(tmp_path: Path) -> None:
    assert read_by(lambda: None) == (0, 0)
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with path.open("rb", buffering=0) as file:
        assert read_by(lambda: os.pread(file.fileno(), 700, 0)) == (1, 700)


def test_unknown_counters_are_none() -> None:
    assert probes.process_counters(2**22 + 1) is None
    assert probes.used_between(None, {}) is None


def test_a_process_name_full_of_traps_is_parsed(tmp_path: Path) -> None:
    import shutil
    import subprocess

    trap = tmp_path / "a) R 1 (b"
    shutil.copy(shutil.which("sleep"), trap)
    with subprocess.Popen([trap, "60"]) as process:
        try:
            counters = probes.process_counters(process.pid)
        finally:
            process.kill()
    assert counters.cpu_user_s < 1
    assert counters.major_faults < 1000


def test_the_environment_names_what_decides_a_number(tmp_path: Path) -> None:
    facts = environment.machine()
    assert facts["cpu_count"] >= 1
    assert facts["memory_bytes"] > 100 * MB
    assert environment.libraries()["numpy"]
    mounts = {line.split()[1]: line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()}
    assert environment.file_system(Path("/proc/self")) == mounts["/proc"] == "proc"
    assert environment.file_system(tmp_path) in mounts.values()
