"""Where what surrounds a command fails it, its runs are kept: closed streams, odd paths, users without a home."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from running import RUN

from bench import console
from bench.commands.places import PlaceError, places
from bench.records.record import ErrorInfo

BENCH = Path(sys.executable).with_name("bench")


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_bytes()) for path in folder.glob("*.json")]


def test_a_path_that_is_no_text_loses_no_run(bench, tmp_path: Path) -> None:
    folder = os.fsdecode(b"odd\xff")
    result = bench(*RUN, "--backend", "toy", "--model", "none", "--epochs", "1", "--results", folder)
    assert result.returncode == 0, result.stderr
    (record,) = records(tmp_path / folder)
    assert record["environment"]["command"][-1] == "odd\\udcff"


def test_a_message_that_is_no_text_can_be_kept() -> None:
    error = ErrorInfo(phase="prepare", type="StoreError", message="odd\udcff", last_lines=["\udcff"])
    assert ErrorInfo.model_validate_json(error.model_dump_json()) == error
    assert (error.message, error.last_lines) == ("odd\\udcff", ["\\udcff"])


@pytest.mark.parametrize(
    "ending", ["2>&1 | head -1", ">&- 2>&-", "<&- >&- 2>&-", "2>&-"], ids=["pipe", "both", "all", "stderr"]
)
def test_a_run_that_nobody_hears_has_its_record(bench_environment, tmp_path: Path, ending: str) -> None:
    command = f"'{BENCH}' {' '.join(RUN)} --backend toy --model none --epochs 2 {ending}"
    heard = subprocess.run(command, shell=True, cwd=tmp_path, env=bench_environment, capture_output=True, check=False)
    (record,) = records(tmp_path / "results")
    assert record["status"] == "ok"
    assert b"Traceback" not in heard.stdout + heard.stderr
    # Only in a pipe somebody has ended early what was to be shown.
    assert ("|" in ending) or heard.returncode == 0


def test_a_terminal_that_was_closed_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        console.say("nobody hears it")
        progress = console.TerminalProgress()
        progress.note("nor this")
        progress.start("work", 10, "samples")
        progress.advance(5)
        progress.finish()
        console.say("nor that")


def test_a_user_without_a_home_names_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(_: object) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "BENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert places(tmp_path).search == (tmp_path,)
    with pytest.raises(PlaceError, match="This user has no home folder: name one for data with --data-dir"):
        places(None)
    with pytest.raises(PlaceError, match="~nosuchuser/x: there is no such user"):
        places(Path("~nosuchuser/x"))
