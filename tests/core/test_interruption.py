"""Interruptions and deaths: everything ends, nothing is left behind, the record says what happened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from running import OWN, RUN, assert_ended, leftovers, start, wait_until

from bench.records.record import RunRecord
from bench.runs import observer
from bench.runs.findings import Findings


@pytest.mark.parametrize(
    ("whole_group", "start_method"), [(True, "fork"), (False, "spawn")], ids=["terminal", "parent only"]
)
def test_ctrl_c_ends_everything_and_marks_the_record(
    bench_environment, tmp_path: Path, whole_group: bool, start_method: str
) -> None:
    arguments = (*RUN, "--backend", "toy-slow", "--workers", "2", "--epochs", "50", "--start-method", start_method)
    run = start(bench_environment, tmp_path, *arguments)
    lines = []
    while not any(line.startswith("epoch 1:") for line in lines):
        lines.append(run.stderr.readline())
        assert lines[-1], lines
    family = psutil.Process(run.pid).children(recursive=True)
    assert len(family) >= 3
    begun = time.monotonic()
    os.killpg(run.pid, signal.SIGINT) if whole_group else os.kill(run.pid, signal.SIGINT)
    rest = run.communicate(timeout=30)[1]
    assert time.monotonic() - begun < 2
    assert run.returncode == 130
    assert rest.splitlines()[-1].startswith("bench: interrupted while in phase train")
    assert "Traceback" not in rest
    assert_ended(family, timeout_s=1)
    (path,) = (tmp_path / "results").iterdir()
    record = RunRecord.model_validate_json(path.read_text())
    assert record.status == "interrupted"
    assert record.error.phase == "train"
    assert len(record.epochs) >= 2


@pytest.mark.parametrize(
    "store",
    [("hdf5", "compression=gzip", "chunk=1"), ("zarr", "chunk=1", "codec=zstd"), ("filesystem", "format=png")],
    ids=lambda store: store[0],
)
def test_ctrl_c_is_never_lost_inside_a_library(bench_environment, tmp_path: Path, store: tuple[str, ...]) -> None:
    """h5py swallows an exception that strikes in a callback; zarr's threads go on writing after one."""
    backend, *options = store
    arguments = [part for option in options for part in ("--option", option)]
    command = ("prepare", "--dataset", "cifar10", "--source", "synthetic", "--data-dir", "data", "--backend", backend)
    run = start(bench_environment, tmp_path, *command, *arguments)
    wait_until(lambda: [path for path in tmp_path.rglob(".building-*/data/*") if path.exists()])
    time.sleep(0.3)
    begun = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=30)[1]
    assert time.monotonic() - begun < 2
    assert run.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "bench: Interrupted."
    assert leftovers(tmp_path) == []


def test_ctrl_c_while_preparing_leaves_no_store(bench_environment, tmp_path: Path) -> None:
    environment = {**bench_environment, "TOY_WRITE_S": "60"}
    run = start(environment, tmp_path, *RUN, *OWN, "--backend", "toy-slow-write")
    wait_until(lambda: list(tmp_path.rglob("begun")))
    begun = time.monotonic()
    os.kill(run.pid, signal.SIGINT)
    run.communicate(timeout=30)
    assert time.monotonic() - begun < 2
    assert run.returncode == 130
    assert leftovers(tmp_path) == []
    (path,) = (tmp_path / "results").iterdir()
    assert RunRecord.model_validate_json(path.read_text()).error.phase == "prepare"


@pytest.mark.parametrize(("victim", "start_method"), [("bench", "forkserver"), ("measured process", "fork")])
def test_nothing_outlives_what_was_killed(bench_environment, tmp_path: Path, start_method: str, victim: str) -> None:
    run = start(
        bench_environment,
        tmp_path,
        *(*RUN, "--backend", "toy-slow", "--epochs", "50", "--workers", "2", "--start-method", start_method),
    )
    while not run.stderr.readline().startswith("epoch 0"):
        assert run.poll() is None
    family = psutil.Process(run.pid).children(recursive=True)
    if victim == "bench":
        run.kill()
        run.communicate()
    else:
        next(p for p in family if p.ppid() == run.pid and "multiprocessing.spawn" in " ".join(p.cmdline())).kill()
        assert "signal SIGKILL, which is what the kernel does when memory runs out" in run.communicate(timeout=30)[1]
        assert run.returncode == 1
    assert_ended(family, timeout_s=10)


class Clock:
    """A child that is silent for some times, one after the other."""

    def __init__(self, *silent_s: float) -> None:
        self._silent_s = silent_s
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def messages(self) -> Iterator[None]:
        for silent_s in self._silent_s:
            self.now_s += silent_s
            yield None


def watched(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Findings:
    monkeypatch.setattr(observer, "time", clock)
    monkeypatch.setattr(observer, "PageCache", lambda _: SimpleNamespace(probe=None))
    found = Findings(phase="train")
    job = SimpleNamespace(spec=None, root=None)
    watch = observer._Observer(job, "", found, SimpleNamespace(), None)
    assert list(watch.signs_of_life(clock, SimpleNamespace(value=0), 10.0)) == []
    return found


def test_a_run_that_is_stopped_is_not_taken_for_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watched(monkeypatch, Clock(*[0.1] * 20, 700.0, *[0.1] * 20))
    assert found.environment["stopped_s"] == pytest.approx(700)


def test_a_run_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(observer.HungError, match="10"):
        watched(monkeypatch, Clock(*[0.1] * 120))
    assert "stopped_s" not in watched(monkeypatch, Clock(*[0.1] * 90)).environment
