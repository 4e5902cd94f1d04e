from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import test_download
from test_download import Mirror, Recorder, unused_url

from bench.contracts.source import (
    Archived,
    Origin,
    Progress,
    RawData,
    SampleBlock,
    Schema,
    SilentProgress,
    SourceError,
    SourceRequest,
    SourceUnavailableError,
    Split,
)
from bench.datasets.download import Remote
from bench.datasets.extraction import Limits
from bench.datasets.published import Packed, Published

serve = test_download.serve

LEAVES = {f"leaf-set/leaves/{n}.leaf": random.Random(n).randbytes(100 + n) for n in range(30)}
LABELS = {"leaf-set/labels.txt": b"oak\nelm\n"}
OTHERS = {"leaf-set/readme.txt": b"read me"}
PARTS = {"leaves.zip": {**OTHERS, **LEAVES}, "labels.zip": LABELS}
EVERYTHING = {name.removeprefix("leaf-set/"): data for name, data in {**LEAVES, **LABELS, **OTHERS}.items()}
UNPACKED = {name: data for name, data in EVERYTHING.items() if name != "readme.txt"}


class Leaves(RawData):
    """What was opened: the tests look into the folder themselves."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self.folder = folder
        self.origin = origin

    def fingerprint(self) -> str:
        return str(self.folder)

    def schema(self, split: Split) -> Schema:
        return Schema("leaf", split, 1, (1,), "uint8", ("oak", "elm"), "none", self.origin)

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        yield SampleBlock(np.zeros((1, 1), np.uint8), np.zeros(1, np.int64))


class Leaf(Published):
    """A set of two archives: the leaves, and their labels."""

    name: ClassVar[str] = "leaf"
    splits: ClassVar[tuple[Split, ...]] = ("train",)
    folders: ClassVar[tuple[str, ...]] = ("leaf-set", "leaf-set-master")
    licence: ClassVar[str] = "MIT"
    limits: ClassVar[Limits] = Limits(100, 10_000, 100_000)
    archives: ClassVar[tuple[Remote, ...]] = ()

    def wanted(self, member: str) -> bool:
        return not member.endswith("readme.txt")

    def is_root(self, folder: Path) -> bool:
        return (folder / "labels.txt").is_file() and (folder / "leaves").is_dir()

    def open_folder(self, folder: Path, origin: Origin) -> RawData:
        return Leaves(folder, origin)

    def imitate(self) -> RawData:
        return Leaves(Path("imitated"), "synthetic")


def packed(content: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in content.items():
            archive.writestr(zipfile.ZipInfo(name), part)
    return data.getvalue()


BYTES = {name: packed(content) for name, content in PARTS.items()}
REMOTES = (
    Remote("leaves.zip", (), md5=hashlib.md5(BYTES["leaves.zip"]).hexdigest()),
    Remote("labels.zip", (), sha256=hashlib.sha256(BYTES["labels.zip"]).hexdigest()),
)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of whoever runs the tests may be busy."""
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leaf, "archives", REMOTES)


def lay_out(folder: Path) -> Path:
    for name, data in EVERYTHING.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def put(folder: Path, *names: str) -> Path:
    """Put the archives into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or BYTES:
        (folder / name).write_bytes(BYTES[name])
    return folder


def found(place: Path, *, official_only: bool = False) -> Any:
    return Leaf().locate(place, official_only=official_only)


def unpacked(place: Path, cache: Path, *, official_only: bool = False) -> Leaves:
    archives = found(place, official_only=official_only)
    assert isinstance(archives, Archived)
    data = archives.unpacked(cache, SilentProgress())
    assert isinstance(data, Leaves)
    return data


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what shows whether a file was written again."""
    return {str(path): (path.stat().st_ino, path.stat().st_ctime_ns) for path in folder.rglob("*")}


def raw(cache: Path) -> list[str]:
    """Return what is in the folder of unpacked sets, but locks."""
    return sorted(path.name for path in (cache / "raw").iterdir() if not path.name.endswith(".lock"))


# Where the set is found


@pytest.mark.parametrize(
    "where", ["", "leaf", "leaf-set", "leaf-set-master", "leaf/leaf-set", "leaf-set/leaf", "leaf/leaf-set-master"]
)
def test_a_folder(tmp_path: Path, where: str) -> None:
    lay_out(tmp_path / where)
    data = found(tmp_path)
    assert (data.folder, data.origin) == (tmp_path / where, "local")
    assert found(tmp_path, official_only=True) is None, "a folder proves nothing"


def test_nothing(tmp_path: Path) -> None:
    lay_out(tmp_path / "some" / "where" / "else")
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file", tmp_path / "none"):
        assert found(place) is None
        assert found(place, official_only=True) is None


@pytest.mark.parametrize("official_only", [False, True])
@pytest.mark.parametrize("where", ["", "leaf", "downloads"])
def test_archives(tmp_path: Path, where: str, official_only: bool) -> None:
    put(tmp_path / "place" / where)
    data = unpacked(tmp_path / "place", tmp_path / "cache", official_only=official_only)
    assert data.origin == "official"
    assert content(data.folder) == UNPACKED
    assert data.folder.is_relative_to(tmp_path / "cache" / "raw")
    assert content(tmp_path / "place").keys() == {str(Path(where) / name) for name in BYTES}, (
        "that place stays as it is"
    )


@pytest.mark.parametrize("name", BYTES)
def test_an_archive_by_its_own_path(tmp_path: Path, name: str) -> None:
    put(tmp_path / "place")
    assert content(unpacked(tmp_path / "place" / name, tmp_path / "cache").folder) == UNPACKED
    (tmp_path / "place" / "other.zip").write_bytes(packed(LABELS))
    assert found(tmp_path / "place" / "other.zip") is None


def test_a_folder_goes_before_archives(tmp_path: Path) -> None:
    put(lay_out(tmp_path))
    assert found(tmp_path).folder == tmp_path
    assert isinstance(found(tmp_path, official_only=True), Packed)


def test_finding_archives_has_no_effect(tmp_path: Path) -> None:
    put(tmp_path)
    before = state(tmp_path)
    assert isinstance(found(tmp_path), Packed)
    assert state(tmp_path) == before


@pytest.mark.parametrize("where", ["", "leaf"])
def test_one_archive_of_two(tmp_path: Path, where: str) -> None:
    folder = put(tmp_path / where, "leaves.zip")
    message = f"{folder} lacks labels.zip: leaf is all of its archives together. Add the others."
    for place in (tmp_path, folder / "leaves.zip"):
        with pytest.raises(SourceError) as caught:
            found(place)
        assert str(caught.value) == message
    assert found(tmp_path, official_only=True) is None


def test_a_download_that_was_broken_off_is_no_error(tmp_path: Path) -> None:
    """The other archive has yet to come."""
    put(tmp_path / "downloads", "leaves.zip")
    assert found(tmp_path) is None
    assert found(tmp_path, official_only=True) is None


def test_a_set_without_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leaf, "archives", ())
    assert found(tmp_path) is None


# Unpacking


def test_unpacked_only_once(tmp_path: Path) -> None:
    put(tmp_path)
    first = unpacked(tmp_path, tmp_path / "cache")
    before = state(first.folder)
    assert len(before) > len(LEAVES)
    second = unpacked(tmp_path, tmp_path / "cache")
    third = unpacked(tmp_path, tmp_path / "cache", official_only=True)
    assert [data.folder for data in (second, third)] == [first.folder] * 2
    assert state(first.folder) == before
    assert [data.origin for data in (first, second, third)] == ["official"] * 3
    assert len(raw(tmp_path / "cache")) == 1


def test_a_changed_archive(tmp_path: Path) -> None:
    put(tmp_path)
    first = unpacked(tmp_path, tmp_path / "cache")
    (tmp_path / "labels.zip").write_bytes(packed({"leaf-set/labels.txt": b"fir\n"}))
    second = unpacked(tmp_path, tmp_path / "cache")
    assert second.folder != first.folder
    assert second.origin == "local"
    assert content(second.folder) == {**UNPACKED, "labels.txt": b"fir\n"}
    third = unpacked(tmp_path, tmp_path / "cache")
    assert (third.folder, third.origin) == (second.folder, "local")


def test_a_replaced_archive_of_the_same_size_and_time(tmp_path: Path) -> None:
    put(tmp_path)
    first = unpacked(tmp_path, tmp_path / "cache")
    path = tmp_path / "labels.zip"
    times = path.stat()
    changed = BYTES["labels.zip"].replace(b"leaf-set/labels.txt", b"leaf-set/lapels.txt")
    path.write_bytes(changed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    with pytest.raises(SourceError, match="does not hold leaf: no folder in there has its layout"):
        unpacked(tmp_path, tmp_path / "cache")
    assert first.folder.is_dir()


@pytest.mark.parametrize("before", [False, True], ids=["at once", "after it was used as local data"])
@pytest.mark.parametrize("name", BYTES)
def test_official_data_must_be_the_published(tmp_path: Path, name: str, before: bool) -> None:
    put(tmp_path)
    path = tmp_path / name
    path.write_bytes(packed({**PARTS[name], "leaf-set/more.txt": b"more"}))
    if before:
        assert unpacked(tmp_path, tmp_path / "cache").origin == "local"
    with pytest.raises(SourceError) as caught:
        unpacked(tmp_path, tmp_path / "cache", official_only=True)
    remote = next(remote for remote in REMOTES if remote.name == name)
    known = remote.digest_name
    changed = hashlib.new(known, path.read_bytes()).hexdigest()
    assert str(caught.value) == (
        f"{path} is not the published archive: its {known} is {changed}, not {remote.digest}. Delete it and run again."
    )
    assert len(raw(tmp_path / "cache")) == before
    assert unpacked(tmp_path, tmp_path / "cache").origin == "local"


def test_an_official_archive_that_changed_since_it_was_downloaded(tmp_path: Path) -> None:
    (put(tmp_path) / "leaves.zip.sha256").write_text(f"{'0' * 64}  leaves.zip\n")
    with pytest.raises(
        SourceError, match=r"leaves\.zip is not the published archive: it has changed since it was down"
    ):
        unpacked(tmp_path, tmp_path / "cache", official_only=True)
    assert unpacked(tmp_path, tmp_path / "cache").origin == "local"


def test_archives_of_something_else(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "labels.zip").write_bytes(packed({"other/thing": b""}))
    with pytest.raises(SourceError) as caught:
        unpacked(tmp_path, tmp_path / "cache")
    names = f"{tmp_path / 'leaves.zip'} and {tmp_path / 'labels.zip'}"
    assert str(caught.value).startswith(f"{names} does not hold leaf: no folder in there has its layout.")


@pytest.mark.parametrize("name", BYTES)
def test_a_failed_unpacking_leaves_nothing(tmp_path: Path, name: str) -> None:
    put(tmp_path)
    data = bytearray(BYTES[name])
    data[data.index(b"PK\1\2") - 3] ^= 1  # in the packed bytes of the last member
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"{name} is damaged or truncated"):
        unpacked(tmp_path, tmp_path / "cache")
    assert raw(tmp_path / "cache") == []
    put(tmp_path)
    assert content(unpacked(tmp_path, tmp_path / "cache").folder) == UNPACKED


@pytest.mark.parametrize("when", [1, 10, 31])
def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path, when: int) -> None:
    class Interrupting(Recorder):
        def advance(self, count: int) -> None:
            super().advance(count)
            if sum(task[3] for task in self.tasks) >= when:
                raise KeyboardInterrupt

    put(tmp_path)
    progress = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path).unpacked(tmp_path / "cache", progress)
    assert progress.tasks[-1][4] == "finished"
    assert raw(tmp_path / "cache") == []
    assert content(unpacked(tmp_path, tmp_path / "cache").folder) == UNPACKED


CHILD = """
    import os, sys
    from pathlib import Path
    sys.path[:0] = [sys.argv[1]]
    from bench.contracts.source import SilentProgress
    import test_published as tests

    class Suicidal(SilentProgress):
        def advance(self, count):
            if sys.argv[4] == "die":
                os.kill(os.getpid(), 9)

    os.sync = lambda: None
    tests.Leaf.archives = tests.REMOTES
    data = tests.found(Path(sys.argv[2])).unpacked(Path(sys.argv[3]), Suicidal())
    assert tests.content(data.folder) == tests.UNPACKED
    print(data.folder)
"""


def start_child(place: Path, cache: Path, order: str) -> subprocess.Popen[str]:
    arguments = [str(Path(__file__).parent), str(place), str(cache), order]
    code = textwrap.dedent(CHILD)
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def test_what_a_killed_unpacking_leaves_is_removed(tmp_path: Path) -> None:
    put(tmp_path)
    child = start_child(tmp_path, tmp_path / "cache", "die")
    assert child.communicate(timeout=60)[0] == ""
    assert child.returncode == -9
    (leftover,) = raw(tmp_path / "cache")
    assert leftover.endswith(f".part-{child.pid}")
    assert content(tmp_path / "cache" / "raw" / leftover), "it had begun"
    data = unpacked(tmp_path, tmp_path / "cache")
    assert content(data.folder) == UNPACKED
    assert raw(tmp_path / "cache") == [leftover.partition(".")[0]]


def test_leftovers_of_other_sets_are_not_touched(tmp_path: Path) -> None:
    other = tmp_path / "cache" / "raw" / f"leaf-{'0' * 16}.part-1"
    other.mkdir(parents=True)
    unpacked(put(tmp_path), tmp_path / "cache")
    assert other.is_dir(), "it may be somebody's right now"


def test_processes_at_once(tmp_path: Path) -> None:
    put(tmp_path)
    children = [start_child(tmp_path, tmp_path / "cache", "live") for _ in range(3)]
    told = {child.communicate(timeout=60)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(told) == 1
    assert len(raw(tmp_path / "cache")) == 1


def test_threads_at_once(tmp_path: Path) -> None:
    put(tmp_path)
    at_once = threading.Barrier(4)
    folders, counted = [], []

    class Counting(SilentProgress):
        def start(self, label: str, total: int | None, unit: str) -> None:
            counted.append(label)

    def work() -> None:
        archives = found(tmp_path)
        at_once.wait(10)
        folders.append(archives.unpacked(tmp_path / "cache", Counting()).folder)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert sorted(counted) == ["unpacking labels.zip", "unpacking leaves.zip"]
    assert content(folders[0]) == UNPACKED


def test_a_cache_that_lost_something(tmp_path: Path) -> None:
    """Whoever cleans up by hand may remove anything."""
    put(tmp_path)
    folder = unpacked(tmp_path, tmp_path / "cache").folder
    (target,) = (tmp_path / "cache" / "raw").glob("leaf-*")
    (target / "origin").unlink()
    (folder / "labels.txt").unlink()
    assert content(unpacked(tmp_path, tmp_path / "cache").folder) == UNPACKED


def test_an_archive_that_is_gone_by_the_time(tmp_path: Path) -> None:
    archives = found(put(tmp_path))
    (tmp_path / "labels.zip").unlink()
    with pytest.raises(SourceError) as caught:
        archives.unpacked(tmp_path / "cache", SilentProgress())
    assert str(caught.value) == (
        f"leaf cannot be unpacked: {tmp_path / 'labels.zip'}: No such file or directory. Check the data folder."
    )


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "cache").write_text("")
    with pytest.raises(
        SourceError, match=r"^leaf cannot be unpacked: .*cache.*: (Not a directory|File exists)\. Check"
    ):
        unpacked(tmp_path, tmp_path / "cache")


# Downloading


@pytest.fixture
def mirrors(serve: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch) -> list[Mirror]:
    """Servers that offer the archives, in their order."""
    started = [serve(data=BYTES[remote.name]) for remote in REMOTES]
    remotes = [replace(remote, mirrors=(mirror.url,)) for remote, mirror in zip(REMOTES, started, strict=True)]
    monkeypatch.setattr(Leaf, "archives", tuple(remotes))
    return started


def prepared(cache: Path, kind: Any, progress: Progress | None = None) -> Leaves:
    source = Leaf(SourceRequest(kind, search=(cache,)))
    source.prepare(cache, progress)
    assert isinstance(source.data, Leaves)
    return source.data


@pytest.mark.parametrize("kind", ["auto", "official"])
def test_fetched_unpacked_and_opened(tmp_path: Path, mirrors: list[Mirror], kind: str) -> None:
    progress = Recorder()
    data = prepared(tmp_path, kind, progress)
    assert data.origin == "official"
    assert content(data.folder) == UNPACKED
    assert progress.log == [
        "Licence of leaf: MIT",
        "downloading leaves.zip",
        "downloading labels.zip",
        "unpacking leaves.zip",
        "unpacking labels.zip",
    ]
    before, asked = state(data.folder), [list(mirror.asked) for mirror in mirrors]
    progress = Recorder()
    again = prepared(tmp_path, kind, progress)
    assert (again.folder, again.origin) == (data.folder, "official")
    assert state(data.folder) == before
    assert [mirror.asked for mirror in mirrors] == asked, "the network is not needed any more"
    assert progress.log == []


def test_fetched_again_by_itself(tmp_path: Path, mirrors: list[Mirror]) -> None:
    first = Leaf().fetch(tmp_path, SilentProgress())
    second = Leaf().fetch(tmp_path, SilentProgress())
    assert isinstance(first, Leaves)
    assert isinstance(second, Leaves)
    assert first.folder == second.folder
    assert [len(mirror.asked) for mirror in mirrors] == [2, 2]


def test_a_download_goes_on_where_it_broke_off(
    tmp_path: Path, mirrors: list[Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = Leaf.archives
    monkeypatch.setattr(Leaf, "archives", (complete[0], replace(complete[1], mirrors=(unused_url(),))))
    progress = Recorder()
    assert prepared(tmp_path, "auto", progress).origin == "synthetic"
    with pytest.raises(SourceUnavailableError, match=r"labels\.zip cannot be downloaded"):
        prepared(tmp_path, "official")
    monkeypatch.setattr(Leaf, "archives", complete)
    assert content(prepared(tmp_path, "auto").folder) == UNPACKED
    assert mirrors[0].asked == ["HEAD", "GET"]


def test_offline_nothing_is_told_of_a_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leaf, "archives", tuple(replace(remote, mirrors=(unused_url(),)) for remote in REMOTES))
    progress = Recorder()
    assert prepared(tmp_path, "auto", progress).origin == "synthetic"
    assert len(progress.notes) == 1
    assert progress.notes[0].startswith("SYNTHETIC DATA: leaves.zip cannot be downloaded")


def test_what_is_not_offered_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrors: list[Mirror]) -> None:
    monkeypatch.setattr(Leaf, "unavailable", "leaf is gone: ask its author.")
    with pytest.raises(SourceUnavailableError, match=r"^leaf is gone: ask its author\. Put it into"):
        prepared(tmp_path, "official")
    assert [mirror.asked for mirror in mirrors] == [[], []]
    put(tmp_path / "leaf")
    assert prepared(tmp_path, "official").origin == "official"
