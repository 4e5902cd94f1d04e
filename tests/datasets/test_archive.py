from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.contracts.source import SourceError
from bench.datasets.archive import read_members, sha256_of

CONTENT = {f"set/file{n}": random.Random(n).randbytes(5000 + n) for n in range(4)}


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, target
    return member


def write(path: Path, *extra: tarfile.TarInfo, mode: str = "w:gz", content: dict[str, bytes] = CONTENT) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.addfile(entry("set", kind=tarfile.DIRTYPE))
        for name, data in content.items():
            tar.addfile(entry(name, len(data)), io.BytesIO(data))
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def read(path: Path, wanted: set[str] | None = None, **options: int) -> dict[str, bytes]:
    return dict(read_members(path, wanted or set(CONTENT), **{"max_member_bytes": 10_000, **options}))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_reads_what_is_wanted(tmp_path: Path, mode: str) -> None:
    path = write(tmp_path / "a", mode=mode)
    assert read(path) == CONTENT
    assert read(path, {"set/file2", "set/none"}) == {"set/file2": CONTENT["set/file2"]}
    assert list(read_members(path, CONTENT, max_member_bytes=10_000)) == list(CONTENT.items())


def test_reads_names_with_a_leading_dot(tmp_path: Path) -> None:
    dotted = {f"./{name}": data for name, data in CONTENT.items()}
    assert read(write(tmp_path / "a", content=dotted)) == CONTENT


def test_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    read(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "member",
    [
        entry("/etc/passwd", 3),
        entry("../outside", 3),
        entry("set/../../outside", 3),
        entry("set/link", kind=tarfile.SYMTYPE, target="/etc/passwd"),
        entry("set/link", kind=tarfile.LNKTYPE, target="set/file1"),
        entry("set/file9", kind=tarfile.CHRTYPE),
        entry("set/file9", kind=tarfile.BLKTYPE),
        entry("set/file9", kind=tarfile.FIFOTYPE),
        entry("set/file9", 10_001),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_refuses_unsafe_members(tmp_path: Path, member: tarfile.TarInfo) -> None:
    path = write(tmp_path / "bad.tar.gz", member)
    with pytest.raises(SourceError, match=r"bad\.tar\.gz holds the unsafe member") as caught:
        read(path)
    assert repr(member.name) in str(caught.value)


def test_names_cannot_break_the_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        read(write(tmp_path / "a", entry("/a\nb\x1b[2J", 3)))
    assert str(caught.value).isprintable()


def test_refuses_a_member_that_comes_twice(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds 'set/file1' twice"):
        read(write(tmp_path / "a", entry("set/file1", 3)))


def test_limits_count_and_total(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    assert len(read(path, max_members=5)) == 4
    with pytest.raises(SourceError, match="more than 4 members"):
        read(path, max_members=4)
    assert len(read(path, max_total_bytes=60_000)) == 4
    with pytest.raises(SourceError, match="more than 20,000 bytes"):
        read(path, max_total_bytes=20_000)


def test_limits_hold_for_extended_headers(tmp_path: Path) -> None:
    members = [entry(f"set/other{n}", 3) for n in range(10)]
    for member in members:
        member.pax_headers = {"comment": "x" * 500_000}
    with pytest.raises(SourceError, match="more than 1,000,000 bytes"):
        read(write(tmp_path / "a", *members), max_total_bytes=1_000_000)


def test_an_extended_header_that_would_fill_the_memory(tmp_path: Path) -> None:
    member = entry("set/file9", 3)
    member.pax_headers = {"comment": "x" * 5_000_000}
    with pytest.raises(SourceError, match=r"an extended header of 5,000,\d+ bytes"):
        read(write(tmp_path / "a", member))


@pytest.mark.parametrize("ended", [512, 512 + 512 + 5120, 512 + 512 + 100])
def test_a_tar_file_that_ends_early(tmp_path: Path, ended: int) -> None:
    """Between two members, too: tar files end with zeros."""
    path = write(tmp_path / "a", mode="w")
    path.write_bytes(path.read_bytes()[:ended])
    with pytest.raises(SourceError, match="is damaged or truncated"):
        read(path)


def test_a_tar_file_with_noise_between_members(tmp_path: Path) -> None:
    path = write(tmp_path / "a", mode="w")
    data = bytearray(path.read_bytes())
    data[data.index(b"set/file2") + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"is damaged or truncated \(bad checksum\)"):
        read(path)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_trailer(data: bytes) -> bytes:
    return data[:-4]


def wrong_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes(4) + data[-4:]


def flipped(data: bytes) -> bytes:
    return data[:8000] + bytes([data[8000] ^ 255]) + data[8001:]


def noise(data: bytes) -> bytes:
    return random.Random(1).randbytes(len(data))


def page(data: bytes) -> bytes:
    return b"<html>Please log in</html>" * 100


def zipped_noise(data: bytes) -> bytes:
    return gzip.compress(noise(data))


def nothing(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, cut_trailer, wrong_checksum, flipped, noise, page, zipped_noise, nothing])
def test_damage_is_told_with_both_digests(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / "some.tar.gz")
    path.write_bytes(damage(path.read_bytes()))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(SourceError, match=r"some\.tar\.gz is damaged or truncated") as caught:
        dict(read_members(path, CONTENT, max_member_bytes=10_000, sha256="ab" * 32))
    assert f"Expected sha256 {'ab' * 32}, found {found}." in str(caught.value)
    assert str(caught.value).isprintable()


def test_damage_without_a_known_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "some.tar", mode="w")
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(SourceError, match="is damaged or truncated") as caught:
        read(path)
    assert "sha256" not in str(caught.value)


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.tar\.gz cannot be read: No such file"):
        read(tmp_path / "none.tar.gz")


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
