"""The fixtures for other projects' suites, in a pytest of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GUIDE = ROOT / "docs" / "regression-tracking.md"
# In a worker of xdist, pytest-benchmark would measure nothing.
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
STRICT = ("-W", "error", "-p", "no:cacheprovider")


def example() -> str:
    found = re.search(r"<!-- example: test_my_backend.py -->\n```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder as somebody else's project would: no settings of ours, warnings as errors."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", *STRICT, *arguments]
    return subprocess.run(command, cwd=folder, env=ALONE, capture_output=True, text=True, check=False, timeout=240)


def test_the_example_of_the_guide_runs_and_is_saved(tmp_path: Path) -> None:
    (tmp_path / "test_my_backend.py").write_text(example())
    done = run_pytest(tmp_path, "--benchmark-only", "--benchmark-json", "out.json")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    (benchmark,) = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    facts = benchmark["extra_info"]
    assert len(benchmark["stats"]["data"]) == len(facts["io"]["read_calls"]) == 5
    assert (facts["samples"], facts["checked_samples"]) == (2048, 2048)
    assert facts["spec"]["backend"] == "mine"
    # A header of 128 bytes, then 3 x 32 x 32 bytes a sample; and 8 bytes a label.
    assert facts["store_bytes"] == 2048 * (3072 + 8) + 2 * 128
    assert len(facts["calibration"]) == 2
    assert all(0 < seconds < 1 for one in facts["calibration"] for seconds in one.values())
    assert facts["memory"]["rss_peak_bytes"] >= facts["memory"]["rss_before_bytes"]


@pytest.mark.parametrize("arguments", [("--benchmark-disable",), ("-n", "2")], ids=" ".join)
def test_where_nothing_is_timed_it_is_checked_and_has_the_facts_of_one_round(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    text = "import json\nfrom pathlib import Path\n" + example()
    text += "    Path('facts.json').write_text(json.dumps(facts))\n"
    (tmp_path / "test_my_backend.py").write_text(text)
    # pytest-benchmark warns of it that xdist disables it.
    done = run_pytest(tmp_path, *arguments, "-W", "ignore::pytest_benchmark.logger.PytestBenchmarkWarning")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert [len(values) for values in (*facts["io"].values(), facts["cpu_s"])] == [1] * 5
    assert facts["checked_samples"] == 2048


def test_read_calls_are_those_of_the_reader(tmp_path: Path) -> None:
    # One pread per batch of 64 on top of what counting itself costs: 32 more than a reader that makes none.
    text = (
        example()
        .replace("    def read_into", "    calls = 0\n\n    def read_into")
        .replace(
            "        x.numpy()[:], y",
            "        for _ in range(self.calls):\n            os.pread(self._file, 1, 0)\n        x.numpy()[:], y",
        )
        .replace("        super()", "        self._file = os.open(root / 'y.npy', os.O_RDONLY)\n        super()")
    )
    text = (
        "import os\nimport json\nfrom pathlib import Path\n"
        + text
        + """

def test_calls(benchmark_epoch, bench_backend):
    MyReader.calls = 1
    facts = benchmark_epoch(bench_backend(MyBackend), batch_size=64)
    Path("calls.json").write_text(json.dumps(facts["io"]["read_calls"]))


def test_none(benchmark_epoch, bench_backend):
    MyReader.calls = 0
    facts = benchmark_epoch(bench_backend(MyBackend), batch_size=64)
    Path("none.json").write_text(json.dumps(facts["io"]["read_calls"]))
"""
    )
    (tmp_path / "test_calls.py").write_text(text)
    done = run_pytest(tmp_path, "-k", "calls or none")
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    calls, none = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("calls", "none"))
    assert [a - b for a, b in zip(calls, none, strict=True)] == [32] * 5


@pytest.mark.parametrize("arguments", [(), ("--benchmark-disable",)], ids=["timed", "disabled"])
def test_a_backend_that_delivers_wrong_data_fails_the_test(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    # Right when read in order, as when the store is verified; wrong when shuffled.
    wrong = "x.numpy()[:], y.numpy()[:] = self._x[indices], self._y[indices]\n"
    assert wrong in example()
    text = example().replace(wrong, wrong + "        x.numpy()[0] ^= int(list(indices) != sorted(indices))\n")
    (tmp_path / "test_wrong.py").write_text(text)
    done = run_pytest(tmp_path, *arguments)
    assert "1 failed" in done.stdout
    assert "delivered wrong data" in done.stdout


def test_a_registered_backend_and_a_data_set_by_name(tmp_path: Path) -> None:
    (tmp_path / "test_named.py").write_text(
        "def test_named(benchmark_epoch, bench_backend, bench_dataset):\n"
        "    data = bench_dataset('fashion-mnist', limit=256)\n"
        "    facts = benchmark_epoch(bench_backend('zarr', chunk=64), data, source='synthetic', workers=2, rounds=2)\n"
        "    assert facts['samples'] == 256\n"
        "    assert facts['spec']['options']['chunk'] == 64\n"
    )
    done = run_pytest(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("argument", ["no:benchmark"])
def test_without_pytest_benchmark_tests_are_skipped_in_one_line(tmp_path: Path, argument: str) -> None:
    (tmp_path / "test_my_backend.py").write_text(example())
    done = run_pytest(tmp_path, "-p", argument, "-rs")
    assert "1 skipped" in done.stdout, done.stdout + done.stderr
    assert "benchmark_epoch needs pytest-benchmark: pip install pytest-benchmark" in done.stdout


def test_a_pytest_that_uses_none_of_it_imports_nothing_heavy(tmp_path: Path) -> None:
    # Only the plug-in, so that what other plug-ins import does not count.
    check = (
        "import sys, pytest\n"
        "class Look:\n"
        "    def pytest_sessionfinish(self):\n"
        "        heavy = {'torch', 'numpy', 'pydantic', 'bench.runs', 'bench.specs'} & set(sys.modules)\n"
        "        assert 'bench.pytest_plugin' in sys.modules and not heavy, heavy\n"
        "sys.exit(pytest.main(['-p', 'bench.pytest_plugin', '-W', 'error', '-q'], plugins=[Look()]))\n"
    )
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_suites_of_this_project_run_when_asked_for() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/benchmarks",
        "-k",
        "memmap and open",
    ]
    unasked = subprocess.run(command, cwd=ROOT, env=ALONE, capture_output=True, text=True, check=False)
    assert unasked.returncode == 5, "nothing is collected unless --benchmark-only is given"
    command.append("--benchmark-only")
    asked = subprocess.run(command, cwd=ROOT, env=ALONE, capture_output=True, text=True, check=False)
    assert "1 passed" in asked.stdout, asked.stdout + asked.stderr
