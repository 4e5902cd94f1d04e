"""Running the instrumented plug-ins through the installed command, with what both sides tell of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from truth_plugins import SIDE

from bench.records.record import EpochInfo, RunRecord

BATCH = 16
COUNT = 3200
BATCHES = COUNT // BATCH
RUN = ("run", "--model", "none", "--device", "cpu", "--batch-size", str(BATCH))
KINDS = {
    "thread": ("--workers", "2", "--worker-kind", "thread"),
    "fork": ("--workers", "2", "--start-method", "fork"),
    "spawn": ("--workers", "2", "--start-method", "spawn"),
    "forkserver": ("--workers", "2", "--start-method", "forkserver"),
}


def bench(
    environment: dict[str, str], folder: Path, *arguments: str, prefix: Iterable[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a folder; ``prefix`` is what starts it."""
    return subprocess.run(
        [*prefix, str(Path(sys.executable).with_name("bench")), *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def flags(count: int = COUNT, side: int = SIDE, **options: object) -> list[str]:
    """Return the flags for the data set and the options of a backend."""
    pairs = [part for key, value in options.items() for part in ("--option", f"{key}={value}")]
    data = ["--data-option", f"count={count}", "--data-option", f"side={side}"]
    return ["--dataset", "truth", "--source", "synthetic", *data, *pairs]


@dataclass
class Told:
    """One run: the harness's record, the plug-in's own account in order of time, and how the command ended."""

    record: RunRecord
    acts: list[dict]
    ended: subprocess.CompletedProcess[str]
    folder: Path

    def epoch(self, number: int = -1) -> EpochInfo:
        return self.record.epochs[number]

    def true(self, fact: str, epoch: int = 0) -> float:
        """Sum up a fact over the batches of an epoch."""
        return sum(self.values(fact, epoch))

    def values(self, fact: str, epoch: int = 0) -> list[float]:
        return [act[fact] for act in self.of_epoch(epoch)]

    def of_epoch(self, epoch: int) -> list[dict]:
        batches = self.record.data.count // BATCH
        found = self.acts[epoch * batches : (epoch + 1) * batches]
        assert len(found) == batches
        return found


_TOLD: dict[tuple, Told] = {}


def measured(environment: dict[str, str], temporary: pytest.TempPathFactory, backend: str, *more: str, **acts) -> Told:
    """Run a backend; equal runs are made once, because each takes seconds to start."""
    key = (backend, more, tuple(sorted(acts.items())))
    if key not in _TOLD:
        _TOLD[key] = run(environment, temporary.mktemp(backend), backend, *more, **acts)
    told = _TOLD[key]
    assert told.record.status == "ok", told.ended.stderr
    return told


def run(
    environment: dict[str, str], folder: Path, backend: str, *more: str, prefix: Iterable[str] = (), **acts
) -> Told:
    """Run a backend in an empty folder, whatever becomes of it."""
    own = {"log": folder} if backend.startswith("truth-") else {}
    arguments = (*RUN, "--json", "--backend", backend, *flags(**own, **acts), *more)
    ended = bench(environment, folder, *arguments, prefix=prefix)
    assert ended.stdout, ended.stderr
    return Told(RunRecord.model_validate_json(ended.stdout), accounts(folder), ended, folder)


def accounts(folder: Path) -> list[dict]:
    """Return what plug-ins kept in a folder, in order of time."""
    texts = [path.read_text().rstrip("\0") for path in folder.glob("acts-*.jsonl")]
    lines = [line for text in texts for line in text.splitlines()]
    return sorted(map(json.loads, lines), key=lambda act: act["at"])


def require_disk(record: RunRecord) -> None:
    """Skip a test where files live in memory, so that nothing comes from storage."""
    if record.cache.achieved in {"impossible", "unverifiable"}:
        pytest.skip(f"the temporary folder cannot be evicted: {record.cache.proof}")


def marked(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment by which all processes of a run are told from others."""
    return {**environment, "TRUTH_MARK": uuid.uuid4().hex}


def still_running(environment: dict[str, str], wait_s: float = 10) -> list[str]:
    """Return the processes of a marked run that are left; an ended one that nobody has reaped yet is not."""
    deadline = time.monotonic() + wait_s
    while (left := [text for p in psutil.process_iter() if (text := _if_marked(p, environment["TRUTH_MARK"]))]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    return left


def _if_marked(process: psutil.Process, mark: str) -> str | None:
    try:
        ours = process.environ().get("TRUTH_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE
        return f"{process.pid} {' '.join(process.cmdline())}" if ours else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
