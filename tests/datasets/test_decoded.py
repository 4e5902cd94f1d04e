"""Decoding on all cores: in order, with every kind of trouble named, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import decoders
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contracts.source import SourceError
from bench.datasets import parallel
from bench.datasets.decoded import DecodedFiles, Decoding, Facts, File
from bench.datasets.parallel import DecoderError, in_order
from bench.datasets.trees import class_folders, files_below, shuffled, stratified


def decoded(folder: Path, contents: list[str], *, skip_bad: bool = False, each: int | None = 1) -> DecodedFiles:
    files = []
    for number, content in enumerate(contents):
        path = folder / f"{number:04d}.txt"
        path.write_text(content)
        files.append(File(str(path), number % 2))
    decoding = Decoding(
        decoders.text, (1,), "float32", ("numpy",), ("decoders",), each, (len) if each is None else None
    )
    return DecodedFiles(Facts("numbers", ("even", "odd"), "none", "local"), {"train": files}, decoding, skip_bad)


def read(data: DecodedFiles) -> tuple[list[float], list[int]]:
    blocks = list(data.samples("train"))
    return [v for b in blocks for v in b.x[:, 0].tolist()], [v for b in blocks for v in b.y.tolist()]


def test_results_come_in_order_and_from_several_processes() -> None:
    assert list(in_order(decoders.square, range(1000), group=7, preload=[])) == [n * n for n in range(1000)]
    pids = list(in_order(decoders.process_id, range(24), group=2, preload=[], workers=3))
    assert len(set(pids)) == 3
    assert os.getpid() not in pids


def test_nothing_to_do_is_done() -> None:
    assert list(in_order(decoders.square, [], group=5, preload=[])) == []


def test_results_larger_than_any_pipe_come_through() -> None:
    found = list(in_order(decoders.large, range(40), group=4, preload=["decoders"], workers=2))
    assert [int(x[0]) for x in found] == list(range(40))


def test_workers_end_with_whoever_reads(tmp_path: Path) -> None:
    with closing(in_order(decoders.process_id, range(10_000), group=1, preload=[], workers=2)) as results:
        pids = {next(results), next(results)}
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


def test_workers_do_not_outlive_a_killed_user(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import decoders
        from bench.datasets.parallel import in_order
        if __name__ == "__main__":
            for pid in in_order(decoders.process_id, range(100000), group=1, preload=[], workers=2):
                print(pid, flush=True)
    """)
    (tmp_path / "script.py").write_text(script)
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, text=True) as process:
        pids = {int(process.stdout.readline()) for _ in range(4)}
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert pids <= {member.pid for member in family}
    deadline = time.monotonic() + 20
    while any(m.is_running() and m.status() != psutil.STATUS_ZOMBIE for m in family):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_files_become_samples_in_order_with_their_labels(tmp_path: Path) -> None:
    contents = [str(number) for number in range(300)]
    x, y = read(decoded(tmp_path, contents))
    assert x == [float(number) for number in range(300)]
    assert y == [number % 2 for number in range(300)]


def test_a_file_may_give_several_samples(tmp_path: Path) -> None:
    data = decoded(tmp_path, ["1 2 3", "4", "5 6"], each=None)
    assert read(data) == ([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 0, 0])
    assert (data.schema("train").count, data.schema("train").exact) == (3, False)
    assert decoded(tmp_path, ["1", "2"]).schema("train").exact


@pytest.mark.parametrize(
    ("content", "reason"),
    [("bad", "it is bad"), ("crash", "crashed (SIGSEGV)"), ("exit", "crashed (exit code 3)")],
)
def test_a_bad_file_is_named_or_skipped(tmp_path: Path, content: str, reason: str) -> None:
    contents = [str(number) for number in range(50)]
    contents[21] = contents[40] = content
    with pytest.raises(SourceError) as caught:
        read(decoded(tmp_path, contents))
    assert f"{tmp_path}/0021.txt cannot be used: " in str(caught.value)
    assert reason in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    assert "\n" not in str(caught.value)
    data = decoded(tmp_path, contents, skip_bad=True)
    assert not data.schema("train").exact
    x, y = read(data)
    assert x == [float(n) for n in range(50) if n not in (21, 40)]
    assert y == [n % 2 for n in range(50) if n not in (21, 40)]
    assert [Path(file.file).name for file in data.skipped("train")] == ["0021.txt", "0040.txt"]
    assert all(reason in file.reason for file in data.skipped("train"))
    assert len(read(data)[0]) == 48
    assert len(data.skipped("train")) == 2


def test_only_bad_files_are_an_error_even_when_skipped(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="none of its 3 files can be decoded"):
        read(decoded(tmp_path, ["bad"] * 3, skip_bad=True))


def test_a_defect_is_not_taken_for_bad_data(tmp_path: Path) -> None:
    with pytest.raises(DecoderError, match="a defect"):
        read(decoded(tmp_path, ["1", "defect"], skip_bad=True))


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    data = decoded(tmp_path, ["1", "2"])
    assert data.has("train")
    assert not data.has("test")
    with pytest.raises(SourceError, match="numbers has no test samples here; it has: train"):
        data.schema("test")


def test_the_fingerprint_notices_what_changes_samples(tmp_path: Path) -> None:
    data = decoded(tmp_path, ["1", "2"])
    same = data.fingerprint()
    assert data.fingerprint() == same
    assert decoded(tmp_path, ["1", "2"], skip_bad=True).fingerprint() != same
    stat = (tmp_path / "0001.txt").stat()
    (tmp_path / "0001.txt").write_text("3")
    os.utime(tmp_path / "0001.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data.fingerprint() != same
    (tmp_path / "0001.txt").unlink()
    assert data.fingerprint() != same


@pytest.fixture
def done_alone(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The items that were given to a process of their own, which happens only after a crash."""
    items: list[object] = []
    alone = parallel._Worker.alone
    monkeypatch.setattr(parallel._Worker, "alone", lambda self, item: (items.append(item), alone(self, item))[1])
    return items


def test_only_the_group_of_a_crash_is_done_again(tmp_path: Path, done_alone: list[object]) -> None:
    files = []
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text("crash" if number == 12 else str(number))
        files.append(File(str(tmp_path / f"{number}.txt"), 0))
    results = list(in_order(decoders.text, files, group=5, preload=["decoders"], workers=2))
    assert [isinstance(result, SourceError) for result in results] == [number == 12 for number in range(60)]
    assert done_alone == files[10:15]


def test_a_bad_file_behind_what_is_wanted_is_never_heard_of(tmp_path: Path) -> None:
    contents = [str(number) for number in range(30)]
    contents[7] = "bad"
    assert len(next(decoded(tmp_path, contents).samples("train")).y) == 7
    data = decoded(tmp_path, contents, skip_bad=True)
    with closing(data.samples("train")) as blocks:
        assert len(next(blocks).y) == 7
        assert data.skipped("train") == ()
        next(blocks)
        assert len(data.skipped("train")) == 1


def test_the_fingerprint_notices_renamed_classes(tmp_path: Path) -> None:
    data = decoded(tmp_path, ["1", "2"])
    same = data.fingerprint()
    data.facts = Facts("numbers", ("even", "uneven"), "none", "local")
    assert data.fingerprint() != same


def test_interrupting_the_user_does_not_stop_a_worker(done_alone: list[object]) -> None:
    with closing(in_order(decoders.process_id, range(200), group=1, preload=[], workers=2)) as results:
        pid = next(results)
        os.kill(pid, signal.SIGINT)
        assert len(list(results)) == 199
    assert done_alone == []


def test_files_are_found_sorted_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.png", "a/x/y.jpg", "a/.hidden.png", ".git/z.png", "a/notes.txt", "c/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "c" / "broken.png").symlink_to(tmp_path / "nowhere")
    assert class_folders(tmp_path) == ["a", "b", "c"]
    found = [str(Path(path).relative_to(tmp_path)) for path in files_below(tmp_path, {".png", ".jpg"})]
    assert found == ["a/x/y.jpg", "b/10.png", "b/2.PNG", "c/1.png", "c/broken.png"]
    with pytest.raises(SourceError, match="nowhere"):
        class_folders(tmp_path / "nowhere")


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_a_stratified_division_is_one(sizes: list[int], fraction: float) -> None:
    by_class = {str(label): [(label, n) for n in range(size)] for label, size in enumerate(sizes)}
    first, second = stratified(by_class, fraction)
    assert stratified(by_class, fraction) == (first, second)
    assert sorted(first + second) == sorted(item for items in by_class.values() for item in items)
    for label, size in enumerate(sizes):
        count = sum(1 for item in second if item[0] == label)
        assert abs(count - size * fraction) <= 1
        assert size < 2 or 0 < count < size


def test_shuffling_is_fixed_and_mixes() -> None:
    items = list(range(1000))
    assert shuffled(items) == shuffled(items)
    assert sorted(shuffled(items)) == items
    assert 400 < np.mean(shuffled(items)[:200]) < 600
