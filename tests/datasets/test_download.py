from __future__ import annotations

import hashlib
import io
import random
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from filelock import FileLock

from bench.contracts.source import SilentProgress, SourceError, SourceUnavailableError
from bench.datasets import download
from bench.datasets.download import Remote, fetch_all, fetch_first, is_published

DATA = random.Random(5).randbytes(700_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "set.tar.gz"
CUT = 4 << 16  # a whole number of the chunks in which files are written


@dataclass
class Mirror:
    """How a server behaves, and what it was asked."""

    url: str = ""
    data: bytes = DATA
    ranges: bool = True
    head_status: int = 200
    get_status: int = 200
    cut_at: int | None = None  # the connection dies before this position of the file
    asked: list[str] = field(default_factory=list)  # methods and ranges


class Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.mirror.asked.append("HEAD")
        self._start(self.mirror.head_status, len(self.mirror.data))

    def do_GET(self) -> None:
        mirror = self.mirror
        wanted = self.headers.get("Range", "")
        mirror.asked.append(f"GET {wanted}".strip())
        if mirror.get_status != 200:
            self._start(mirror.get_status, 0)
            return
        start = 0
        if wanted and mirror.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else len(mirror.data)
            if start >= len(mirror.data):
                self._start(416, 0, {"Content-Range": f"bytes */{len(mirror.data)}"})
                return
            self._start(206, end - start, {"Content-Range": f"bytes {start}-{end - 1}/{len(mirror.data)}"})
        else:
            end = len(mirror.data)
            self._start(200, end)
        self.wfile.write(mirror.data[start : min(end, mirror.cut_at or end)])

    def _start(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Mirror]]:
    monkeypatch.setenv("no_proxy", "*")
    servers: list[ThreadingHTTPServer] = []

    def start(**behaviour: Any) -> Mirror:
        mirror = Mirror(**behaviour)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"mirror": mirror}))
        mirror.url = f"http://127.0.0.1:{server.server_port}/{NAME}"
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return mirror

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Recorder(SilentProgress):
    def __init__(self) -> None:
        self.tasks: list[list[Any]] = []
        self.notes: list[str] = []
        self.log: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.log.append(text)

    def start(self, label: str, total: int | None, unit: str) -> None:
        self.tasks.append([label, total, unit, 0, "open"])
        self.log.append(label)

    def advance(self, count: int) -> None:
        self.tasks[-1][3] += count

    def finish(self) -> None:
        self.tasks[-1][4] = "finished"


def unused_url(name: str = NAME) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/{name}"


def fetch(name: str, mirrors: list[str], sha256: str, folder: Path, progress: SilentProgress) -> Path:
    return fetch_first([Remote(name, tuple(mirrors), sha256)], folder, progress)


def get(folder: Path, *mirrors: Mirror, progress: SilentProgress | None = None, sha256: str = SHA256) -> Path:
    return fetch(NAME, [mirror.url for mirror in mirrors], sha256, folder, progress or SilentProgress())


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_downloads_once(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    mirror, progress = serve(), Recorder()
    folder = tmp_path / "new" / "folder"
    path = get(folder, mirror, progress=progress)
    assert path == folder / NAME
    assert path.read_bytes() == DATA
    assert left(folder) == {NAME}
    assert progress.tasks == [[f"downloading {NAME}", len(DATA), "bytes", len(DATA), "finished"]]
    assert mirror.asked == ["HEAD", "GET"]
    assert get(folder, mirror) == path
    assert mirror.asked == ["HEAD", "GET"], "a complete file needs no network"


def test_what_is_killed_at_any_point_leaves_all_that_has_come(
    tmp_path: Path, serve: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while its digest is taken, which of a large file takes long."""

    class KilledError(BaseException):
        pass

    def kill(*_: object) -> str:
        raise KilledError

    mirror = serve()
    with monkeypatch.context() as patched:
        patched.setattr(download, "_digest_of", kill)
        with pytest.raises(KilledError):
            get(tmp_path, mirror)
    assert left(tmp_path) == {f"{NAME}.part"}
    assert get(tmp_path, mirror).read_bytes() == DATA
    assert mirror.asked[2:] == ["HEAD", f"GET bytes={len(DATA)}-"]
    assert left(tmp_path) == {NAME}


def test_it_says_that_another_process_is_downloading(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    progress, begun = Recorder(), threading.Event()

    def download_for_a_while() -> None:
        with FileLock(tmp_path / f".{NAME}.lock"):
            begun.set()
            time.sleep(0.6)

    threading.Thread(target=download_for_a_while).start()
    begun.wait()
    assert get(tmp_path, serve(), progress=progress).read_bytes() == DATA
    assert progress.notes == [f"Waiting: another process is downloading {NAME}."]


def test_replaces_a_file_with_another_digest(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    (tmp_path / NAME).write_bytes(DATA[:-1])
    assert get(tmp_path, serve()).read_bytes() == DATA


def test_resumes_a_cut_transfer(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    mirror = serve(cut_at=CUT)
    with pytest.raises(SourceUnavailableError, match=rf"{NAME} cannot be downloaded: every transfer broke of"):
        get(tmp_path, mirror)
    assert left(tmp_path) == {f"{NAME}.part"}, "what has come is kept, but not under the name of the file"
    assert (tmp_path / f"{NAME}.part").read_bytes() == DATA[:CUT]

    mirror.cut_at, progress = None, Recorder()
    mirror.asked.clear()
    assert get(tmp_path, mirror, progress=progress).read_bytes() == DATA
    assert mirror.asked == ["HEAD", f"GET bytes={CUT}-"]
    assert left(tmp_path) == {NAME}
    assert progress.tasks[-1][1::2] == [len(DATA), len(DATA)]


def test_goes_on_at_the_next_mirror_where_one_broke_off(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    first, second, third = serve(cut_at=CUT), serve(cut_at=2 * CUT), serve()
    progress = Recorder()
    assert get(tmp_path, first, second, third, progress=progress).read_bytes() == DATA
    assert first.asked == ["HEAD", "GET"]
    assert second.asked == ["HEAD", f"GET bytes={CUT}-"]
    assert third.asked == ["HEAD", f"GET bytes={2 * CUT}-"]
    assert [task[4] for task in progress.tasks] == ["finished"] * 3


def test_asks_a_mirror_again_that_broke_off(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    mirror = serve(cut_at=CUT)

    class Repairing(Recorder):
        def finish(self) -> None:
            super().finish()
            mirror.cut_at = None

    assert get(tmp_path, mirror, progress=Repairing()).read_bytes() == DATA
    assert mirror.asked == ["HEAD", "GET", f"GET bytes={CUT}-"]


def test_a_server_without_ranges_sends_all_of_it(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(DATA[:CUT])
    mirror = serve(ranges=False)
    assert get(tmp_path, mirror).read_bytes() == DATA
    assert mirror.asked == ["HEAD", f"GET bytes={CUT}-"]
    assert left(tmp_path) == {NAME}


def test_a_part_that_is_complete(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    mirror = serve()
    (tmp_path / f"{NAME}.part").write_bytes(DATA)
    assert get(tmp_path, mirror).read_bytes() == DATA
    assert mirror.asked == ["HEAD", f"GET bytes={len(DATA)}-"]


@pytest.mark.parametrize("part", [DATA + b"more", bytes(len(DATA)), bytes(1000)], ids=["longer", "as long", "shorter"])
def test_a_part_of_something_else(tmp_path: Path, serve: Callable[..., Mirror], part: bytes) -> None:
    mirror = serve()
    (tmp_path / f"{NAME}.part").write_bytes(part)
    assert get(tmp_path, mirror).read_bytes() == DATA
    assert mirror.asked == ["HEAD", f"GET bytes={len(part)}-", "GET"]
    assert left(tmp_path) == {NAME}


def test_an_end_before_the_announced_length(
    tmp_path: Path, serve: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.Response, "iter_content", lambda *args: iter([DATA[:CUT]]))
    with pytest.raises(SourceUnavailableError, match="every transfer broke off"):
        get(tmp_path, serve(ranges=False))
    assert left(tmp_path) == {f"{NAME}.part"}


def test_wrong_digest(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    mirror = serve(data=b"<html>Please log in</html>")
    found = hashlib.sha256(mirror.data).hexdigest()
    with pytest.raises(SourceError, match=rf"^{NAME} from 127\.0\.0\.1 is not the published file") as caught:
        get(tmp_path, mirror)
    assert not isinstance(caught.value, SourceUnavailableError)
    assert f"expected sha256 {SHA256}, found {found}." in str(caught.value)
    assert left(tmp_path) == set()
    assert mirror.asked == ["HEAD", "GET"], "the same wrong file is not fetched twice"


def test_next_mirror_where_one_has_another_file(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    assert get(tmp_path, serve(data=b"wrong"), serve()).read_bytes() == DATA


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_mirror_that_refuses_head(tmp_path: Path, serve: Callable[..., Mirror], status: int) -> None:
    mirror = serve(head_status=status)
    assert get(tmp_path, mirror).read_bytes() == DATA
    assert mirror.asked == ["HEAD", "GET bytes=0-0", "GET"]


def test_mirrors_that_lack_the_file(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    gone, whole = serve(head_status=404, get_status=404), serve()
    assert get(tmp_path / "a", gone, whole).read_bytes() == DATA
    assert gone.asked == ["HEAD"]
    with pytest.raises(SourceUnavailableError, match=r"no mirror offers it \(127\.0\.0\.1: HTTP 404\)\."):
        get(tmp_path / "b", gone)


def test_a_mirror_that_fails_after_the_probe(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    assert get(tmp_path / "a", serve(get_status=503), serve()).read_bytes() == DATA
    with pytest.raises(SourceUnavailableError, match="every transfer broke of"):
        get(tmp_path / "b", serve(get_status=503))


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    begin = time.monotonic()
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(NAME, [unused_url(), unused_url()], SHA256, tmp_path, SilentProgress())
    assert time.monotonic() - begin < 3
    assert str(caught.value) == f"{NAME} cannot be downloaded: no mirror answered within 8 s (127.0.0.1)."
    assert left(tmp_path) == set()


def test_servers_and_name_lookups_that_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert download.PROBE_S <= 8
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PROBE_S", 1.0)
    over, lookup = threading.Event(), socket.getaddrinfo

    def hang(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "127.0.0.1":
            return lookup(host, *args, **kwargs)
        over.wait(60)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = [f"http://mirror{n}.invalid/{NAME}" for n in range(5)]
        urls.append(f"http://127.0.0.1:{silent.getsockname()[1]}/{NAME}")
        begin = time.monotonic()
        with pytest.raises(SourceUnavailableError, match=r"within 1 s \(mirror0\.invalid, .*, 127\.0\.0\.1\)"):
            fetch(NAME, urls, SHA256, tmp_path, SilentProgress())
        assert time.monotonic() - begin < 2.5
    over.set()


def test_does_not_wait_for_slow_mirrors_when_one_answers(
    tmp_path: Path, serve: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_GRACE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = [f"http://127.0.0.1:{silent.getsockname()[1]}/{NAME}", serve().url]
        begin = time.monotonic()
        assert fetch(NAME, urls, SHA256, tmp_path, SilentProgress()).read_bytes() == DATA
        assert time.monotonic() - begin < 2


def test_a_transfer_that_stalls_goes_on_elsewhere(
    tmp_path: Path, serve: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_STALL_S", 0.3)
    over = threading.Event()
    stalling = serve()
    write = Handler.do_GET

    def stall(handler: Handler) -> None:
        if handler.mirror is stalling:
            handler._start(200, len(DATA))
            handler.wfile.write(DATA[:CUT])
            over.wait(30)
        else:
            write(handler)

    monkeypatch.setattr(Handler, "do_GET", stall)
    second = serve()
    begin = time.monotonic()
    assert get(tmp_path, stalling, second).read_bytes() == DATA
    assert time.monotonic() - begin < 10
    assert second.asked == ["HEAD", f"GET bytes={CUT}-"]
    over.set()


def test_equivalent_files_in_order(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    missing = Remote("first.tar.gz", (unused_url("first.tar.gz"),), "00" * 32)
    present = Remote(NAME, (serve().url,), SHA256)
    assert fetch_first([missing, present], tmp_path, SilentProgress()) == tmp_path / NAME
    with pytest.raises(SourceUnavailableError, match=rf"^first\.tar\.gz or {NAME} cannot be downloaded: no mirror"):
        fetch_first([missing, Remote(NAME, (unused_url(),), "11" * 32)], tmp_path, SilentProgress())


def test_a_folder_that_cannot_be_written(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot take downloads") as caught:
        get(tmp_path / "file", serve())
    assert not isinstance(caught.value, SourceUnavailableError)


# Files that are known by something else than their sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def zip_of(comment: bytes, content: bytes = b"x") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("set/file", content)
        archive.comment = comment
    return packed.getvalue()


GITHUB = zip_of(COMMIT.encode())
BY_MD5 = Remote(NAME, (), md5=hashlib.md5(DATA).hexdigest())
BY_COMMIT = Remote("set.zip", (), commit=COMMIT)
KNOWN = [(BY_MD5, DATA, b"wrong"), (BY_COMMIT, GITHUB, zip_of(b"f" * 40))]
by_md5_and_by_commit = pytest.mark.parametrize(("remote", "data", "wrong"), KNOWN, ids=["md5", "commit"])


def note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


@pytest.mark.parametrize("known", [{}, {"md5": "0" * 32, "sha256": "0" * 64}, {"md5": "0" * 32, "commit": COMMIT}])
def test_a_file_is_known_by_one_thing(known: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one of sha256, md5 and commit"):
        Remote(NAME, (), **known)  # type: ignore[arg-type]


def test_what_a_file_is_known_by() -> None:
    told = [(remote.digest_name, remote.digest) for remote in (Remote(NAME, (), SHA256), BY_MD5, BY_COMMIT)]
    assert told == [("sha256", SHA256), ("md5", BY_MD5.md5), ("commit", COMMIT)]


def test_published_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    assert is_published(Remote(NAME, (), SHA256), path)
    assert is_published(BY_MD5, path)
    assert not is_published(BY_COMMIT, path)
    path.write_bytes(DATA[:-1])
    assert not is_published(Remote(NAME, (), SHA256), path)
    assert not is_published(BY_MD5, path)


@pytest.mark.parametrize(
    ("data", "published"),
    [
        (GITHUB, True),
        (zip_of(COMMIT.encode(), b"the same commit in other bytes"), True),
        (zip_of(b""), False),
        (zip_of(COMMIT[:-1].encode() + b"0"), False),
        (zip_of(COMMIT.encode() + b"0"), False),
        (zip_of(COMMIT.upper().encode()), False),
        (COMMIT.encode(), False),
        (b"PK\5\6" + bytes(8) + b"\xff\xff\xff\x7f" + bytes(4) + b"\x28\0" + COMMIT.encode(), False),
        (GITHUB[-62:], False),
        (GITHUB[:-1], False),
        (b"", False),
    ],
)
def test_archives_of_a_commit(tmp_path: Path, data: bytes, published: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert is_published(BY_COMMIT, path) == published


@by_md5_and_by_commit
def test_downloads_once_by_md5_or_commit(
    tmp_path: Path, serve: Callable[..., Mirror], remote: Remote, data: bytes, wrong: bytes
) -> None:
    mirror = serve(data=data)
    remote = replace(remote, mirrors=(mirror.url,))
    (path,) = fetch_all([remote], tmp_path, SilentProgress(), licence="none")
    assert path.read_bytes() == data
    # In the form that sha256sum --check reads.
    assert note_of(path).read_text() == f"{hashlib.sha256(data).hexdigest()}  {remote.name}\n"
    asked = list(mirror.asked)
    assert fetch_all([remote], tmp_path, SilentProgress(), licence="none") == [path]
    assert mirror.asked == asked, "a complete file needs no network"
    assert left(tmp_path) == {remote.name, f"{remote.name}.sha256"}


def test_a_file_known_by_sha256_needs_no_note(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    assert not note_of(get(tmp_path, serve())).exists()


@by_md5_and_by_commit
def test_another_file_by_md5_or_commit(
    tmp_path: Path, serve: Callable[..., Mirror], remote: Remote, data: bytes, wrong: bytes
) -> None:
    remote = replace(remote, mirrors=(serve(data=wrong).url,))
    with pytest.raises(SourceError, match="is not the published file") as caught:
        fetch_first([remote], tmp_path, SilentProgress())
    found = hashlib.md5(wrong).hexdigest() if remote.md5 else "f" * 40
    assert f"expected {remote.digest_name} {remote.digest}, found {found}." in str(caught.value)
    assert left(tmp_path) == set()


@by_md5_and_by_commit
def test_replaces_another_file_by_md5_or_commit(
    tmp_path: Path, serve: Callable[..., Mirror], remote: Remote, data: bytes, wrong: bytes
) -> None:
    (tmp_path / remote.name).write_bytes(wrong)
    offline = replace(remote, mirrors=(unused_url(),))
    with pytest.raises(SourceUnavailableError):
        fetch_first([offline], tmp_path, SilentProgress())
    assert (tmp_path / remote.name).read_bytes() == wrong, "nothing is lost where nothing can be had"
    path = fetch_first([replace(remote, mirrors=(serve(data=data).url,))], tmp_path, SilentProgress())
    assert path.read_bytes() == data


def test_a_file_that_changed_since_it_was_downloaded(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    """A commit as its comment anyone can set, and files of one md5 can be made."""
    for remote, data in ((BY_COMMIT, GITHUB), (BY_MD5, DATA)):
        mirror = serve(data=data)
        remote = replace(remote, mirrors=(mirror.url,))
        path = fetch_first([remote], tmp_path, SilentProgress())
        if remote is BY_COMMIT:
            path.write_bytes(zip_of(COMMIT.encode(), b"forged"))
        else:
            note_of(path).write_text(f"{'0' * 64}  {path.name}\n")
        assert not is_published(remote, path)
        mirror.asked.clear()
        assert fetch_first([remote], tmp_path, SilentProgress()).read_bytes() == data
        assert mirror.asked == ["HEAD", "GET"]
        assert is_published(remote, path)


def test_a_note_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    for text in (b"", b"\xff\0", b"ff  file"):
        note_of(tmp_path / "file").write_bytes(text)
        assert not is_published(BY_MD5, tmp_path / "file")
    assert is_published(Remote(NAME, (), SHA256), tmp_path / "file"), "that digest needs no help"


def test_resumes_by_md5_but_not_by_commit(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    by_md5 = serve(cut_at=CUT)
    remote = replace(BY_MD5, mirrors=(by_md5.url,))
    with pytest.raises(SourceUnavailableError, match="Run again to resume"):
        fetch_first([remote], tmp_path, SilentProgress())
    by_md5.cut_at = None
    by_md5.asked.clear()
    assert fetch_first([remote], tmp_path, SilentProgress()).read_bytes() == DATA
    assert by_md5.asked == ["HEAD", f"GET bytes={CUT}-"]

    # GitHub packs a commit anew at any time: the halves of two archives are none.
    today = zip_of(COMMIT.encode(), b"y" * 1000)
    by_commit = serve(data=today)
    (tmp_path / "set.zip.part").write_bytes(zip_of(COMMIT.encode(), b"z" * 1000)[:500])
    path = fetch_first([replace(BY_COMMIT, mirrors=(by_commit.url,))], tmp_path, SilentProgress())
    assert path.read_bytes() == today
    assert by_commit.asked == ["HEAD", "GET"]
    assert left(tmp_path) == {NAME, f"{NAME}.sha256", "set.zip", "set.zip.sha256"}


# Several files that belong together


def test_fetches_all(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    first, second = serve(), serve(data=GITHUB)
    remotes = [Remote(NAME, (first.url,), SHA256), replace(BY_COMMIT, mirrors=(unused_url(), second.url))]
    progress = Recorder()
    paths = fetch_all(remotes, tmp_path, progress, licence="set: none")
    assert [path.read_bytes() for path in paths] == [DATA, GITHUB]
    assert progress.log == ["Licence of set: none", f"downloading {NAME}", "downloading set.zip"]
    assert all(task[-1] == "finished" for task in progress.tasks)

    paths[0].unlink()
    progress, second.asked = Recorder(), []
    assert fetch_all(remotes, tmp_path, progress, licence="set: none") == paths
    assert progress.log == ["Licence of set: none", f"downloading {NAME}"]
    assert not second.asked, "what is there is not downloaded again"

    progress = Recorder()
    assert fetch_all(remotes, tmp_path, progress, licence="set: none") == paths
    assert progress.log == [], "nothing is downloaded: nothing is told"


def test_one_of_all_that_cannot_be_had(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    remotes = [Remote(NAME, (serve().url,), SHA256), replace(BY_COMMIT, mirrors=(unused_url(),))]
    with pytest.raises(SourceUnavailableError, match=r"^set\.zip cannot be downloaded: no mirror answered"):
        fetch_all(remotes, tmp_path, SilentProgress(), licence="none")
    assert left(tmp_path) == {NAME}, "the other one is kept"


def test_the_licence_is_told_before_a_transfer_only(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    progress = Recorder()
    with pytest.raises(SourceUnavailableError):
        fetch_first([Remote(NAME, (unused_url(),), SHA256)], tmp_path, progress, licence="a: MIT")
    assert progress.log == []
    remote = Remote(NAME, (serve().url,), SHA256)
    fetch_first([remote], tmp_path, progress, licence="a: MIT")
    assert progress.log == ["Licence of a: MIT", f"downloading {NAME}"]
    fetch_first([remote], tmp_path, progress, licence="a: MIT")
    assert len(progress.log) == 2
