"""The page cache against known acts, and against what the kernel counts as read from storage."""

import ctypes
import errno
import mmap
import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.measure import file_systems, mounts, page_cache
from bench.measure.file_systems import PageCount, block_device
from bench.measure.mounts import Mount, mount_of
from bench.measure.page_cache import Brought, PageCache, PageCacheError, judge

PAGE = mmap.PAGESIZE
SIZE = 2000 * PAGE + 17
NOBODY = 65534
SHM = Path("/dev/shm")


class NoCachestat:
    """A C library above a kernel without cachestat."""

    def __init__(self) -> None:
        self._libc = file_systems._libc()

    def __getattr__(self, name: str) -> object:
        return getattr(self._libc, name)

    def syscall(self, *_: object) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of one file that was just written, on a disk."""
    mount = mount_of(tmp_path)
    if mount is None or mount.type not in file_systems.ON_DISK:
        pytest.skip("needs a temporary folder on ext4, xfs or btrfs: see pytest --basetemp")
    root = tmp_path / "data"
    root.mkdir()
    (root / "file").write_bytes(os.urandom(SIZE))
    return root


def kernel_has_cachestat() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(451, -1, None, None, 0) == -1
    return ctypes.get_errno() == errno.EBADF


@pytest.fixture(params=["cachestat", "mincore"])
def cache(request: pytest.FixtureRequest, store: Path, monkeypatch: pytest.MonkeyPatch) -> PageCache:
    """The page cache of the store by either probe."""
    if request.param == "mincore":
        without = NoCachestat()
        monkeypatch.setattr(file_systems, "_libc", lambda: without)
    elif not kernel_has_cachestat():
        pytest.skip("needs cachestat: Linux 6.5, and no container that forbids it")
    cache = PageCache(store)
    assert (cache.probe, cache.reason) == (request.param, None)
    return cache


@pytest.fixture
def shm() -> Iterator[Path]:
    mount = mount_of(SHM) if SHM.exists() else None
    if mount is None or mount.type != "tmpfs":
        pytest.skip("needs a tmpfs at /dev/shm")
    folder = SHM / f"bench-test-{os.getpid()}"
    (folder / "data").mkdir(parents=True)
    (folder / "data/file").write_bytes(b"x" * SIZE)
    yield folder / "data"
    (folder / "data/file").unlink()
    (folder / "data").rmdir()
    folder.rmdir()


def read_from_storage(*paths: Path) -> int:
    """Read files and return what the kernel says came from the disk, in bytes."""

    def counted() -> int:
        return int(Path("/proc/self/io").read_text().split("\nread_bytes: ")[1].split()[0])

    before = counted()
    for path in paths:
        path.read_bytes()
    return counted() - before


def map_and_touch(path: str, ready, done) -> None:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        sum(mapped[::PAGE])
        ready.set()
        done.wait()


def on(type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "mount_of", lambda *_: Mount("0:9", type_, "somewhere", ()))


def test_a_file_just_written_becomes_cold_and_is_then_read_from_storage(cache: PageCache, store: Path) -> None:
    found = cache.residency()
    assert (found.size_bytes, found.page_count, found.resident_pages) == (SIZE, 2001, 2001)
    assert found.dirty_pages in ({"cachestat": range(1, 2002), "mincore": [None]}[cache.probe])
    assert cache.bring("cold") == Brought("cold", "verified", 0.0, None, page_cache.METADATA_STAYS)
    assert cache.residency().resident_pages == 0
    assert read_from_storage(store / "file") >= SIZE


def test_warm_is_read_from_memory_and_is_not_read_again(
    cache: PageCache, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.bring("cold")
    brought = cache.bring("warm")
    assert (brought.achieved, brought.reason, brought.note) == ("verified", None, None)
    assert brought.fraction >= 0.99
    assert read_from_storage(store / "file") < 0.01 * SIZE
    assert cache.bring("warm").achieved == "verified"
    monkeypatch.setattr(os, "readv", lambda *_: pytest.fail("read again"))
    assert cache.bring("warm").fraction == 1


def test_a_quarter_that_was_read_is_a_quarter_in_memory(cache: PageCache, store: Path) -> None:
    cache.bring("cold")
    with (store / "file").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.read(SIZE // 4)
    assert cache.residency().fraction == pytest.approx(0.25, abs=0.01)
    assert cache.bring("as-is") == Brought("as-is", None, cache.residency().fraction, None)
    assert cache.residency().fraction == pytest.approx(0.25, abs=0.01)


def test_what_another_process_has_mapped_and_touched_does_not_become_cold(cache: PageCache, store: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=map_and_touch, args=(str(store / "file"), ready, done))
    process.start()
    try:
        assert ready.wait(60)
        brought = cache.bring("cold")
    finally:
        done.set()
        process.join()
    assert brought.achieved == "not-achieved"
    assert brought.fraction > 0.9
    assert "of the store stayed in memory: some process has it open or mapped" in brought.reason
    assert cache.bring("cold").achieved == "verified"


def test_what_is_mapped_but_untouched_becomes_cold(cache: PageCache, store: Path) -> None:
    with (store / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert cache.bring("cold").achieved == "verified"


def test_one_page_of_each_small_file_is_not_cold(cache: PageCache, store: Path) -> None:
    (store / "file").unlink()
    maps = []
    for number in range(20):
        (store / str(number)).write_bytes(b"x" * (PAGE + 100))
        with (store / str(number)).open("rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            maps.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
            maps[-1].madvise(mmap.MADV_RANDOM)
            assert maps[-1][PAGE] == ord("x")
    brought = cache.bring("cold")
    for mapped in maps:
        mapped.close()
    assert (brought.achieved, brought.fraction) == ("not-achieved", 0.5)
    assert cache.bring("cold").fraction == 0


def test_folders_links_and_odd_files(cache: PageCache, store: Path, tmp_path: Path) -> None:
    (store / "a/b").mkdir(parents=True)
    (store / "a/b/deep").write_bytes(b"x" * PAGE)
    (store / "empty").touch()
    (tmp_path / "elsewhere").write_bytes(b"x" * 2 * PAGE)
    (store / "link").symlink_to(tmp_path / "elsewhere")
    (store / "dangling").symlink_to(tmp_path / "nothing")
    (store / "loop").symlink_to(store)
    os.mkfifo(store / "fifo")
    found = cache.residency()
    assert (found.size_bytes, found.page_count, found.resident_pages) == (SIZE + 3 * PAGE, 2004, 2004)
    assert cache.bring("cold").fraction == 0
    assert read_from_storage(tmp_path / "elsewhere", store / "a/b/deep") >= 3 * PAGE


def test_an_empty_store_is_both(tmp_path: Path, store: Path) -> None:
    (store / "file").unlink()
    cache = PageCache(store)
    assert cache.residency().fraction == 0
    assert cache.bring("cold").achieved == cache.bring("warm").achieved == "verified"


def test_mincore_counts_large_files_in_pieces(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PageCache(store).bring("cold")
    monkeypatch.setattr(file_systems, "_PIECE_BYTES", 3 * PAGE)
    with (store / "file").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.seek(990 * PAGE)
        file.read(100 * PAGE)
        assert file_systems.PROBES["mincore"](file.fileno(), SIZE) == PageCount(100, None)
        file.seek(2000 * PAGE)
        file.read()
        assert file_systems.PROBES["mincore"](file.fileno(), SIZE) == PageCount(101, None)


def test_files_in_memory_cannot_become_cold(shm: Path) -> None:
    cache = PageCache(shm)
    brought = cache.bring("cold")
    assert (brought.achieved, brought.fraction) == ("impossible", 1)
    assert "tmpfs live in memory" in brought.reason
    assert cache.bring("warm").achieved == "verified"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount an overlay")
def test_on_an_overlay_where_cachestat_sees_nothing_mincore_is_taken(store: Path, tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    folders = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    command = ["mount", "-t", "overlay", "overlay", "-o", folders, tmp_path / "merged"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount an overlay, which this system does not allow")
    try:
        root = tmp_path / "merged/data"
        root.mkdir()
        (root / "file").write_bytes(b"x" * SIZE)
        cache = PageCache(root)
        assert cache.probe == "mincore"
        assert cache.residency().fraction == 1
        assert cache.bring("cold").achieved == "verified"
        assert read_from_storage(root / "file") >= SIZE
        assert block_device(root) == block_device(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)


@pytest.mark.parametrize(
    ("lie", "flaw"),
    [(0, "finds nothing of a test file just written"), (256, "finds 256 pages of a test file just dropped")],
)
def test_a_probe_that_lies_is_not_trusted(store: Path, lie: int, flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = file_systems.PROBES["mincore"]
    monkeypatch.setitem(file_systems.PROBES, "cachestat", lambda *_: PageCount(lie, 0))
    assert PageCache(store).probe == "mincore"
    monkeypatch.setitem(file_systems.PROBES, "mincore", lambda *_: PageCount(lie, None))
    cache = PageCache(store)
    assert cache.probe is None
    assert cache.reason.count(flaw) == 2
    assert cache.residency() is None
    assert cache.bring("cold") == Brought("cold", "unverifiable", None, cache.reason, page_cache.METADATA_STAYS)
    with (store / "file").open("rb") as file:
        assert honest(file.fileno(), SIZE).resident == 0
        assert cache.bring("warm") == Brought("warm", "unverifiable", None, cache.reason)
        assert honest(file.fileno(), SIZE).resident == 2001
    assert [entry.name for entry in store.parent.iterdir()] == ["data"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_test_file_leaves_no_probe(
    store: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(file_systems.tempfile, "TemporaryFile", refuse)
    cache = PageCache(store)
    assert cache.probe is None
    assert os.strerror(code) in cache.reason
    assert cache.bring("cold").achieved == "unverifiable"


def test_where_the_number_of_the_system_call_is_another_it_is_not_made(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_systems.platform, "machine", lambda: "alpha")
    assert PageCache(store).probe == "mincore"


def test_on_another_system_nothing_is_tried(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems.platform, "system", lambda: "Darwin")
    monkeypatch.delattr(os, "posix_fadvise")
    cache = PageCache(store)
    assert (cache.probe, cache.reason) == (None, "only Linux tells what is in the page cache")
    assert cache.bring("cold").achieved == "unverifiable"


def test_no_test_file_is_written_on_another_file_system(shm: Path) -> None:
    cache = PageCache(SHM)
    assert cache.probe is None
    assert "the store is a file system by itself" in cache.reason


def test_a_store_that_is_missing_is_unknown_not_empty(tmp_path: Path) -> None:
    cache = PageCache(tmp_path / "nothing")
    assert (cache.probe, cache.reason) == (None, "the store: No such file or directory")
    for state in ("as-is", "cold", "warm"):
        brought = cache.bring(state)
        assert brought.achieved in (None, "unverifiable")
        assert brought.fraction is None


@pytest.mark.parametrize("type_", ["9p", "virtiofs", "nfs4", "fuse.sshfs", "zfs"])
def test_behind_a_cache_that_cannot_be_seen_cold_is_unverifiable(
    store: Path, type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(type_, monkeypatch)
    cache = PageCache(store)
    assert cache.probe == "mincore"
    brought = cache.bring("cold")
    assert (brought.achieved, brought.fraction) == ("unverifiable", 0)
    assert type_.upper() in brought.reason.upper()
    brought = cache.bring("warm")
    assert brought.achieved == "verified"
    assert type_.upper() in brought.note.upper()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
def test_of_files_of_another_user_nothing_is_known(cache: PageCache, store: Path) -> None:
    (store / "file").chmod(0o644)
    closed = [folder for folder in [store, *store.parents] if folder.stat().st_mode & 0o055 != 0o055]
    modes = {folder: folder.stat().st_mode for folder in closed}
    brought, resident = [], []
    try:
        for folder, mode in modes.items():
            folder.chmod(mode | 0o055)
        for state in ("cold", "warm"):
            os.seteuid(NOBODY)
            assert cache.residency() is None
            brought.append(cache.bring(state))
            os.seteuid(0)
            resident.append(cache.residency().resident_pages)
    finally:
        os.seteuid(0)
        for folder, mode in modes.items():
            folder.chmod(mode)
    assert [(b.achieved, b.fraction) for b in brought] == [("unverifiable", None)] * 2
    assert all("holds files of another user" in b.reason for b in brought)
    # It is done all the same.
    assert resident == [0, 2001]


def test_a_store_that_does_not_stay_in_memory_is_not_warm(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PageCache(store)
    cache.bring("cold")
    monkeypatch.setattr(os, "readv", lambda *_: 0)
    brought = cache.bring("warm")
    assert (brought.achieved, brought.fraction) == ("not-achieved", 0)
    assert "a memory limit on this one" in brought.reason
    scarce = psutil.virtual_memory()._replace(available=1_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: scarce)
    assert "its 8 MB are more than the 1 MB available" in cache.bring("warm").reason


def test_dropping_all_caches_comes_last_as_looking_would_fill_them_again(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    opened = page_cache._opened
    monkeypatch.setattr(os, "sync", lambda: events.append("sync"))
    monkeypatch.setattr(page_cache, "_opened", lambda root: events.append("look") or opened(root))
    monkeypatch.setattr(page_cache, "_DROP_CACHES", tmp_path / "drop_caches")
    assert PageCache(store).bring("cold", drop_all=True) == Brought("cold", "verified", 0.0, None, None)
    assert (tmp_path / "drop_caches").read_text() == "3"
    assert events.index("sync") == len(events) - 1 > 0


def test_dropping_all_caches_without_permission_is_an_error(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(page_cache, "_DROP_CACHES", store)
    with pytest.raises(PageCacheError, match=r"cannot drop all caches: .*; it takes root"):
        PageCache(store).bring("cold", drop_all=True)


def attempts(state: str, *fractions: float, achieved: str = "verified", reason: str | None = None) -> list[Brought]:
    return [Brought(state, achieved, fraction, reason) for fraction in fractions]


@pytest.mark.parametrize(
    ("asked", "brought", "shares", "on_block_device", "verdict", "text"),
    [
        ("cold", [0, 0, 0.004], [1.003, 1.001, 1.003], True, "verified",
         "cachestat: 0.0…0.4 % of the store in memory before each of 3 epochs; "
         "100.1…100.3 % of its bytes then read from storage"),
        ("cold", [0, 0], [1.0, 0.12], True, "not-achieved", "yet only 12.0…100.0 % of its bytes then read"),
        ("cold", [0, 0], [1.0, None], True, "verified", "by the probe alone, as what was read"),
        ("cold", [0, 0], [0.2, None], True, "not-achieved", "yet only 20.0 %"),
        ("cold", [0], [0.0], False, "verified", "by the probe alone, as reads are not known"),
        ("cold", [0], [0.0], None, "verified", "by the probe alone, as reads are not known"),
        ("warm", [1, 0.995], [0.0, 0.01], True, "verified", "99.5…100.0 % of the store in memory"),
        ("warm", [1, 1], [0.0, 0.02], True, "not-achieved", "yet 0.0…2.0 % of its bytes then read from storage"),
        ("warm", [1, 1], [0.0, 0.02], None, "not-achieved", "yet 0.0…2.0 %"),
    ],
)  # fmt: skip
def test_the_verdict_needs_both_proofs(asked, brought, shares, on_block_device, verdict, text) -> None:
    epochs = list(zip(attempts(asked, *brought), shares, strict=True))
    achieved, proof = judge(asked, epochs, probe="cachestat", on_block_device=on_block_device)
    assert achieved == verdict
    assert text in proof


def test_an_epoch_that_needs_less_of_the_store_may_read_less() -> None:
    epochs = [(brought, 0.5) for brought in attempts("cold", 0)]
    assert judge("cold", epochs, probe="mincore", on_block_device=True)[0] == "not-achieved"
    assert judge("cold", epochs, probe="mincore", on_block_device=True, needed_share=0.48)[0] == "verified"


def test_an_epoch_that_reads_what_was_read_when_the_store_was_opened_is_not_cold() -> None:
    epochs = [(brought, 1.0) for brought in attempts("cold", 0, 0)]
    verified = judge("cold", epochs, probe="mincore", on_block_device=True, in_epochs=[0.7, None])
    achieved, proof = judge("cold", epochs, probe="mincore", on_block_device=True, in_epochs=[0.7, 0.0])
    assert (verified[0], achieved) == ("verified", "not-achieved")
    assert proof.endswith("the epochs themselves read 0.0…70.0 %: what opened the store holds it in memory")
    warm = [(brought, 0.0) for brought in attempts("warm", 1)]
    assert judge("warm", warm, probe="mincore", on_block_device=True, in_epochs=[0.0])[0] == "verified"


def test_the_worst_attempt_decides() -> None:
    good = attempts("cold", 0, 0)
    poor = attempts("cold", 0.3, achieved="not-achieved", reason="30 % stayed")
    unknown = attempts("cold", 0, achieved="unverifiable", reason="nfs")
    impossible = attempts("cold", 1, achieved="impossible", reason="tmpfs")
    for worst, brought in [
        ("not-achieved", good + poor),
        ("unverifiable", unknown + poor + good),
        ("impossible", good + poor + unknown + impossible),
    ]:
        achieved, proof = judge("cold", [(b, 1.0) for b in brought], probe="mincore", on_block_device=True)
        assert achieved == worst
        assert f"before 1 of {len(brought)} epochs: " in proof
    assert judge("cold", [], probe="mincore", on_block_device=True)[0] == "unverifiable"
    with pytest.raises(ValueError, match="warm"):
        judge("warm", [(good[0], 1.0)], probe="mincore", on_block_device=True)


def test_what_a_state_does_not_cover_is_in_the_proof() -> None:
    brought = Brought("cold", "verified", 0.0, None, page_cache.METADATA_STAYS)
    proof = judge("cold", [(brought, 1.0), (brought, 1.0)], probe="cachestat", on_block_device=True)[1]
    assert proof.count(page_cache.METADATA_STAYS) == 1


def test_as_is_has_no_verdict_but_says_what_was_seen() -> None:
    seen = [(brought, None) for brought in attempts("as-is", 0.25, 1, achieved=None)]
    expected = "mincore: 25.0…100.0 % of the store in memory before each of 2 epochs"
    assert judge("as-is", seen, probe="mincore", on_block_device=True) == (None, expected)
    unseen = [(Brought("as-is", None, None, "no probe"), None)]
    assert judge("as-is", unseen, probe=None, on_block_device=None) == (None, "left as it was, not seen")


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """Roots ``proc`` and ``sys`` in which every descriptor is of mount 5."""
    (tmp_path / "proc/self/fdinfo").mkdir(parents=True)
    for descriptor in range(100):
        (tmp_path / f"proc/self/fdinfo/{descriptor}").write_text("pos:\t0\nflags:\t0100000\nmnt_id:\t5\n")
    return tmp_path


def with_mount(fake: Path, line: str) -> tuple[Path, Path]:
    (fake / "proc/self/mountinfo").write_text(
        f"4 1 0:9 / / rw - proc proc rw\n5 4 {line}\n55 4 0:7 / /x rw - 9p x rw\n"
    )
    return fake / "proc", fake / "sys"


def with_disk(fake: Path, number: int, *names: str) -> None:
    device = fake / "sys/devices/pci0" / Path(*names)
    device.mkdir(parents=True)
    if len(names) > 1:
        (device / "partition").write_text("1\n")
    (fake / "sys/dev/block").mkdir(parents=True)
    (fake / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").symlink_to(device)


def test_a_mount_is_found_by_its_id(fake: Path) -> None:
    proc, _ = with_mount(
        fake, r"0:41 /a /a\040b rw shared:1 master:2 - overlay over\040lay rw,upperdir=/up\040per,xino=off"
    )
    mount = mount_of(fake, proc)
    options = ("rw", "upperdir=/up per", "xino=off")
    assert mount == Mount("0:41", "overlay", "over lay", options)
    assert (mount.option("upperdir"), mount.option("rw"), mount.option("ro")) == ("/up per", "", None)
    assert mount_of(fake, fake / "nowhere") is None
    assert mount_of(Path("/proc/self")).type == "proc"


def test_a_partition_counts_as_its_disk(store: Path, fake: Path) -> None:
    proc, sys = with_mount(fake, "8:1 / / rw - ext4 /dev/sda1 rw")
    assert block_device(store, proc, sys) is None
    with_disk(fake, store.stat().st_dev, "sda", "sda1")
    assert block_device(store, proc, sys) == "sda"


def test_a_file_system_with_numbers_of_its_own_is_followed(store: Path, shm: Path, fake: Path) -> None:
    with_disk(fake, store.stat().st_dev, "dm-0")
    proc, sys = with_mount(fake, f"0:41 / / rw - overlay overlay rw,upperdir={store}")
    assert block_device(shm, proc, sys) == "dm-0"
    proc, sys = with_mount(fake, "0:41 / / rw - overlay overlay rw,upperdir=relative")
    assert block_device(shm, proc, sys) is None
    proc, sys = with_mount(fake, f"0:42 / / rw - btrfs /dev/{block_device(store)} rw")
    assert block_device(shm, proc) == block_device(store)
    proc, sys = with_mount(fake, "0:50 / / rw - nfs4 server:/export rw")
    assert block_device(shm, proc, sys) is None


def test_the_disk_is_the_one_that_the_kernel_names(store: Path) -> None:
    name = block_device(store)
    assert name is not None
    assert Path(f"/sys/block/{name}").exists()
    assert block_device(store / "missing") is None
