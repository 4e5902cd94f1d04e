"""`bench regress`: what it runs, saves, prints, and the code it exits with."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_benchmark.stats import Stats
from trials import TEMPLATE
from typer.testing import CliRunner

from bench.cli import app
from bench.measure import calibration
from bench.measure.calibration import Calibration
from bench.records.record import ErrorInfo, RunRecord, WarningInfo
from bench.regressions.baseline import BaselineError, read, statistics_of
from bench.runs import runner
from bench.stores import isolated


class Laboratory:
    """A second per epoch, times what is said of a backend; runs differ by half a percent."""

    def __init__(self) -> None:
        self.done: list[RunRecord] = []
        self.slower: dict[str, float] = {}
        self.broken: set[str] = set()
        self.broken_blocks = range(100)
        self.calls: int | None = None
        self.environment: dict[str, object] = {}
        self.warnings: list[WarningInfo] = []
        self.digest = TEMPLATE.data.digest if TEMPLATE.data else ""

    def run(self, spec, places, progress, attempt) -> runner.Outcome:
        wobble = 1 + 0.005 * (len(self.done) * 7 % 5)
        epoch_s = self.slower.get(spec.backend, 1.0) * wobble
        epoch = TEMPLATE.epochs[-1].model_copy(
            update={"epoch_s": epoch_s, "warmup": False, "cpu_user_s": epoch_s, "cpu_system_s": 0.0}
        )
        if self.calls is not None:
            calls = self.calls and self.calls + len(self.done) % 3
            epoch = epoch.model_copy(update={"io": epoch.io.model_copy(update={"read_calls": calls})})
        update = {
            "spec": spec,
            "spec_id": spec.spec_id,
            "epochs": [epoch],
            "campaign": attempt.campaign,
            "status": "ok",
            "warnings": self.warnings,
        }
        update["started_at"] = f"2026-01-01T00:{len(self.done) % 60:02}:00.000000+00:00"
        update["environment"] = {**TEMPLATE.environment, **self.environment}
        if spec.backend in self.broken and attempt.campaign.block in self.broken_blocks:
            error = ErrorInfo(phase="train", type="X", message="It broke.")
            update |= {"status": "failed", "error": error, "epochs": []}
        self.done.append(TEMPLATE.model_copy(update=update))
        return runner.Outcome(self.done[-1], None)

    def prepare(self, *args, **options) -> SimpleNamespace:
        return SimpleNamespace(manifest=SimpleNamespace(source_digest=self.digest))


@pytest.fixture
def laboratory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Laboratory:
    made = Laboratory()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", made.run)
    monkeypatch.setattr(isolated, "prepare", made.prepare)
    monkeypatch.setattr(calibration, "measure", lambda: Calibration(0.005, 0.008, 0.006, 0.005, 0.008, 0.006))
    monkeypatch.setattr("bench.campaigns.calibrated.run.__defaults__", (lambda: calibration.measure(),))
    return made


def regress(*arguments: str):
    return CliRunner().invoke(app, ["regress", "--data-dir", "data", *arguments])


SAVE = ("--save", "main", "--dataset", "cifar10", "--backend", "memmap", "--backend", "hdf5", "--model", "none")


def test_a_baseline_is_repeated_exactly_and_equal_code_passes(laboratory: Laboratory) -> None:
    assert regress(*SAVE).exit_code == 0
    saved, laboratory.done = laboratory.done, []
    found = regress("main")
    assert found.exit_code == 0, found.output
    assert [r.spec for r in laboratory.done] == [r.spec for r in saved]
    assert [r.campaign.cell for r in laboratory.done] == [r.campaign.cell for r in saved]
    assert len(saved) == 3 * 8
    assert "No regression was shown against main." in found.stdout


def test_a_slower_backend_exits_3_and_the_summary_names_it(laboratory: Laboratory) -> None:
    regress(*SAVE)
    laboratory.slower["hdf5"] = 1.15
    found = regress("main", "--summary", "summary.md")
    assert found.exception.exit_code == 3
    assert "hdf5" in str(found.exception)
    assert "memmap" not in str(found.exception)
    text = Path("summary.md").read_text()
    assert text.startswith("### bench regress main: 3 regressions\n")
    # The wobble of the simulated runs moves their median by 1 %.
    assert "hdf5[library]: epoch is slower: 1.14" in text
    assert "<details>" in text
    assert regress("main", "--summary", "summary.md").exception.exit_code == 3


def test_a_baseline_that_could_not_be_written_is_refused_before_any_run(laboratory: Laboratory) -> None:
    Path("file").touch()
    for place, reason in (("/proc/1/none/x.json", "cannot write to"), ("file/x.json", "there is no folder")):
        found = regress("--save", place, *SAVE[2:])
        assert str(found.exception).startswith("--save ")
        assert reason in str(found.exception)
    assert not laboratory.done


def test_a_document_is_not_taken_for_a_summary(laboratory: Laboratory) -> None:
    regress(*SAVE, "--blocks", "1")
    laboratory.done.clear()
    Path("README.md").write_text("# Years of work\n")
    found = regress("main", "--summary", "README.md")
    assert str(found.exception).startswith("--summary README.md is there already, and is no summary of bench.")
    assert Path("README.md").read_text() == "# Years of work\n"
    assert not laboratory.done


def test_a_counter_that_was_zero_is_a_regression_in_words(laboratory: Laboratory) -> None:
    laboratory.calls = 0
    regress(*SAVE)
    laboratory.calls = 1000
    found = regress("main")
    assert found.exception.exit_code == 3
    assert re.search(r"hdf5\[library\]: read calls is more: 1,00\d per epoch instead of 0 \(p = ", found.stdout)


def test_runs_beside_other_work_put_what_is_said_of_times_in_doubt(laboratory: Laboratory) -> None:
    assert regress(*SAVE).exit_code == 0
    assert "disturbed" not in regress("main").stdout
    laboratory.warnings = [WarningInfo(kind="other-processes", message="Others used 40 % of the processor.")]
    runs = len(laboratory.done) // 2
    assert f"Other work disturbed the machine in {runs} of {runs} runs of today: " in regress("main").stdout
    laboratory.warnings = [WarningInfo(kind="short-epoch", message="Of no interest here.")]
    assert "disturbed" not in regress("main").stdout


def test_failed_cells_exit_2_and_spoil_no_baseline(laboratory: Laboratory) -> None:
    regress(*SAVE)
    laboratory.broken.add("hdf5")
    found = regress("main")
    assert found.exception.exit_code == 2
    assert "It broke." in str(found.exception)
    assert "hdf5[library] gave no result in 8 of 8 runs: It broke." in found.stdout
    found = regress(*SAVE[2:], "--save", "broken")
    assert found.exception.exit_code == 2
    assert not Path("results/baselines/broken.json").exists()


def test_runs_without_a_result_are_counted(laboratory: Laboratory) -> None:
    regress(*SAVE)
    laboratory.broken, laboratory.broken_blocks = {"hdf5"}, range(2, 3)
    found = regress("main")
    assert found.exception.exit_code == 2
    assert "hdf5[library] gave no result in 1 of 8 runs: It broke." in found.stdout


@pytest.mark.parametrize(
    ("environment", "named"),
    [({"cpu": "another"}, "cpu"), ({"cpu_quota_cores": 0.5}, "CPU quota"), ({"memory_bytes": 2**40}, "memory")],
)
def test_another_machine_leaves_the_counters(laboratory: Laboratory, environment: dict, named: str) -> None:
    regress(*SAVE)
    laboratory.slower, laboratory.environment = {"hdf5": 2.0, "memmap": 2.0}, environment
    found = regress("main")
    assert found.exit_code == 0, found.output
    assert f"Times were NOT held: the machine or its state is another one: {named} (" in found.stdout
    # What else was not held is said as well.
    assert "Not held: waiting for data (stall): loading alone is nothing but waiting" in found.stdout


def test_what_changed_in_the_middle_of_a_day_is_found(laboratory: Laboratory) -> None:
    regress(*SAVE)
    saved, run = len(laboratory.done), laboratory.run

    def with_less(*args) -> runner.Outcome:
        laboratory.environment = {"cpu_quota_cores": 0.5} if len(laboratory.done) > saved + 6 else {}
        return run(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run", with_less)
        found = regress("main")
    assert "Times were NOT held: the machine or its state is another one: CPU quota (none or 0.5 cores)" in found.stdout


@pytest.mark.parametrize("name", ["main", "elsewhere/main.json"])
def test_what_it_says_holds_a_baseline_holds_it(laboratory: Laboratory, name: str) -> None:
    saved = regress("--save", name, *SAVE[2:], "--blocks", "1", "--results", "mine")
    hint = saved.stderr.partition("Hold it with: bench regress ")[2].split()
    assert hint == [name, "--results", "mine"]
    assert regress(*hint).exit_code == 0


def test_other_data_is_refused_before_anything_is_run(laboratory: Laboratory) -> None:
    regress(*SAVE, "--blocks", "1")
    saved, laboratory.digest = len(laboratory.done), "f" * 32
    found = regress("main")
    assert "main is no baseline for this: the samples of memmap[mapped] are not what they were." in str(found.exception)
    assert len(laboratory.done) == saved


def test_another_version_of_a_library_is_said_and_held(laboratory: Laboratory) -> None:
    regress(*SAVE)
    laboratory.environment = {"libraries": {**TEMPLATE.environment["libraries"], "zarr": "9.9"}}
    laboratory.slower = {"memmap": 1.3}
    found = regress("main")
    assert found.exception.exit_code == 3
    assert "version of zarr" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Name a baseline to hold"),
        (("nothing",), "There is no baseline"),
        (("main", "--backend", "zarr"), "says itself what to run"),
        (("main", "--epochs", "9"), "says itself what to run"),
        (("main", "--epochs", "3"), "says itself what to run"),
        (("main", "--memory-limit", "2G"), "says itself what to run"),
        (("--save", "new", "--backend", "zarr"), "--save needs what to measure"),
        (("--save", "x y", "--dataset", "cifar10", "--backend", "zarr"), "no name for a baseline"),
        (("main", "--summary", "no/folder/x.md"), "there is no folder no/folder"),
        (("main", "--summary", "/dev/null"), "is no ordinary file"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(
    laboratory: Laboratory, arguments: tuple[str, ...], message: str
) -> None:
    if "main" in arguments:
        regress(*SAVE, "--blocks", "1")
    found = regress(*arguments)
    assert message in str(found.exception)
    assert found.exception.exit_code == 1


def test_a_baseline_is_not_replaced_unasked(laboratory: Laboratory) -> None:
    assert regress(*SAVE, "--blocks", "1").exit_code == 0
    assert "there already" in str(regress(*SAVE, "--blocks", "1").exception)
    assert regress(*SAVE, "--blocks", "1", "--replace").exit_code == 0


def test_a_damaged_or_foreign_file_is_refused(laboratory: Laboratory) -> None:
    regress(*SAVE, "--blocks", "1")
    path = Path("results/baselines/main.json")
    content = json.loads(path.read_text())
    for spoilt, message in (
        ("{", "cannot be read"),
        (json.dumps({"benchmarks": []}), "nothing to repeat"),
        (json.dumps({**content, "datetime": None, "benchmarks": [{}]}), "damaged"),
        (json.dumps({**content, "dataset_bench": {**content["dataset_bench"], "format": 99}}), "newer bench"),
    ):
        path.write_text(spoilt)
        with pytest.raises(BaselineError, match=message):
            read("main", Path("results"))
    spec = content["benchmarks"][0]["extra_info"]["runs"][0]["record"]["spec"]
    spec |= {"amp": True, "model": "none"}
    path.write_text(json.dumps(content))
    assert read("main", Path("results")).cells, "what is refused today was run then"
    spec["gradient_clip"] = 1.0
    path.write_text(json.dumps(content))
    with pytest.raises(BaselineError, match=r"newer bench: it has spec\.gradient_clip\. Upgrade"):
        read("main", Path("results"))


def test_pytest_benchmark_compares_saved_baselines(laboratory: Laboratory) -> None:
    regress(*SAVE)
    laboratory.slower["hdf5"] = 2.0
    regress("main", "--save", "later")
    command = [Path(sys.executable).with_name("pytest-benchmark"), "compare", "--columns", "median,rounds"]
    command += ["results/baselines/main.json", "results/baselines/later.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("hdf5")]
    assert len(rows) == 2
    assert any("(2.0" in row or "(1.99" in row for row in rows)
    assert all(" 8" in row for row in rows)


@pytest.mark.parametrize("count", [1, 2, 5, 7, 8])
def test_statistics_are_those_of_pytest_benchmark(count: int) -> None:
    values = [1.0, 1.2, 0.9, 5.0, 1.1, 1.05, 0.2, 1.3][:count]
    stats = Stats()
    for value in values:
        stats.update(value)
    ours = statistics_of(values)
    for name, expected in stats.as_dict().items():
        assert ours[name] == (expected if isinstance(expected, str) else pytest.approx(expected)), name
