"""Fixtures that all tests share."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported, here and in what tests start: several of its processes share few cores, where threads that
# spin while they wait for each other make an epoch take up to a hundred times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# How long an example takes says nothing where several tests share few cores.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

PLUGINS = Path(__file__).parent / "plugins"
# Before anything asks for entry points: the toy plug-ins are found as an outsider's package would be.
sys.path.insert(0, str(PLUGINS))

Bench = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the server of the processes that decode, with all that they need, where tests of data sets are to come.

    Python starts it once in a process, with what the first who needs it asks for. If that was a test of images, each
    process that decodes sounds would import librosa anew, which takes longer than all else that it does here.
    """
    if any("datasets" in item.path.parts for item in session.items):
        from bench.datasets import images, parallel, sounds

        modules = [parallel.__name__, *images._PRELOAD, "bench.datasets.audio", *sounds.PRELOAD]
        multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
        forkserver.ensure_running()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets; its absence skips a test, or fails it where that is asked for."""
    configured = os.environ.get("BENCH_TEST_DATA")
    if configured:
        return Path(configured)
    if os.environ.get("BENCH_REQUIRE_TEST_DATA"):
        pytest.fail("BENCH_TEST_DATA is not set, but real data is required here")
    pytest.skip("needs real data: set BENCH_TEST_DATA to a folder of real data sets (CONTRIBUTING.md)")


@pytest.fixture(scope="session")
def bench_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for the installed command: toy plug-ins, and a cache of the test's own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BENCH_")}
    environment["PYTHONPATH"] = str(PLUGINS)
    environment["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    environment["COLUMNS"] = "200"
    return environment


@pytest.fixture
def bench(bench_environment: dict[str, str], tmp_path: Path) -> Bench:
    """Run the installed ``bench`` command in an empty folder and return its result."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("bench"), *arguments],
            cwd=tmp_path,
            env={**bench_environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
