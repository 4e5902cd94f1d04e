"""Documents that commands write from committed records are up to date, and tell nothing of where they were made."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import console
from bench.cli import app
from bench.records import results
from bench.records.record import read_record
from bench.report import document

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference"
MATRIX = REFERENCE / "matrix"


def test_tables_picture_and_advice_are_what_the_records_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = subprocess.run(["make", "-n", "bench-docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = told.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith(".venv/bin/bench") and "$(" not in line]
    assert {command[0] for command in commands} == {"table", "chart", "advise", "folds"}
    shutil.copytree(ROOT / "results", tmp_path / "results")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.exception
    for name in ("README.md", "results/README.md", "docs/studies.md", "results/reference/waiting.svg"):
        assert Path(name).read_text() == (ROOT / name).read_text(), "run `make bench-docs`"


def test_the_example_is_a_record() -> None:
    text = (ROOT / "README.md").read_text()
    record = read_record(sorted(REFERENCE.glob("*-cifar10-zarr-cnn-*.json"))[-1])
    assert document.between_markers(text, "bench show", console.plain([record])) == text, "run `make bench-docs`"


def test_the_comparisons_are_what_their_records_say(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    copy = tmp_path / "README.md"
    copy.write_text(text)
    identities = re.findall(r"^<!-- bench compare (\S+) -->$", text, re.MULTILINE)
    assert len(identities) == 2
    for identity in identities:
        again = ["compare", "--recorded", identity, "--results", str(REFERENCE / "compare"), "--anyway"]
        assert CliRunner().invoke(app, [*again, "--into", str(copy)]).exit_code == 0
    assert copy.read_text() == text, "run `make bench-docs`"


@pytest.mark.parametrize("suite", sorted(REFERENCE.glob("*.toml")), ids=lambda path: path.stem)
def test_committed_suites_can_be_planned(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = CliRunner().invoke(app, ["matrix", str(suite), "--dry-run"])
    assert planned.exit_code == 0, planned.exception
    assert "cells, " in planned.stdout


@pytest.mark.parametrize("folder", ["", "compare", "gpu", "matrix", "studies"])
def test_committed_records_are_complete_runs_on_verified_data(folder: str) -> None:
    found, errors = results.read_all(REFERENCE / folder)
    assert errors == []
    for path, record in found:
        assert "/work" not in path.read_text()
        assert "/tmp" not in path.read_text()
        assert record.status == "ok"
        assert record.store.digest_ok
        assert record.data.checked_samples
        assert "/" not in record.spec.source


def test_committed_runs_on_the_same_data_have_the_same_losses() -> None:
    """Bit for bit on one machine; another one, whose processor adds in another order, differs in the last digits."""
    works: dict[tuple[str, str, int], dict[tuple[str, str], list[list[float]]]] = {}
    for _, record in results.read_all(MATRIX)[0]:
        work = works.setdefault((record.data.digest, record.spec.model, record.spec.batch_size), {})
        losses = [loss for epoch in record.epochs for loss in epoch.batch_loss]
        work.setdefault((record.environment["kernel"], record.environment["bench"]), []).append(losses)
    assert max(len(found) for work in works.values() for found in work.values()) > 1
    for work in works.values():
        for found in work.values():
            shortest = min(map(len, found))
            assert all(losses[:shortest] == found[0][:shortest] for losses in found)
        firsts = [found[0][0] for found in work.values()]
        assert firsts == pytest.approx([firsts[0]] * len(firsts), rel=1e-6)
