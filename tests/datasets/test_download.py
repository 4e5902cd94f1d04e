from __future__ import annotations

import hashlib
import io
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pooch
import pytest
import requests

from bench.contracts.source import SilentProgress, SourceError, SourceUnavailableError
from bench.datasets import download
from bench.datasets.download import Remote, fetch, fetch_first

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

    def start(self, label: str, total: int, unit: str) -> None:
        self.tasks.append([label, total, unit, 0, "open"])

    def advance(self, count: int) -> None:
        self.tasks[-1][3] += count

    def finish(self) -> None:
        self.tasks[-1][4] = "finished"


def unused_url(name: str = NAME) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/{name}"


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


def test_only_the_progress_says_something(
    tmp_path: Path, serve: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pooch.get_logger()
    log.setLevel("INFO")
    monkeypatch.setattr(log.handlers[0], "stream", io.StringIO())
    get(tmp_path, serve())
    assert log.handlers[0].stream.getvalue() == ""


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
