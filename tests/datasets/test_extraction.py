from __future__ import annotations

import errno
import gzip
import io
import os
import random
import resource
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.contracts.source import Progress, SilentProgress, SourceError
from bench.datasets.extraction import Limits, unpack

CONTENT = {f"set/{part}/file{n}": random.Random(n).randbytes(5000 + n) for n, part in enumerate(["a", "b", "b", "c"])}
LIMITS = Limits(max_members=50, max_member_bytes=3 << 20, max_total_bytes=10 << 20)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A directory within one that no other test writes to, so that what escapes from it is seen, and nothing else."""
    inner = tmp_path / "inner"
    inner.mkdir()
    return inner


class Recorder(SilentProgress):
    def __init__(self) -> None:
        self.tasks: list[list[Any]] = []

    def start(self, label: str, total: int | None, unit: str) -> None:
        self.tasks.append([label, total, unit, 0, "open"])

    def advance(self, count: int) -> None:
        self.tasks[-1][3] += count

    def finish(self) -> None:
        self.tasks[-1][4] = "finished"


def tar_entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, target
    return member


def write_tar(path: Path, *extra: tarfile.TarInfo, mode: str = "w:gz", content: dict[str, bytes] = CONTENT) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.addfile(tar_entry("set", kind=tarfile.DIRTYPE))
        for name, data in content.items():
            tar.addfile(tar_entry(name, len(data)), io.BytesIO(data))
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def zip_entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("placeholder", (2020, 1, 1, 0, 0, 0))
    # The constructor would cut the name at a NUL.
    member.filename = member.orig_filename = name
    member.external_attr = mode << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def write_zip(path: Path, *extra: tuple[zipfile.ZipInfo, bytes], content: dict[str, bytes] = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("set/", b"")
        for name, data in content.items():
            packed.writestr(name, data)
        for member, data in extra:
            packed.writestr(member, data)
    return path


def write(path: Path, kind: str, content: dict[str, bytes] = CONTENT) -> Path:
    if kind == "zip":
        return write_zip(path, content=content)
    return write_tar(path, mode={"tar": "w", "tar.gz": "w:gz"}[kind], content=content)


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies below a folder; anything but plain files and folders fails the test."""
    found = {}
    for path in folder.rglob("*"):
        assert not path.is_symlink()
        assert path.is_file() or path.is_dir()
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def get(
    archive: Path,
    limits: Limits = LIMITS,
    wanted: Callable[[str], bool] = lambda name: True,
    progress: Progress | None = None,
) -> dict[str, bytes]:
    target = archive.parent / "out"
    unpack(archive, target, wanted, limits, progress or SilentProgress())
    return files(target)


def refused(archive: Path, limits: Limits = LIMITS, wanted: Callable[[str], bool] = lambda name: True) -> str:
    """Return the message of the error, which must be one line that names the archive."""
    before = {path for path in archive.parent.parent.rglob("*") if not path.is_relative_to(archive.parent / "out")}
    with pytest.raises(SourceError) as caught:
        get(archive, limits, wanted)
    after = {path for path in archive.parent.parent.rglob("*") if not path.is_relative_to(archive.parent / "out")}
    assert after == before, "something was written outside of the target"
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(archive))
    return message


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


every_kind = pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])


@every_kind
def test_unpacks_what_is_wanted(tmp_path: Path, kind: str) -> None:
    # The suffix says nothing: only the content tells what an archive is.
    archive = write(tmp_path / "archive.bin", kind)
    asked = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return name.startswith("set/b/")

    assert get(archive, wanted=wanted) == {name: data for name, data in CONTENT.items() if "/b/" in name}
    assert asked == list(CONTENT), "only plain files are asked for, by their path in the archive"
    assert not (tmp_path / "out" / "set" / "a").exists()


@every_kind
def test_a_target_that_holds_other_members(tmp_path: Path, kind: str) -> None:
    first = write(tmp_path / "first", kind, {"set/a/one": b"1"})
    second = write(tmp_path / "second", kind, {"set/a/two": b"22", "set/b/three": b""})
    get(first)
    assert get(second) == {"set/a/one": b"1", "set/a/two": b"22", "set/b/three": b""}
    assert "'set/a/one': another one has its path" in refused(first)


@every_kind
def test_paths_with_dots_and_empty_parts(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind, {"./set//a/./one": b"1", "set/..two": b"2", "set/C:/x": b"3"})
    assert get(archive) == {"set/a/one": b"1", "set/..two": b"2", "set/C:/x": b"3"}
    archive = write(tmp_path / "b", kind, {"set/thr..ee/..": b"3"})
    assert "'set/thr..ee/..': its path leads outside" in refused(archive)


@every_kind
def test_files_larger_than_a_piece(tmp_path: Path, kind: str) -> None:
    content = {"set/large": random.Random(1).randbytes((2 << 20) + 17), "set/small": b"x"}
    assert get(write(tmp_path / "a", kind, content)) == content


def test_memory_stays_small(tmp_path: Path) -> None:
    data = {"set/large": random.Random(1).randbytes(24 << 20)}
    limits = Limits(10, 32 << 20, 64 << 20)
    for kind in ("zip", "tar", "tar.gz"):
        archive = write(tmp_path / kind, kind, data)
        with memory_below(8 << 20):
            unpack(archive, tmp_path / f"out-{kind}", lambda name: True, limits, SilentProgress())
        assert files(tmp_path / f"out-{kind}") == data


@pytest.mark.parametrize("count", [0, 3, 2500])
def test_progress_of_a_zip_file_counts_files(tmp_path: Path, count: int) -> None:
    archive = write_zip(tmp_path / "some.zip", content={f"set/{n}": b"" for n in range(count)} | {"other": b""})
    progress = Recorder()
    get(archive, Limits(5000, 10, 10), lambda name: name != "other", progress)
    assert progress.tasks == [["unpacking some.zip", count, "files", count, "finished"]]


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_progress_of_a_tar_file_counts_packed_bytes(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "some.tar", kind, {f"set/{n}": random.Random(n).randbytes(1 << 20) for n in range(3)})
    size = archive.stat().st_size
    progress = Recorder()
    get(archive, progress=progress)
    assert progress.tasks == [["unpacking some.tar", size, "bytes", size, "finished"]]


@every_kind
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_by_whoever_watches(tmp_path: Path, kind: str, error: type[BaseException]) -> None:
    class Interrupting(Recorder):
        def advance(self, count: int) -> None:
            raise error

    progress = Interrupting()
    with pytest.raises(error):
        get(write(tmp_path / "a", kind), progress=progress)
    assert progress.tasks[0][4] == "finished"


# Hostile members, wanted or not


def no_member(name: str) -> bool:
    return False


def any_member(name: str) -> bool:
    return True


either_way = pytest.mark.parametrize("wanted", [any_member, no_member])

OUTSIDE = [
    "../outside",
    "set/../../outside",
    "..",
    "/etc/passwd",
    "//server/share",
    "C:/windows/x",
    "c:x",
    "..\\outside",
    "set\\..\\..\\outside",
    "\\\\server\\share",
    "/a\nb\x1b[2J\x9b",
    "../\u202egnp.exe",
]


@either_way
@pytest.mark.parametrize("name", OUTSIDE, ids=ascii)
def test_paths_that_lead_outside_of_a_zip_file(tmp_path: Path, name: str, wanted: Callable[[str], bool]) -> None:
    (tmp_path / "in").mkdir()
    archive = write_zip(tmp_path / "in" / "bad.zip", (zip_entry(name), b"123"))
    told = f"holds the unsafe member {name!a}: its path leads outside the archive. It was not unpacked."
    assert refused(archive, wanted=wanted) == f"{archive} {told}"


@either_way
@pytest.mark.parametrize("name", OUTSIDE, ids=ascii)
def test_paths_that_lead_outside_of_a_tar_file(tmp_path: Path, name: str, wanted: Callable[[str], bool]) -> None:
    (tmp_path / "in").mkdir()
    archive = write_tar(tmp_path / "in" / "bad.tar.gz", tar_entry(name, 3))
    told = f"holds the unsafe member {name!a}: its path leads outside the archive. It was not unpacked."
    assert refused(archive, wanted=wanted) == f"{archive} {told}"


def test_a_name_with_a_nul(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "bad.zip", (zip_entry("set/good\0/../../x"), b"123"))
    assert r"'set/good\x00/../../x'" in refused(archive)
    member = tar_entry("placeholder", 3)
    member.pax_headers = {"path": "set/good\0.txt"}
    assert r"'set/good\x00.txt'" in refused(write_tar(tmp_path / "bad.tar", member))


@pytest.mark.parametrize("name", [".", "./", "././"])
def test_a_file_that_is_the_folder_itself(tmp_path: Path, name: str) -> None:
    assert "unsafe member" in refused(write_tar(tmp_path / "bad.tar", tar_entry(name.rstrip("/"), 3)))
    archive = write_zip(tmp_path / "bad.zip", (zip_entry(name.rstrip("/")), b"123"))
    assert "unsafe member" in refused(archive)


@either_way
@pytest.mark.parametrize(
    "member",
    [
        tar_entry("set/link", kind=tarfile.SYMTYPE, target="/etc/passwd"),
        tar_entry("set/link", kind=tarfile.SYMTYPE, target="a"),
        tar_entry("set/link", kind=tarfile.LNKTYPE, target="set/a/file0"),
        tar_entry("set/node", kind=tarfile.CHRTYPE),
        tar_entry("set/node", kind=tarfile.BLKTYPE),
        tar_entry("set/node", kind=tarfile.FIFOTYPE),
        tar_entry("set/node", kind=b"Z"),
    ],
    ids=lambda member: f"{member.type!r} to {member.linkname}" if isinstance(member, tarfile.TarInfo) else None,
)
def test_links_and_devices_in_a_tar_file(
    tmp_path: Path, member: tarfile.TarInfo, wanted: Callable[[str], bool]
) -> None:
    message = refused(write_tar(tmp_path / "bad.tar.gz", member), wanted=wanted)
    assert f"{member.name!a}: it is neither a plain file nor a folder" in message


@either_way
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK], ids=oct)
def test_links_and_devices_in_a_zip_file(tmp_path: Path, kind: int, wanted: Callable[[str], bool]) -> None:
    archive = write_zip(tmp_path / "bad.zip", (zip_entry("set/link", kind | 0o777), b"/etc/passwd"))
    assert "'set/link': it is neither a plain file nor a folder" in refused(archive, wanted=wanted)


def test_a_link_does_not_lead_later_members_outside(tmp_path: Path) -> None:
    """The classic attack: a link to a folder elsewhere, and then a file through it."""
    (tmp_path / "in").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tar_entry("set/door", kind=tarfile.SYMTYPE, target=str(outside))
    refused(write_tar(tmp_path / "in" / "bad.tar", link, tar_entry("set/door/file", 3)))
    assert not list(outside.iterdir())


@every_kind
def test_unix_modes_of_plain_members(tmp_path: Path, kind: str) -> None:
    """Nothing is executable or set-uid because an archive says so."""
    if kind == "zip":
        archive = write_zip(
            tmp_path / "a",
            (zip_entry("folder/", stat.S_IFDIR | 0o755), b""),
            (zip_entry("folder/program", stat.S_IFREG | stat.S_ISUID | 0o777), b"#!"),
            content={},
        )
    else:
        member = tar_entry("folder/program", 2)
        member.mode = stat.S_ISUID | 0o777
        archive = write_tar(tmp_path / "a", member, mode="w" if kind == "tar" else "w:gz", content={})
    get(archive)
    assert not (tmp_path / "out/folder/program").stat().st_mode & (stat.S_ISUID | 0o111)


# Names that collide


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_wanted_member_that_comes_twice(tmp_path: Path) -> None:
    for archive in (
        write_zip(tmp_path / "a", (zip_entry("set/a/file0"), b"123")),
        write_tar(tmp_path / "b", tar_entry("set/a/file0", 3)),
        write_zip(tmp_path / "c", (zip_entry("./set//a/file0"), b"123")),
    ):
        assert "'set/a/file0': another one has its path" in refused(archive)
        shutil.rmtree(tmp_path / "out")
        assert set(get(archive, wanted=lambda name: "file0" not in name)) == {*CONTENT} - {"set/a/file0"}
        shutil.rmtree(tmp_path / "out")


@every_kind
def test_a_file_where_a_folder_is_needed(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind, {"set/x": b"1", "set/x/y": b"2"})
    assert "'set/x/y': another one has its path" in refused(archive)
    archive = write(tmp_path / "b", kind, {"set/z/y": b"2", "set/z": b"1"})
    assert "'set/z': another one has its path" in refused(archive)


@every_kind
def test_names_that_differ_in_case_only(tmp_path: Path, kind: str) -> None:
    content = {"set/A.jpg": b"1", "set/a.jpg": b"2"}
    assert get(write(tmp_path / "a", kind, content)) == content


# Sizes and numbers


@every_kind
def test_limits(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind)
    get(archive, Limits(5, 5003, 60_000))
    for limits, told in (
        (Limits(4, 5003, 60_000), "holds more than 4 members; it was not unpacked."),
        (Limits(5, 5002, 60_000), "'set/c/file3': its 5,003 bytes are not within 5,002."),
        (Limits(5, 5003, 20_005), "unpacks to more than 20,005 bytes; it was not unpacked."),
    ):
        assert told in refused(archive, limits, no_member)


def test_a_million_members(tmp_path: Path) -> None:
    """A directory of a million entries, of which none is read into memory."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, *[0] * 4, *[0] * 3, 1, *[0] * 4, 0, 0) + b"x"
    count = 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, 0, 0)
    archive = tmp_path / "many.zip"
    with archive.open("wb") as file:
        file.write(b"PK\3\4" + entry * count + end)
    with memory_below(4 << 20):
        assert "holds more than 1,000 members" in refused(archive, Limits(1000, 100, 100))


def zeros(size: int) -> dict[str, bytes]:
    return {"set/zeros": bytes(size)}


def test_a_bomb_in_a_zip_file(tmp_path: Path) -> None:
    limits = Limits(50, 1 << 30, 1 << 40)
    get(write_zip(tmp_path / "small", content=zeros(1 << 20)), limits)
    bomb = write_zip(tmp_path / "bomb", content=zeros((1 << 20) + 1))
    assert "'set/zeros': it unpacks to more than 200 times its 1,0" in refused(bomb, limits, no_member)
    # One member after the other stays below the floor; together they do not.
    many = write_zip(tmp_path / "many", content={f"set/{n}": bytes(1 << 20) for n in range(40)})
    assert f"unpacks to more than {200 * many.stat().st_size:,} bytes" in refused(many, limits, no_member)
    assert not (tmp_path / "out/set/0").exists()


def test_a_bomb_in_a_tar_file(tmp_path: Path) -> None:
    limits = Limits(50, 1 << 30, 1 << 40)
    get(write_tar(tmp_path / "small", content=zeros(900_000)), limits)
    (tmp_path / "out/set/zeros").unlink()
    bomb = write_tar(tmp_path / "bomb", content=zeros(64 << 20))
    told = f"unpacks to more than {max(1 << 20, 200 * bomb.stat().st_size):,} bytes"
    assert told in refused(bomb, limits)
    assert sum(map(len, files(tmp_path / "out").values())) < 16 << 20
    assert told in refused(bomb, limits, no_member)


def test_extended_headers_are_not_read_into_memory(tmp_path: Path) -> None:
    member = tar_entry("set/file9", 3)
    member.pax_headers = {"comment": "x" * (8 << 20)}
    archive = write_tar(tmp_path / "bad.tar.gz", member)
    with memory_below(4 << 20):
        assert "an extended header of 8,388," in refused(archive, Limits(50, 1 << 30, 1 << 40, 1e6))


def patched(archive: Path, field: int, value: int, width: int = 4, *, local: bool = False, entry: int = -1) -> Path:
    """Change one field of a member in the directory of a zip file, or in its local header."""
    data = bytearray(archive.read_bytes())
    mark = b"PK\3\4" if local else b"PK\1\2"
    places = [at for at in range(len(data)) if data.startswith(mark, at)]
    at = places[entry] + field
    data[at : at + width] = value.to_bytes(width, "little")
    archive.write_bytes(data)
    return archive


# Offsets in an entry of the directory (APPNOTE 4.3.12)
FLAGS, METHOD, CRC, PACKED_SIZE, SIZE, OFFSET = 8, 10, 16, 20, 24, 42


@pytest.mark.parametrize("size", [0, 1, 5_002, 5_004, 1 << 20])
def test_a_size_that_lies_in_a_zip_file(tmp_path: Path, size: int) -> None:
    assert "is damaged or truncated" in refused(patched(write_zip(tmp_path / "a"), SIZE, size))


@pytest.mark.parametrize("size", [0, 1, 6000, 1 << 20])
def test_a_size_that_lies_in_a_tar_file(tmp_path: Path, size: int) -> None:
    archive = write_tar(tmp_path / "a", mode="w")
    data = bytearray(archive.read_bytes())
    header = data.index(b"set/b/file1")
    data[header : header + 512] = tar_entry("set/b/file1", size).tobuf(tarfile.USTAR_FORMAT)
    archive.write_bytes(data)
    assert "is damaged or truncated" in refused(archive)
    archive.write_bytes(gzip.compress(data))
    assert "is damaged or truncated" in refused(archive, wanted=no_member)


def test_a_size_that_lies_and_a_checksum_that_agrees(tmp_path: Path) -> None:
    """No more than the announced size is ever written."""
    archive = write_zip(tmp_path / "a", content={"set/zeros": bytes(1 << 20)})
    patched(archive, SIZE, 10)
    patched(archive, CRC, 0xE38A6876)  # that of ten zeros
    try:
        written = get(archive)
    except SourceError:
        written = files(tmp_path / "out")
    assert all(len(data) <= 10 for data in written.values())


def test_sizes_of_zip64_that_lie(tmp_path: Path) -> None:
    archive = tmp_path / "a"
    with zipfile.ZipFile(archive, "w") as packed, packed.open(zip_entry("set/x"), "w", force_zip64=True) as file:
        file.write(b"abc")
    assert get(archive) == {"set/x": b"abc"}
    data = archive.read_bytes()
    at = data.index(b"PK\1\2")
    # An entry whose sizes are in an extra field: 4 GiB less a byte stands for that.
    extra = struct.pack("<HHQQ", 1, 16, 1 << 62, 5)
    entry = bytearray(data[at : at + 46])
    entry[PACKED_SIZE : SIZE + 4] = b"\xff" * 8
    entry[30:32] = len(extra).to_bytes(2, "little")
    directory = bytes(entry) + b"set/x" + extra
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), at, 0)
    archive.write_bytes(data[:at] + directory + end)
    assert "its 4,611,686,018,427,387,904 bytes are not within" in refused(archive)


def test_members_that_overlap(tmp_path: Path) -> None:
    """How a zip bomb without nesting is made: many members share the same packed bytes."""
    archive = write_zip(tmp_path / "a")
    data = archive.read_bytes()
    first = data.index(b"PK\3\4", 1)
    assert "overlaps with another one" in refused(patched(archive, OFFSET, first))
    # Larger than the place before the next member
    write_zip(archive)
    assert "overlaps with another one" in refused(patched(archive, PACKED_SIZE, 6000, entry=1), wanted=no_member)
    # The last one, into the directory
    write_zip(archive)
    assert "is damaged or truncated" in refused(patched(archive, PACKED_SIZE, 6000), wanted=no_member)


def test_a_directory_in_another_order(tmp_path: Path) -> None:
    archive = tmp_path / "a"
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in CONTENT.items():
            packed.writestr(name, data)
        packed.filelist.reverse()  # what is written last is the directory
    assert get(archive) == CONTENT


@either_way
def test_an_encrypted_member(tmp_path: Path, wanted: Callable[[str], bool]) -> None:
    archive = patched(write_zip(tmp_path / "a"), FLAGS, 1, 2)
    assert "'set/c/file3': it is encrypted" in refused(archive, wanted=wanted)


@either_way
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bounds(tmp_path: Path, method: int, wanted: Callable[[str], bool]) -> None:
    member = zip_entry("set/x")
    member.compress_type = method
    archive = write_zip(tmp_path / "a", (member, b"123"))
    assert f"'set/x': its packing method {method} is not supported" in refused(archive, wanted=wanted)


# Damage


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_end(data: bytes) -> bytes:
    return data[:-11]


def wrong_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes(4) + data[-4:]


def flipped(data: bytes) -> bytes:
    return data[:8000] + bytes([data[8000] ^ 255]) + data[8001:]


def page(data: bytes) -> bytes:
    return b"<html>Please log in</html>" * 100


def nothing(data: bytes) -> bytes:
    return b""


def zipped_noise(data: bytes) -> bytes:
    return gzip.compress(random.Random(1).randbytes(len(data)))


def directory_before_the_begin(data: bytes) -> bytes:
    return b"PK\3\4" + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 1000, 0, 0)


def noise_after_magic(data: bytes) -> bytes:
    return data[:4] + random.Random(1).randbytes(len(data))


@pytest.mark.parametrize(
    "damage",
    [cut, cut_end, wrong_checksum, flipped, page, nothing, zipped_noise, noise_after_magic, directory_before_the_begin],
)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_damage(tmp_path: Path, kind: str, damage: Callable[[bytes], bytes]) -> None:
    archive = write(tmp_path / "some.archive", kind)
    archive.write_bytes(damage(archive.read_bytes()))
    message = refused(archive)
    assert message.startswith(f"{archive} is damaged or truncated (")
    assert message.endswith("). Replace it with a fresh copy.")


def test_the_checksum_of_a_whole_tar_file(tmp_path: Path) -> None:
    """It comes after all members, and after all that tarfile reads of a file of this size."""
    archive = write_tar(tmp_path / "some.tar.gz", content={"set/x": random.Random(1).randbytes(320_000)})
    assert len(gzip.decompress(archive.read_bytes())) == 5 << 16
    archive.write_bytes(wrong_checksum(archive.read_bytes()))
    assert "is damaged or truncated (CRC check failed" in refused(archive)


@pytest.mark.parametrize("at", [512, 513, 3 * 512 + 1, 2 * 512 + 5120 + 512, -10_240])
def test_a_tar_file_that_ends_early(tmp_path: Path, at: int) -> None:
    """Even between two members: tar files end with zeros."""
    archive = write(tmp_path / "some.tar", "tar")
    data = archive.read_bytes()
    ended = at if at > 0 else 512 + sum(512 + -(-len(d) // 512) * 512 for d in CONTENT.values())
    archive.write_bytes(data[:ended])
    assert "is damaged or truncated" in refused(archive)
    assert "is damaged or truncated" in refused(archive, wanted=no_member)


def test_a_tar_file_with_noise_between_members(tmp_path: Path) -> None:
    archive = write(tmp_path / "some.tar", "tar")
    data = bytearray(archive.read_bytes())
    data[data.index(b"set/b/file1") + 20] ^= 1
    archive.write_bytes(data)
    assert "is damaged or truncated (bad checksum)" in refused(archive)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["zip", "tar", "tar.gz"]))
def test_any_damage_is_one_line_or_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    archive = write(folder / "some.archive", kind, {"set/a": b"a" * 300, "set/ä": b"b" * 3})
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    archive.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        get(archive, Limits(10, 1000, 20_000))
    except SourceError as error:
        assert str(error).isprintable()  # noqa: PT017  # no error is as good


# The disk


def test_an_archive_that_is_missing(tmp_path: Path) -> None:
    assert f"cannot be unpacked into {tmp_path / 'out'}: No such file" in refused(tmp_path / "none.zip")


def test_a_target_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    assert "cannot be unpacked into" in refused(write_zip(tmp_path / "a.zip"))


def test_a_name_that_the_disk_refuses(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", (zip_entry("set/" + "x" * 300), b""))
    assert "cannot be unpacked into" in refused(archive)
    assert "File name too long" in refused(write_zip(archive, (zip_entry("y" * 300), b""), content={}))


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Let the system refuse larger files, as a full disk does."""
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@every_kind
def test_a_disk_that_is_full(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind)
    with small_files(1000):
        message = refused(archive)
    assert (
        f"cannot be unpacked into {tmp_path / 'out'}: {os.strerror(errno.EFBIG)}. Check both, and the free space."
        in message
    )
