"""Limits on memory, in a tree of plain files that keeps the kernel's rules for cgroup v2."""

import errno
import os
import shutil
from pathlib import Path, PosixPath

import pytest

from bench.measure import cgroup
from bench.measure.cgroup import MemoryLimit, MemoryLimitError

MB = 1_000_000
FILES = {"cgroup.type": "domain\n", "cgroup.procs": "", "cgroup.subtree_control": ""}
MEMORY_FILES = {
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "memory.peak": "123456\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
}


class CgroupPath(PosixPath):
    """A path of a cgroup file system, by the kernel's documentation (Control Group v2)."""

    def words(self) -> list[str]:
        return self.read_text().split()

    def mkdir(self, *args, **kwargs) -> None:
        super().mkdir()
        available = (self.parent / "cgroup.subtree_control").read_text()
        memory = MEMORY_FILES if "memory" in available else {}
        for name, text in {**FILES, **memory, "cgroup.controllers": available}.items():
            PosixPath(self / name).write_text(text)

    def rmdir(self) -> None:
        if (self / "cgroup.procs").words() or any(entry.is_dir() for entry in self.iterdir()):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        shutil.rmtree(self)

    def write_text(self, text: str, *args, **kwargs) -> int:
        if self.name == "cgroup.procs":
            return self._move(text)
        if self.name == "cgroup.subtree_control":
            return self._enable(text)
        return super().write_text(text)

    def _move(self, pid: str) -> int:
        if not Path(f"/proc/{pid}").exists():
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if (self.parent / "cgroup.subtree_control").words():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        top = next(folder for folder in reversed(self.parents) if (folder / "cgroup.procs").exists())
        for procs in [top / "cgroup.procs", *top.rglob("cgroup.procs")]:
            PosixPath(procs).write_text("".join(f"{other}\n" for other in procs.words() if other != pid))
        return super().write_text(f"{self.read_text()}{pid}\n")

    def _enable(self, text: str) -> int:
        if text[1:] not in (self.parent / "cgroup.controllers").words():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        at_the_root = not (self.parent / "cgroup.type").exists()
        if text[0] == "+" and (self.parent / "cgroup.procs").words() and not at_the_root:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return super().write_text(text[1:] if text[0] == "+" else "")


class Tree:
    """A delegated cgroup ``/user.slice/a b`` with this process in it, and procfs to find it by."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cgroup, "Path", CgroupPath)
        monkeypatch.setattr(cgroup, "_GONE_AFTER_S", 0.0)
        self.proc = root / "proc"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/cgroup").write_text("0::/user.slice/a b\n")
        mount = str(root / "cgroup").replace(" ", r"\040")
        (self.proc / "self/mountinfo").write_text(
            "21 27 0:20 / /proc rw - proc proc rw\n"
            f"30 23 0:26 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
        )
        self.own = CgroupPath(root / "cgroup/user.slice/a b")
        PosixPath(self.own).mkdir(parents=True)
        for name, text in {**FILES, "cgroup.controllers": "cpu memory pids\n"}.items():
            PosixPath(self.own / name).write_text(text)
        (self.own / "cgroup.procs").write_text(str(os.getpid()))

    def limit(self) -> MemoryLimit:
        return MemoryLimit(300 * MB, proc=self.proc)

    def contents(self) -> dict[str, str]:
        return {str(path): path.read_text() for path in self.own.rglob("*") if path.is_file()}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path / "with a space", monkeypatch)


def test_a_process_is_limited_and_everything_is_as_before_afterwards(tree: Tree) -> None:
    before = tree.contents()
    with tree.limit() as limit:
        assert (limit.path / "memory.max").read_text() == "300000000"
        assert (limit.path / "memory.swap.max").read_text() == "0"
        assert limit.path.parent == tree.own
        assert (tree.own / "cgroup.subtree_control").words() == ["memory"]
        parent = str(os.getppid())
        limit.add(int(parent))
        assert (limit.path / "cgroup.procs").words() == [parent]
        assert limit.peak_bytes() == 123456
        (limit.path / "cgroup.procs").unlink()
        PosixPath(limit.path / "cgroup.procs").write_text("")
    assert tree.contents() == before


def test_two_limits_after_each_other_do_not_nest(tree: Tree) -> None:
    with tree.limit() as first:
        one = first.path
    with tree.limit() as second:
        assert second.path == one


def test_memory_that_is_shared_out_already_is_left_so(tree: Tree) -> None:
    PosixPath(tree.own / "cgroup.procs").write_text("")
    (tree.own / "cgroup.subtree_control").write_text("+memory")
    with tree.limit() as limit:
        assert [path.name for path in tree.own.iterdir() if path.is_dir()] == [limit.path.name]
    assert (tree.own / "cgroup.subtree_control").words() == ["memory"]


def test_the_root_of_the_hierarchy_keeps_its_processes(tree: Tree) -> None:
    (tree.own / "cgroup.type").unlink()
    (tree.own / "cgroup.procs").write_text("1")
    with tree.limit():
        assert (tree.own / "cgroup.procs").words() == [str(os.getpid()), "1"]


def test_what_an_old_kernel_does_not_tell_is_none(tree: Tree) -> None:
    with tree.limit() as limit:
        (limit.path / "memory.peak").unlink()
        assert limit.peak_bytes() is None


def test_other_processes_are_not_moved_about(tree: Tree) -> None:
    (tree.own / "cgroup.procs").write_text("1")
    before = tree.contents()
    with (
        pytest.raises(MemoryLimitError, match=r"holds other processes, too; .*systemd-run --user --scope"),
        tree.limit(),
    ):
        pass
    assert tree.contents() == before


def test_version_1_is_named(tree: Tree) -> None:
    (tree.proc / "self/cgroup").write_text("4:memory:/user\n1:name=systemd:/\n0::/user\n")
    with pytest.raises(MemoryLimitError, match="uses cgroup v1"), tree.limit():
        pass


def test_a_controller_that_is_not_delegated_is_named(tree: Tree) -> None:
    PosixPath(tree.own / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(MemoryLimitError, match=r"not delegated to .*Delegate=yes"), tree.limit():
        pass


@pytest.mark.parametrize("entry", ["", "0::/../elsewhere\n"])
def test_a_cgroup_that_cannot_be_seen_is_an_error(tree: Tree, entry: str) -> None:
    (tree.proc / "self/cgroup").write_text(entry)
    with pytest.raises(MemoryLimitError, match="no cgroup v2 of this process can be seen"), tree.limit():
        pass


@pytest.mark.parametrize("refused", ["mkdir", "write_text"])
def test_a_cgroup_that_may_not_be_changed_is_an_error(
    tree: Tree, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    before = tree.contents()
    monkeypatch.setattr(CgroupPath, refused, refuse)
    with pytest.raises(MemoryLimitError, match=r"Permission denied; start bench in"), tree.limit():
        pass
    assert tree.contents() == before


def test_a_process_that_is_gone_cannot_be_added(tree: Tree) -> None:
    with tree.limit() as limit, pytest.raises(MemoryLimitError, match="No such process"):
        limit.add(2**22 + 1)


def test_processes_left_behind_are_reported_but_hide_no_other_error(tree: Tree) -> None:
    with pytest.raises(MemoryLimitError, match="end its processes"), tree.limit() as limit:
        limit.add(os.getppid())
    (limit_folder,) = (path for path in tree.own.iterdir() if path.name.startswith("bench-limit"))
    shutil.rmtree(limit_folder)

    def fail() -> None:
        with tree.limit() as limit:
            limit.add(os.getppid())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
