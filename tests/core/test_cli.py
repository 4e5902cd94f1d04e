"""The installed command, as a user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import OWN, RUN, leftovers, start
from typer.testing import CliRunner

from bench import cli
from bench.records.record import RunRecord


def one_line_error(result: subprocess.CompletedProcess[str], *texts: str) -> None:
    lines = [line for line in result.stderr.splitlines() if line.startswith("bench: ")]
    assert result.returncode == 1, result.stderr
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for text in texts:
        assert text in lines[0]


def test_run_prints_a_result_and_writes_its_record(bench, tmp_path: Path) -> None:
    result = bench(*RUN, *OWN, "--backend", "toy", "--epochs", "3")
    assert result.returncode == 0, result.stderr
    for text in (
        "toy on toys (synthetic)",
        "epoch",
        "samples/s",
        "MB/s",
        "waiting for data",
        "copying to the device",
        "first batch",
        "peak RAM (PSS)",
        "read from storage",
        "store",
        "preparation",
        "Verified: every sample was read back bit for bit when the store was built",
        "Waiting for data took",
        "Note (synthetic-data)",
    ):
        assert text in result.stdout
    (path,) = (tmp_path / "results").iterdir()
    assert "-toys-synthetic-toy-cnn-" in path.name
    assert leftovers(tmp_path) == []


def test_json_is_the_record_and_nothing_else(bench, tmp_path: Path) -> None:
    result = bench(*RUN, "--backend", "toy", "--json", "--epochs", "3", "--workers", "1")
    record = RunRecord.model_validate_json(result.stdout)
    (path,) = (tmp_path / "results").iterdir()
    assert json.loads(result.stdout) == json.loads(path.read_text())
    assert record.status == "ok"
    assert [epoch.warmup for epoch in record.epochs] == [True, False, False]
    assert record.data.checked_samples == 300
    for epoch in record.epochs:
        assert epoch.samples == 300
        assert len(epoch.batch_wait_s) == len(epoch.batch_loss) == 10
        assert epoch.wait_s + epoch.copy_s + epoch.compute_s == pytest.approx(epoch.epoch_s, rel=0.01)
        assert epoch.io.read_calls >= 0
        assert epoch.cpu_user_s >= 0
    assert record.memory.peak_pss_bytes >= record.memory.baseline_pss_bytes > 50e6
    assert record.environment["libraries"]["torch"]
    # What is measured besides: the package that backend and data set come with.
    assert record.environment["libraries"]["toy-plugins"] == "1.0"


def test_no_model_measures_loading_alone(bench) -> None:
    record = RunRecord.model_validate_json(bench(*RUN, "--backend", "toy", "--model", "none", "--json").stdout)
    assert record.status == "ok"
    assert all(e.loss is e.accuracy is e.batch_loss is None for e in record.epochs)
    assert all(e.wait_s > 0.5 * e.epoch_s for e in record.epochs)


def test_waiting_for_a_slow_store_is_reported_as_waiting(bench) -> None:
    record = RunRecord.model_validate_json(
        bench(*RUN, "--backend", "toy-slow", "--json", "--epochs", "1", "--batch-size", "100").stdout
    )
    (epoch,) = record.epochs
    # The reader sleeps 0.3 s in each of three batches; a busy machine may only add to that.
    assert all(0.3 <= wait < 0.4 for wait in epoch.batch_wait_s)
    assert 0.9 <= epoch.wait_s < 1.2
    assert not epoch.warmup
    assert "no-repeats" in {warning.kind for warning in record.warnings}


def test_the_same_seed_gives_the_same_losses_across_backends_and_runs(bench) -> None:
    found = []
    for backend in ("toy", "memmap"):
        order = ("--shuffle", "block", "--block-samples", "40", "--buffer-blocks", "3")
        result = bench(*RUN, *order, "--backend", backend, "--deterministic", "--json", "--epochs", "2")
        found.append([epoch.batch_loss for epoch in RunRecord.model_validate_json(result.stdout).epochs])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("--backend", "zar"), ("Unknown backend 'zar'. Did you mean zarr?", "memmap")),
        (("--backend", "toy", "--model", "cn"), ("Unknown model 'cn'. Did you mean cnn?",)),
        (("--backend", "hdf5", "--option", "chnk=3"), ("Did you mean chunk?",)),
        (("--backend", "toy", "--batch-size", "0"), ("--batch-size '0'",)),
        (("--backend", "toy", "--worker-kind", "goblin"), ("goblin", "process")),
        (("--backend", "toy", "--bakend", "x"), ("No such option", "--bakend")),
        (("--backend", "toy", "--batch-size", "301"), ("--batch-size 301 is larger than the data", "300 samples")),
        (("--backend", "toy", "--model", "sb-cnn"), ("sb-cnn needs samples of at least 3x100x32", "toys are 3x8x8")),
        (("--backend", "toy", "--model", "resnet18-audio", "--batch-size", "299"), ("299 leaves of 300 samples",)),
        (("--backend", "toy", "--weights", "no/such.pth"), ("--weights no/such.pth: No such file or directory.",)),
        (("--backend", "toy", "--source", "local:/no/such/path"), ("/no/such/path", "does not exist")),
        (("--backend", "toy", "--source", "official"), ("toys cannot be downloaded.",)),
        (("--backend", "toy", "--results", "data-file/x"), ("Choose another --results",)),
        (("--backend", "toy", "--device", "cuda"), ("no CUDA device",)),
        (("--backend", "toy-full"), ("No space left on the disk",)),
        (("--backend", "toy-wrong"), ("sample 123 is not what was written",)),
        (("--backend", "toy-needs"), ("toy_plugins_missing",)),
    ],
    ids=lambda value: " ".join(value[1:4:2]) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line_exit_1_and_leave_nothing(bench, tmp_path: Path, arguments, texts) -> None:
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    (tmp_path / "data-file").touch()
    result = bench(*RUN, *OWN, *arguments)
    one_line_error(result, *texts)
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.glob("results/*"))


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A disk of 1 MB; where this user may not mount one, the test is skipped."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize(
    "store",
    [
        ("memmap",),
        ("filesystem", "format=npy"),
        ("hdf5",),
        ("hdf5", "compression=gzip"),
        ("zarr",),
        ("zarr", "codec=zstd"),
    ],
    ids=" ".join,
)
def test_a_full_disk_is_one_line_whatever_the_library_makes_of_it(bench, tiny_disk: Path, store) -> None:
    backend, *options = store
    command = ["prepare", "--dataset", "cifar10", "--source", "synthetic", "--limit", "2000", "--backend", backend]
    for option in options:
        command += ["--option", option]
    one_line_error(bench(*command, "--data-dir", str(tiny_disk)), "No space left on the disk")
    assert leftovers(tiny_disk) == []


def test_debug_shows_the_traceback(bench) -> None:
    result = bench(*RUN, "--backend", "zar", "--debug")
    assert "Traceback" in result.stderr
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("backend", "phase", "text"),
    [
        ("toy-crash", "train", "signal SIGSEGV"),
        ("toy-raises", "train", "sample 5 cannot be read."),
        ("toy-wrong-later", "check", "delivered wrong data for sample"),
    ],
)
def test_a_run_that_fails_becomes_a_record(bench, tmp_path: Path, backend: str, phase: str, text: str) -> None:
    result = bench(*RUN, "--backend", backend)
    one_line_error(result, phase, text)
    (path,) = (tmp_path / "results").iterdir()
    record = RunRecord.model_validate_json(path.read_text())
    assert (record.status, record.error.phase) == ("failed", phase)
    assert text in record.error.message


def test_a_worker_that_raises_is_one_line_too(bench) -> None:
    one_line_error(bench(*RUN, "--backend", "toy-raises", "--workers", "2"), "sample 5 cannot be read.")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--backend", "toy-unsupported"), "toy-unsupported cannot hold toys: it only holds words."),
        (
            ("--backend", "toy-unsupported", "--workers", "1", "--worker-kind", "thread"),
            "toy-unsupported cannot be read by thread workers.",
        ),
    ],
    ids=["data", "workers"],
)
def test_unsupported_is_recorded_as_such(bench, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    result = bench(*RUN, *arguments)
    one_line_error(result, text)
    (path,) = (tmp_path / "results").iterdir()
    assert RunRecord.model_validate_json(path.read_text()).status == "unsupported"


def test_prepare_verify_damage_repair_clean(bench, tmp_path: Path) -> None:
    common = ("--dataset", "toys", "--source", "synthetic", "--data-dir", "data", "--backend", "hdf5")
    missing = bench("verify", *common)
    one_line_error(missing, "Build it with `bench prepare`")
    assert "300 samples of toys (synthetic)" in bench("prepare", *common).stdout
    assert "every sample equals its source" in bench("verify", *common).stdout
    (file,) = (tmp_path / "data").rglob("*.h5")
    content = file.read_bytes()
    sample = next(iter(x.tobytes() for x in __import__("toy_plugins").toy_arrays()[0][44:]))
    position = content.index(sample) + 9
    file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    one_line_error(bench("verify", *common), "sample 44")
    one_line_error(bench(*RUN, *OWN, "--backend", "hdf5"), "sample 44", "--yes")
    assert bench("prepare", *common, "--yes").returncode == 0
    assert bench("verify", *common).returncode == 0
    dry = bench("clean", "--data-dir", "data", "--dry-run")
    assert "hdf5-" in dry.stdout
    assert file.exists()
    assert bench("clean", "--data-dir", "data", "--backend", "zarr", "--yes").stdout == "Nothing to remove.\n"
    assert "Freed" in bench("clean", "--data-dir", "data", "--yes").stdout
    assert not file.exists()


def test_clean_removes_nothing_but_its_own(bench, tmp_path: Path) -> None:
    mine = [
        "stores/Berlin/invoices/2024.txt",
        "stores/x/.building-site/plan.dwg",
        "stores/toys/hdf5-mine/notes.txt",
        "downloads/film.mkv",
    ]
    for name in mine:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("precious")
    common = ("--dataset", "toys", "--source", "synthetic", "--data-dir", "data", "--backend", "memmap")
    assert bench("prepare", *common).returncode == 0
    (tmp_path / "data/downloads/cifar-10-python.tar.gz.part").write_text("half")
    assert "Freed" in bench("clean", "--data-dir", "data", "--downloads", "--yes").stdout
    left = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert {name for name in left if not name.endswith(".lock") and not name.startswith("sources/")} == set(mine)
    assert not [name for name in left if name.endswith(".lock") and "toys" not in name]


def test_clean_that_nobody_answers_does_nothing(bench) -> None:
    common = ("--dataset", "toys", "--source", "synthetic", "--data-dir", "data", "--backend", "memmap")
    bench("prepare", *common)
    one_line_error(bench("clean", "--data-dir", "data"), "Use --yes")
    assert "every sample equals" in bench("verify", *common).stdout


def test_without_arguments_the_help_is_shown(bench) -> None:
    assert bench().stdout == bench("--help").stdout
    assert bench().returncode == 0


def test_a_terminal_without_unicode_ends_nothing(bench, tmp_path: Path) -> None:
    result = bench(*RUN, "--backend", "toy", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "epoch" in result.stdout


def test_the_result_is_shown_even_if_it_cannot_be_kept(bench_environment, tmp_path: Path) -> None:
    run = start(bench_environment, tmp_path, *RUN, "--backend", "toy-slow", "--json", "--epochs", "2", stdout=True)
    while not run.stderr.readline().startswith("epoch 0"):
        assert run.poll() is None
    (tmp_path / "results").write_text("in the way")
    shown, said = run.communicate(timeout=60)
    assert RunRecord.model_validate_json(shown).status == "ok"
    assert "Choose another --results" in said
    assert run.returncode == 1


def test_lists_say_what_is_usable(bench) -> None:
    backends = bench("list", "backends").stdout
    for name in ("filesystem", "hdf5", "memmap", "memory", "zarr", "toy"):
        assert name in backends
    assert "chunk" in backends
    assert "samples per chunk" in bench("list", "backends", "zarr").stdout
    assert "cifar10" in bench("list", "datasets").stdout
    one_line_error(bench("list", "backends", "zar"), "Did you mean zarr?")
    assert bench("list", "runs").returncode == 0


def test_runs_are_listed_shown_and_compared(bench, tmp_path: Path) -> None:
    assert bench(*RUN, "--backend", "toy").returncode == 0
    assert bench(*RUN, "--backend", "toy-raises").returncode == 1
    listed = bench("list", "runs").stdout
    assert "ok" in listed
    assert "failed" in listed
    name = next(line.split()[0] for line in listed.splitlines() if " ok " in line)
    assert "toy on toys (synthetic)" in bench("show", name).stdout
    assert json.loads(bench("show", name, "--json").stdout)["status"] == "ok"
    one_line_error(bench("show", "last"), "sample 5 cannot be read.")
    markdown = bench("table", "--each", "--format", "markdown").stdout
    # How much is in memory is the kernel's choice.
    row = r"\| toys \(synthetic\) \| cnn \| toy \|  \| as-is \(\d+% in memory\) \| 300 samples, batch 32, no workers"
    assert re.search(row, markdown)
    assert "1 run" in markdown
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench table -->\nold\n<!-- /bench table -->\nafter\n")
    assert bench("table", "--each", "--into", "README.md").returncode == 0
    assert readme.read_text() == f"before\n<!-- bench table -->\n{markdown.strip()}\n<!-- /bench table -->\nafter\n"


def test_help_of_every_command_has_an_example(bench) -> None:
    assert "bench run --backend zarr --dataset cifar10" in bench("--help").stdout
    for command in cli.app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"Example:  bench {name}" in CliRunner().invoke(cli.app, [name, "--help"]).stdout


def test_python_m_bench_is_the_same_command(bench_environment, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bench", "--version"],
        cwd=tmp_path,
        env=bench_environment,
        capture_output=True,
        text=True,
    )
    assert result.stdout.startswith("bench 0.")
