"""`bench tune`: what it measures, prints, keeps and refuses."""

import itertools
import json
import os
import shlex
import signal
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from running import assert_ended, leftovers, start
from typer.testing import CliRunner

from bench.campaigns.tuning import Configuration
from bench.cli import app
from bench.commands.cells import named_cells
from bench.commands.durations import DurationError, duration_s
from bench.commands.outcome import INTERRUPTED, RunFailedError
from bench.contracts.errors import BenchError
from bench.measure import environment
from bench.records.record import ErrorInfo, read_record
from bench.report import tuned
from bench.runs import runner
from bench.specs.spec import RunSpec, content_hash
from bench.stores import isolated
from bench.stores.store import Store

FIXTURE = Path(__file__).parent / "records" / "version-1.json"

CIFAR = ("--dataset", "cifar10", "--source", "synthetic", "--limit", "512", "--model", "none", "--data-dir", "data")
TOYS = ("--dataset", "toys", "--source", "synthetic", "--model", "none", "--data-dir", "data", "--batch-size", "32")


def stores(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("data/stores/*/*/manifest.json")}


def test_it_finds_records_and_says_what_it_found(bench, tmp_path: Path) -> None:
    before = bench("prepare", "--backend", "hdf5", "--option", "chunk=16", *CIFAR[:6], "--data-dir", "data")
    assert before.returncode == 0, before.stderr
    foreign = stores(tmp_path)
    result = bench("tune", "--backend", "hdf5", *CIFAR, "--budget", "40s", "--json", "--epochs", "2")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["data"] == "cifar10 (synthetic)"
    assert found["samples"] == found["total_samples"] == 512
    assert found["tried"] >= 1
    assert [row["defaults"] for row in found["rows"]].count(True) == 1
    assert foreign <= stores(tmp_path)
    assert len(stores(tmp_path) - foreign) <= len(found["rows"])
    assert leftovers(tmp_path) == []
    records = [read_record(path) for path in (tmp_path / "results").glob("*.json")]
    assert {record.environment["tuning"]["id"] for record in records} == {found["id"]}
    measured = [(run["samples"], run["store_bytes"], run["prepare_s"]) for row in found["rows"] for run in row["runs"]]
    recorded = [(r.data.count, r.store.disk_bytes, r.store.prepare_s) for r in records if r.status == "ok"]
    assert set(measured) <= set(recorded)
    for row in found["rows"]:
        command = shlex.split(row["command"])
        assert command[:6] == ["bench", "run", "--backend", "hdf5", *command[4:6]]
        assert {f"{key}={value}" for key, value in row["options"].items()} <= set(command)
    again = bench(*command[1:], "--json")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("options", [(), (("chunk", "16"),)])
@pytest.mark.parametrize(
    ("baseline", "loaded"),
    [(Configuration(), ""), (Configuration(workers=1), ",workers=1,worker-kind=process,prefetch=2")],
    ids=["no workers", "1 worker"],
)
def test_other_workers_than_the_defaults_are_confirmed_in_blocks(
    options: tuple[tuple[str, str], ...], baseline: Configuration, loaded: str
) -> None:
    best = Configuration(options, workers=2, worker_kind="thread", prefetch=4)
    chosen = "".join(f",{key}={value}" for key, value in options)
    assert tuned.Commands("hdf5", "cifar10", ("--seed", "5")).confirm(best, baseline) == (
        f"bench compare --backend hdf5{loaded} --backend hdf5{chosen},workers=2,worker-kind=thread,prefetch=4 "
        "--dataset cifar10 --seed 5"
    )


def test_what_confirms_a_tuning_runs_what_was_tuned() -> None:
    best = Configuration((("chunk", "16"),), workers=2, worker_kind="thread", prefetch=4)
    command = shlex.split(tuned.Commands("hdf5", "cifar10", ()).confirm(best, Configuration()))
    cells = [value for flag, value in itertools.pairwise(command) if flag == "--backend"]
    first, second = named_cells(cells, "cifar10", {}, {}).values()
    assert (first.workers, first.options["chunk"]) == (0, None)
    assert (second.workers, second.worker_kind, second.prefetch, second.options["chunk"]) == (2, "thread", 4, 16)


@pytest.fixture
def laboratory(request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunSpec]:
    """Runs that take no time: chunks of 16 make an epoch half as long, gzip fails, lzf cannot be stored."""
    template = read_record(FIXTURE)
    done: list[RunSpec] = []
    whole = getattr(request, "param", 50_000)

    def prepare(spec, data_dir, search, progress, *, repair) -> Store:
        if spec.options["compression"] == "lzf":
            raise BenchError("No such library.")
        written = {key: value for key, value in spec.options.items() if key != "reader"}
        path = data_dir / "stores" / "cifar10" / f"{spec.backend}-{content_hash([written, spec.limit])}"
        built = not path.exists()
        (path / "data").mkdir(parents=True, exist_ok=True)
        (path / "manifest.json").touch()
        known = SimpleNamespace(count=spec.limit or whole, size_bytes=1000, prepare_s=0.1)
        return Store(path, known, built, built_s=0.2 if built else 0.0)

    def run(spec, places, progress, attempt) -> runner.Outcome:
        done.append(spec)
        epoch_s = (spec.limit or 50_000) * 1e-5 * (0.5 if spec.options["chunk"] == 16 else 1)
        epoch = template.epochs[0].model_copy(update={"epoch_s": epoch_s, "warmup": False})
        record = template.model_copy(update={"spec": spec, "spec_id": spec.spec_id, "epochs": [epoch]})
        if spec.options["compression"] == "gzip":
            error = ErrorInfo(phase="train", type="X", message="It broke.")
            record = record.model_copy(update={"status": "failed", "error": error})
        return runner.Outcome(record, None)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(isolated, "prepare", prepare)
    monkeypatch.setattr(isolated, "call", lambda *arguments: (50_000, 3072))
    return done


FAKE = ("tune", "--backend", "hdf5", "--dataset", "cifar10", "--data-dir", "data", "--seed", "5", "--budget", "60s")


def test_an_interruption_before_anything_is_known_says_so(laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(isolated, "prepare", interrupt)
    result = CliRunner().invoke(app, [*FAKE, "--workers", "0"])
    assert isinstance(result.exception, RunFailedError)
    assert str(result.exception) == "Interrupted before anything was measured."
    assert result.exception.exit_code == INTERRUPTED


@pytest.mark.parametrize(("quota", "most"), [(None, 3), (1.5, 2), (0.2, 1), (9.0, 3)])
def test_no_more_workers_are_tried_than_there_are_cores_for(
    laboratory, monkeypatch: pytest.MonkeyPatch, quota: float | None, most: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 6, 7})
    monkeypatch.setattr(environment, "cpu_quota_cores", lambda: quota)
    result = CliRunner().invoke(app, [*FAKE])
    assert result.exit_code == 0, result.exception
    assert max(spec.workers for spec in laboratory) == most


def test_the_best_is_shown_with_its_command_and_its_stores_alone_are_kept(laboratory, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*FAKE, "--workers", "0", "--format", "markdown"])
    assert result.exit_code == 0, result.exception
    assert "chunk=16" in result.stdout
    assert "took 0.50 times the epoch of the defaults" in result.stdout
    commands = [line for line in result.stdout.splitlines() if ": bench run --backend hdf5" in line]
    assert all(line.endswith("--dataset cifar10 --data-dir data --seed 5") for line in commands)
    assert "--option chunk=16" in commands[0]
    assert "Confirm it by: bench compare --backend hdf5 --backend hdf5,chunk=16" in result.stdout
    assert "It broke." in result.stdout
    assert "No such library." in result.stdout
    assert {spec.workers for spec in laboratory} == {0}
    assert {spec.seed for spec in laboratory} == {5}
    assert [spec.limit for spec in laboratory][-1] is None
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ") and "samples |" in line]
    assert 1 <= len(stores(tmp_path)) <= len(rows)


@pytest.mark.parametrize("laboratory", [49_990], indirect=True)
def test_files_that_are_left_out_make_no_part_of_the_whole(laboratory, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*FAKE, "--workers", "0"])
    assert result.exit_code == 0, result.exception
    assert "49,990 samples" in result.stdout
    assert "→ 49,990 of 49,990;" in result.stdout
    assert "scaled in proportion" not in result.stdout
    assert stores(tmp_path), "those of the result are kept"


def test_a_store_that_was_there_before_is_left_alone(laboratory, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, [*FAKE, "--keep-stores"]).exit_code == 0
    all_of_them = stores(tmp_path)
    assert len(all_of_them) > 20, "kept, as it was asked for"
    assert CliRunner().invoke(app, FAKE).exit_code == 0
    assert stores(tmp_path) == all_of_them


def test_what_is_given_is_not_searched(laboratory) -> None:
    flags = ("--option", "chunk=4", "--worker-kind", "thread", "--prefetch", "3", "--limit", "9000")
    result = CliRunner().invoke(app, [*FAKE, *flags])
    assert result.exit_code == 0, result.exception
    assert {spec.options["chunk"] for spec in laboratory} == {4}
    assert {(spec.worker_kind, spec.prefetch) for spec in laboratory} == {("thread", 3)}
    assert len({spec.workers for spec in laboratory}) > 1
    assert "--limit 9000" in result.stdout


def test_ctrl_c_ends_with_what_is_known(bench_environment, tmp_path: Path) -> None:
    run = start(bench_environment, tmp_path, "tune", "--backend", "memmap", *TOYS, "--budget", "10m", stdout=True)
    while not run.stderr.readline().startswith("300 samples: "):
        assert run.poll() is None
    family = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)
    out, said = run.communicate(timeout=30)
    assert run.returncode == 130, said
    assert "defaults: default options, no workers" in out
    assert "interrupted" in out
    assert said.splitlines()[-1] == "bench: Interrupted; what is known so far stands above."
    assert "Traceback" not in said
    assert_ended(family, timeout_s=2)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*arguments, **options) -> None:
        raise AssertionError("it should be refused before anything runs")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", fail)
    monkeypatch.setattr(isolated, "call", fail)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--backend", "memmap", "--budget", "soon"), "--budget soon: not a time. Write it like 90s, 5m or 1h."),
        (("--backend", "memmap", "--budget", "5"), "--budget 5: not a time"),
        (("--backend", "memmap", "--budget", "-5m"), "not a time"),
        (("--backend", "memmap", "--budget", "9s"), "--budget 9s is too short"),
        (("--backend", "mmap"), "Unknown backend 'mmap'. Did you mean memmap?"),
        (("--backend", "memmap", "--option", "reader=naive", "--workers", "0"), "There is nothing to tune"),
        (("--backend", "memmap", "--option", "chunk=3"), "Unknown memmap option 'chunk'"),
        (("--backend", "memmap", "--prefetch", "0"), "--prefetch '0'"),
        (("--backend", "memmap", "--batch-size", "600"), "--batch-size 600 is larger than the data"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(nothing_runs, arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(app, ["tune", *CIFAR, *arguments], standalone_mode=False)
    assert result.exit_code == 1
    assert text in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not Path("data").exists()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("0.5h", 1800)])
def test_budgets_are_times(text: str, seconds: float) -> None:
    assert duration_s("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1d", "1e3s", "5 m"])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(DurationError, match="Write it like 90s, 5m or 1h"):
        duration_s("--budget", text)
