"""Starting, watching and inspecting the installed command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

RUN = ("run", "--dataset", "toys", "--source", "synthetic", "--batch-size", "32")
"""A run from a store that the first test to need it builds; with OWN, from one that is built for this test."""

OWN = ("--data-dir", "data")


def leftovers(folder: Path) -> list[Path]:
    # os.walk passes over folders that vanish meanwhile.
    names = (Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files))
    return [path for path in names if ".building-" in path.name or ".part" in path.name]


def start(environment: dict[str, str], folder: Path, *arguments: str, stdout: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("bench"), *arguments],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # What a shell runs in the background begins with Ctrl-C ignored, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(condition, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_ended(family: list[psutil.Process], timeout_s: float) -> None:
    """An ended process that nobody has reaped yet (init may be slow, in a container) is ended all the same."""

    def running() -> list[psutil.Process]:
        return [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    wait_until(lambda: not running(), timeout_s)
