"""Where what surrounds a command fails it, its runs are kept: closed streams, odd paths, users without a home."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from running import RUN

from bench.commands.places import PlaceError, places
from bench.records.record import ErrorInfo


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
