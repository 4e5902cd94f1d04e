"""`bench matrix`: what runs, what is left after an interruption, which stores stay, and what it refuses."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from filelock import FileLock
from running import assert_ended, leftovers, start, wait_until
from typer.testing import CliRunner

from bench.cli import app
from bench.contracts.errors import BenchError
from bench.records import results
from bench.records.record import ErrorInfo, RunRecord, read_record
from bench.runs import runner
from bench.runs.time_limit import Limited, TimeLimitError, over_time_limit
from bench.stores import isolated

FIXTURE = Path(__file__).parent / "records" / "version-1.json"


class Laboratory:
    """Runs that take no time; ``failing`` backends fail, and the one numbered ``stop`` is interrupted."""

    def __init__(self) -> None:
        self.done: list[RunRecord] = []
        self.failing: dict[str, str] = {}
        self.stop = -1
        self.stores: list[set[str]] = []
        self.digest = "a" * 32
        self.environment: dict[str, object] = {}

    def run(self, spec, places, progress, attempt) -> runner.Outcome:
        epochs = [read_record(FIXTURE).epochs[0].model_copy(update={"warmup": False})]
        status = self.failing.get(spec.backend, "ok")
        if len(self.done) == self.stop:
            status, self.stop = "interrupted", -1
        error = None if status == "ok" else ErrorInfo(phase="train", type="X", message=f"{status}, it said.")
        record = read_record(FIXTURE).model_copy(
            update={
                "spec": spec,
                "spec_id": spec.spec_id,
                "epochs": epochs,
                "campaign": attempt.campaign,
                "status": status,
                "error": error,
                "data": read_record(FIXTURE).data.model_copy(update={"digest": self.digest}),
                "environment": {**read_record(FIXTURE).environment, **self.environment},
                "started_at": f"2026-01-01T00:00:{len(self.done):02}.000000+00:00",
            }
        )
        assert attempt.errors_are_results
        if status != "interrupted":
            self.done.append(record)
        for one in (spec, *spec.evaluated_stores().values()):
            self.prepare(one, places.data_dir, (), progress)
        self.stores.append({path.name for path in places.data_dir.iterdir() if path.is_dir()})
        return runner.Outcome(record, None)

    def prepare(self, spec, data_dir, search, progress, **options):
        path = data_dir / f"{spec.dataset}-{spec.backend}-{spec.options.get('chunk')}.{spec.split}"
        path.mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(path=path)

    @property
    def places(self) -> list[tuple[str, int, bool]]:
        return [(r.campaign.cell, r.campaign.block, r.campaign.control) for r in self.done]


@pytest.fixture
def laboratory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Laboratory:
    made = Laboratory()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", made.run)
    monkeypatch.setattr(isolated, "prepare", made.prepare)
    return made


def matrix(*arguments: str):
    return CliRunner().invoke(app, ["matrix", "--data-dir", "data", *arguments], standalone_mode=False)


def code(result) -> int:
    return getattr(result.exception, "exit_code", 1) if result.exception else 0


SIX = ("--dataset", "cifar10", "--backend", "memmap", "--backend", "hdf5,chunk=8", "--backend", "hdf5")
SIX += ("--workers", "0", "--workers", "2")


def test_every_combination_runs_in_every_block(laboratory: Laboratory) -> None:
    result = matrix(*SIX, "--blocks", "2")
    assert code(result) == 0, result.output
    assert len(laboratory.places) == 12
    assert set(Counter(laboratory.places).values()) == {1}
    specs = {(r.spec.backend, r.spec.options.get("chunk"), r.spec.workers) for r in laboratory.done}
    assert specs == {(b, c, w) for b, c in (("memmap", None), ("hdf5", 8), ("hdf5", None)) for w in (0, 2)}
    assert "[12/12] block 2, " in result.stderr


@pytest.mark.parametrize("stop", [0, 1, 5, 11])
def test_it_goes_on_where_it_was_interrupted(laboratory: Laboratory, stop: int) -> None:
    laboratory.stop = stop
    first = matrix(*SIX, "--blocks", "2")
    assert code(first) == 130
    assert "The same command goes on" in str(first.exception)
    again = matrix(*SIX, "--blocks", "2")
    assert code(again) == 0, again.output
    assert len(laboratory.places) == 12
    assert set(Counter(laboratory.places).values()) == {1}
    assert code(matrix(*SIX, "--blocks", "2")) == 0
    assert len(laboratory.places) == 12, "what is complete does not run again"


def test_more_blocks_add_runs_and_repeat_none(laboratory: Laboratory) -> None:
    matrix(*SIX, "--blocks", "2")
    result = matrix(*SIX, "--blocks", "6")
    assert code(result) == 0
    assert len(laboratory.places) == 6 * (6 + 1)
    assert set(Counter(laboratory.places).values()) == {1}


def test_data_that_has_changed_is_not_gone_on_with(laboratory: Laboratory) -> None:
    laboratory.stop = 7
    matrix(*SIX, "--blocks", "2")
    laboratory.digest = "b" * 32
    for _ in range(2):
        result = matrix(*SIX, "--blocks", "2")
        assert "the data is not what it was in the runs before" in str(result.exception)
        assert len(laboratory.done) == 8, "one that showed it, and none after that"
    assert code(matrix(*SIX, "--blocks", "2", "--anew")) == 0
    assert len(laboratory.done) == 8 + 12


def test_it_says_that_there_is_nothing_left_to_do(laboratory: Laboratory) -> None:
    matrix(*SIX, "--blocks", "1")
    result = matrix(*SIX, "--blocks", "1")
    assert code(result) == 0
    assert "All 6 runs of matrix-" in result.output
    assert "--anew measures again" in result.output
    assert len(laboratory.done) == 6


def test_anew_begins_again_and_is_gone_on_with(laboratory: Laboratory) -> None:
    matrix(*SIX, "--blocks", "1")
    laboratory.stop = 8
    matrix(*SIX, "--blocks", "1", "--anew")
    matrix(*SIX, "--blocks", "1")
    assert len(laboratory.done) == 12
    assert Counter(r.campaign.id for r in laboratory.done).most_common() == [
        (laboratory.done[0].campaign.id, 6),
        (f"{laboratory.done[0].campaign.id}.2", 6),
    ]


def test_another_matrix_is_another_campaign(laboratory: Laboratory) -> None:
    matrix(*SIX, "--blocks", "1")
    matrix(*SIX, "--blocks", "1", "--epochs", "1")
    assert len({record.campaign.id for record in laboratory.done}) == 2


@pytest.mark.parametrize(("status", "runs"), [("failed", 2), ("unsupported", 1)])
def test_the_rest_goes_on_when_a_cell_fails(laboratory: Laboratory, status: str, runs: int) -> None:
    laboratory.failing = {"memmap": status}
    for _ in range(2):
        result = matrix(*SIX, "--blocks", "4")
        assert code(result) == 2
        assert f"{status}, it said." in result.stderr or _
        counts = Counter(record.spec.backend for record in laboratory.done)
        assert counts == {"memmap": 2 * runs, "hdf5": 16}
    assert "Given up: memmap[mapped] workers=0" in result.stderr


def test_stores_are_removed_when_no_run_needs_them_any_more(laboratory: Laboratory) -> None:
    two = ("--dataset", "cifar10", "--dataset", "fashion-mnist", "--backend", "memmap", "--backend", "hdf5,chunk=8")
    assert code(matrix(*two, "--backend", "hdf5,chunk=8,reader=mapped", "--blocks", "2", "--keep-stores", "no")) == 0
    assert [path for path in Path("data").iterdir() if path.is_dir()] == []
    assert len(laboratory.done) == 12
    for number, there in enumerate(laboratory.stores):
        begun = {(r.spec.dataset, r.spec.backend) for r in laboratory.done[: number + 1]}
        later = {(r.spec.dataset, r.spec.backend) for r in laboratory.done[number:]}
        assert {tuple(name.rpartition("-")[0].rsplit("-", 1)) for name in there} == begun & later


def test_how_a_network_is_trained_is_an_axis_and_stores_of_other_splits_are_removed_as_well(
    laboratory: Laboratory,
) -> None:
    protocol = ("--optimizer", "sgd", "--optimizer", "adam", "--val", "0.1", "--val", "0.2", "--test", "test")
    result = matrix("--dataset", "cifar10", "--backend", "memmap", *protocol, "--blocks", "1", "--keep-stores", "no")
    assert code(result) == 0, result.output
    names = {f"memmap[mapped] {optimizer} val={val}" for optimizer in ("sgd", "adam") for val in ("0.1", "0.2")}
    assert {record.campaign.cell for record in laboratory.done} == names
    assert {(r.spec.optimizer, r.spec.lr, r.spec.test) for r in laboratory.done} == {
        ("sgd", 0.05, "test"),
        ("adam", 0.001, "test"),
    }
    assert laboratory.stores[0] == {"cifar10-memmap-None.train", "cifar10-memmap-None.test"}
    assert [path for path in Path("data").iterdir() if path.is_dir()] == []


def test_stores_stay_otherwise(laboratory: Laboratory) -> None:
    matrix(*SIX, "--blocks", "1")
    assert len([path for path in Path("data").iterdir() if path.is_dir()]) == 3


def test_a_dry_run_lists_all_and_runs_nothing(laboratory: Laboratory) -> None:
    result = matrix(*SIX, "--dry-run")
    assert code(result) == 0
    assert not laboratory.done
    assert "6 cells, 18 runs, 0 of them controls, in 3 blocks." in result.stdout
    assert result.stdout.count("unknown") == 12 + 2
    assert "Total time: unknown." in result.stdout
    assert "Total disk: unknown." in result.stdout
    assert not Path("data").exists()
    matrix(*SIX, "--blocks", "1")
    known = matrix(*SIX, "--dry-run", "--anew")
    assert known.stdout.count("unknown") == 0
    assert "Total time: about " in known.stdout


def test_a_dry_run_tells_what_is_left_of_a_matrix_under_way(laboratory: Laboratory) -> None:
    laboratory.stop = 4
    matrix(*SIX)
    result = matrix(*SIX, "--dry-run")
    assert "6 cells, 18 runs, 0 of them controls, in 3 blocks." in result.stdout
    assert "4 of the runs are done or given up: the table is of the other 14. --anew runs all." in result.stdout
    counts = [
        int(line.split()[-3]) for line in result.stdout.splitlines() if line.strip().startswith(("memmap", "hdf5"))
    ]
    assert sum(counts) == 14
    anew = matrix(*SIX, "--dry-run", "--anew")
    assert "are done" not in anew.stdout


def test_it_says_once_that_it_goes_on_under_other_conditions(laboratory: Laboratory) -> None:
    laboratory.stop = 4
    assert "conditions" not in matrix(*SIX, "--blocks", "1").stderr
    laboratory.environment = {"torch_threads": 99}
    again = matrix(*SIX, "--blocks", "2")
    assert code(again) == 0
    assert again.stderr.count("not all of its runs are under the same conditions: torch threads (") == 1
    assert " or 99). " in again.stderr
    later = matrix(*SIX, "--blocks", "2")
    assert "torch threads" in later.stderr, "what is complete is told, too"


def test_all_runs_without_a_result_are_counted(laboratory: Laboratory) -> None:
    laboratory.failing = {"memmap": "unsupported"}
    result = matrix(*SIX)
    assert code(result) == 2
    assert "6 of 18 runs gave no result" in str(result.exception)


def test_the_example_can_be_written_and_used(laboratory: Laboratory) -> None:
    assert code(matrix("suite.toml", "--init")) == 0
    before = Path("suite.toml").read_text()
    assert "is there already" in str(matrix("suite.toml", "--init").exception)
    assert Path("suite.toml").read_text() == before
    assert code(matrix("suite.toml", "--blocks", "1")) == 0
    assert len(laboratory.done) == 14
    assert laboratory.done[0].campaign.id.startswith("formats-")


def test_an_example_that_cannot_be_written_leaves_nothing(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert "No space left on device" in str(matrix("suite.toml", "--init").exception)
    assert not list(Path().glob("*.toml"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Name what to run"),
        (("--backend", "memmap"), "Name what to run"),
        (("suite.toml", "--backend", "memmap"), "not both"),
        (("none.toml",), "none.toml: No such file"),
        (("--init",), "needs the name of the file"),
        ((*SIX, "--workers", "-1"), "--workers"),
        ((*SIX, "--worker-kind", "fibre"), "--worker-kind"),
        ((*SIX, "--time-limit", "long"), "--time-limit long: not a time"),
        ((*SIX, "--blocks", "0"), "--blocks 0"),
        ((*SIX, "--order-seed", "-2"), "--seed -2"),
        ((*SIX, "--backend", "memmap"), "is there twice"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(laboratory: Laboratory, arguments: tuple[str, ...], words: str) -> None:
    result = matrix(*arguments)
    assert code(result) == 1
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)
    assert isinstance(result.exception, BenchError)
    assert not Path("results").exists()


def test_the_same_matrix_does_not_run_twice_at_a_time(laboratory: Laboratory) -> None:
    matrix(*SIX, "--blocks", "1")
    name = laboratory.done[0].campaign.id
    with FileLock(Path("results") / f".{name}.lock"):
        result = matrix(*SIX, "--blocks", "2")
    assert code(result) == 1
    assert "is being run" in str(result.exception)
    assert len(laboratory.done) == 6


def test_a_run_that_takes_too_long_is_ended() -> None:
    told: list[int] = []
    inner = SimpleNamespace(start=lambda *_: None, advance=told.append, note=print, epoch=print, finish=lambda: None)
    progress = Limited(inner, 0.05, over_time_limit)
    progress.advance(1)
    time.sleep(0.06)
    with pytest.raises(TimeLimitError, match="--time-limit"):
        progress.advance(2)
    assert told == [1]
    Limited(inner, None, over_time_limit).advance(3)


REAL = (
    "matrix",
    "--dataset",
    "toys",
    "--source",
    "synthetic",
    "--model",
    "none",
    "--epochs",
    "1",
    "--batch-size",
    "32",
)
REAL += ("--backend", "memmap", "--backend", "hdf5", "--workers", "0", "--workers", "1", "--blocks", "2")
KILLS = 20


@pytest.mark.timeout(900)
def test_it_survives_being_killed_at_any_point(bench_environment: dict[str, str], tmp_path: Path) -> None:
    kills = random.Random(6)
    for _ in range(KILLS):
        process = start(bench_environment, tmp_path, *REAL, "--data-dir", "data")
        with suppress(subprocess.TimeoutExpired):
            process.wait(kills.uniform(0.3, 4))
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
        assert_ended(family, timeout_s=30)
    process = start(bench_environment, tmp_path, *REAL, "--data-dir", "data")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    found, unread = results.read_all(tmp_path / "results")
    assert not unread
    places = [(r.campaign.cell, r.campaign.block, r.campaign.control) for _, r in found]
    assert len(places) == 8
    assert len(set(places)) == 8
    assert all(record.status == "ok" for _, record in found)
    wait_until(lambda: not leftovers(tmp_path / "results"))
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted(path.name for path, _ in found)
