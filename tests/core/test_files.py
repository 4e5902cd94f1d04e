"""Files that are written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.files import OutputError, remove_parts, remove_parts_of, require_place, write_text


def test_a_file_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("before")
    write_text(path, "a lone \ud800 surrogate")
    assert path.read_text() == "a lone \\ud800 surrogate"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    path.write_text("before")

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one_and_the_file_is_where_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    link = tmp_path / "latest.pt"
    link.symlink_to("big/own.pt")
    require_place(link)
    for text in ("new", "replaced"):
        write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "big" / "own.pt").read_text() == text
    link.unlink()
    link.symlink_to("nowhere/own.pt")
    with pytest.raises(OutputError, match="there is no folder"):
        require_place(link)


def test_what_the_dead_were_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (
        f".x[1].pt.part-{gone.pid}",
        f".y.part-{gone.pid}",
        ".x[1].pt.part-old",
        f".x[1].pt.part-{os.getpid()}",
    ):
        (tmp_path / name).touch()
    remove_parts_of(tmp_path / "x[1].pt")
    assert not (tmp_path / f".x[1].pt.part-{gone.pid}").exists()
    assert len(list(tmp_path.iterdir())) == 3
    remove_parts(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_place_that_cannot_take_a_file_is_told_before_any_work(tmp_path: Path) -> None:
    for place, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "x", "there is no folder"),
        (Path("/dev/null"), "ordinary"),
    ):
        with pytest.raises(OutputError, match=words):
            require_place(place)
    require_place(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_what_a_name_shows_to_be_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "paper.tex"
    mine.write_text("years of work")
    with pytest.raises(
        OutputError, match=r"^--csv .*paper\.tex is there already, and is not replaced .* end in \.csv\."
    ):
        require_place(mine, "--csv", (".csv",))
    for name, content in (("old.csv", "a,b"), ("OLD.CSV", "a,b"), ("empty.txt", "")):
        (tmp_path / name).write_text(content)
        require_place(tmp_path / name, "--csv", (".csv",))
    require_place(tmp_path / "new.txt", "--csv", (".csv",))
