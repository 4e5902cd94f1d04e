"""Downloads: mirrors, resuming, checksums, and a quick answer where there is no network."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from filelock import FileLock

from bench.contracts.source import Progress, SourceError, SourceUnavailableError

from .archive import sha256_of

PROBE_S = 8.0
_PROBE_REQUEST_S = 4.0
_GRACE_S = 1.5  # for other mirrors, once one has answered
_CONNECT_S = 8.0
_STALL_S = 30.0  # silence, not slowness: some hosts send 70 kB/s for an hour
_ROUNDS = 3
_CHUNK_BYTES = 1 << 16
_HEAD_REFUSED = {403, 405, 501}


@dataclass(frozen=True, slots=True)
class Remote:
    """A published file and where it can be had, best place first."""

    name: str
    mirrors: tuple[str, ...]
    sha256: str
    size_bytes: int | None = None


def fetch(
    name: str,
    mirrors: Sequence[str],
    sha256: str,
    folder: Path,
    progress: Progress,
    *,
    size_bytes: int | None = None,
) -> Path:
    """Download one file into ``folder``; see ``fetch_first``."""
    return fetch_first([Remote(name, tuple(mirrors), sha256, size_bytes)], folder, progress)


def fetch_first(remotes: Sequence[Remote], folder: Path, progress: Progress) -> Path:
    """Return the first of several equivalent files that can be had, complete and verified.

    What is in ``folder`` already is not downloaded again, and a broken transfer is taken up.

    Raises:
        SourceUnavailableError: no mirror answers (known within 10 s), or all of them fail.
        SourceError: what the mirrors offer is not the published file, or cannot be stored.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Two processes that resume the same part would ruin it.
        with FileLock(folder / f".{remotes[0].name}.lock"):
            for remote in remotes:
                path = folder / remote.name
                if path.is_file() and sha256_of(path) == remote.sha256:
                    return path
            return _download(remotes, folder, progress)
    except OSError as error:
        raise SourceError(f"{folder} cannot take downloads: {error.strerror or error}. Check the folder.") from error


def _download(remotes: Sequence[Remote], folder: Path, progress: Progress) -> Path:
    reachable = _reachable(remotes)
    attempts = deque([(remote, url) for remote in remotes for url in remote.mirrors if url in reachable] * _ROUNDS)
    # Otherwise pooch tells on its own where it downloads from.
    pooch.get_logger().setLevel("WARNING")
    mismatch: SourceError | None = None
    failure = ""
    while attempts:
        remote, url = attempts.popleft()
        transfer = _Transfer(remote, folder / f"{remote.name}.part", progress)
        try:
            return Path(pooch.retrieve(url, f"sha256:{remote.sha256}", remote.name, folder, downloader=transfer))
        except requests.RequestException as error:
            failure = f"{_host(url)}: {type(error).__name__}"
        except ValueError:  # how pooch reports a wrong digest; the file is gone by now
            mismatch = SourceError(
                f"{remote.name} from {_host(url)} is not the published file: expected sha256 {remote.sha256}, "
                f"found {transfer.found_sha256}. It was removed; run again, or get the file by hand."
            )
            # A resumed file may have begun wrong; one fetched in one go only comes out the same.
            if not transfer.resumed:
                attempts = deque(attempt for attempt in attempts if attempt != (remote, url))
    if mismatch is not None:
        raise mismatch
    raise SourceUnavailableError(
        f"{_names(remotes)} cannot be downloaded: every transfer broke off (last {failure}). Run again to resume."
    )


class _Transfer:
    """A downloader for pooch that keeps an unfinished file and takes it up again."""

    def __init__(self, remote: Remote, part: Path, progress: Progress) -> None:
        self._remote = remote
        self._part = part
        self._progress = progress
        self.resumed = False
        self.found_sha256 = ""

    def __call__(self, url: str, output_file: str, _: object) -> None:
        have = self._part.stat().st_size if self._part.exists() else 0
        if not self._receive(url, have):
            self._part.unlink()
            self._receive(url, 0)
        self.found_sha256 = sha256_of(self._part)
        self._part.replace(output_file)

    def _receive(self, url: str, have: int) -> bool:
        """Complete the part, or return False where what it has is of no use here."""
        # Without "identity" a server may compress, and lengths would mean something else.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=(_CONNECT_S, _STALL_S)) as response:
            answered_range = response.headers.get("Content-Range", "")
            if have and response.status_code == requests.codes.requested_range_not_satisfiable:
                self.resumed = True
                return answered_range == f"bytes */{have}"
            response.raise_for_status()
            if have and response.status_code != requests.codes.partial_content:
                have = 0  # the server sends all of it
            elif have and not answered_range.startswith(f"bytes {have}-"):
                return False
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if length.isdecimal() else None
            self.resumed = have > 0
            self._store(response, have, total)
        return True

    def _store(self, response: requests.Response, have: int, total: int | None) -> None:
        self._progress.start(f"downloading {self._remote.name}", total or self._remote.size_bytes or 0, "bytes")
        try:
            self._progress.advance(have)
            with self._part.open("ab" if have else "wb") as file:
                for chunk in response.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    self._progress.advance(len(chunk))
                file.flush()
                os.fsync(file.fileno())
                received = file.tell()
        finally:
            self._progress.finish()
        # urllib3 1 takes a connection that dies for the end of the file.
        if total is not None and received < total:
            raise requests.ConnectionError(f"{received} of {total} bytes")


def _reachable(remotes: Sequence[Remote]) -> set[str]:
    """Return the mirrors that offer their file.

    Threads, because a name lookup obeys no timeout; daemons, because it may outlast us.
    """
    urls = [url for remote in remotes for url in remote.mirrors]
    answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for url in urls:
        threading.Thread(target=lambda url=url: answers.put((url, _probe(url))), daemon=True).start()
    faults: dict[str, str] = {}
    reachable: set[str] = set()
    deadline = time.monotonic() + PROBE_S
    while len(faults) + len(reachable) < len(urls):
        try:
            url, fault = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if fault:
            faults[url] = fault
        else:
            reachable.add(url)
            deadline = min(deadline, time.monotonic() + _GRACE_S)
    if reachable:
        return reachable
    refused = {_host(url): fault for url, fault in faults.items() if fault.startswith("HTTP")}
    if refused:
        reason = f"no mirror offers it ({', '.join(f'{host}: {fault}' for host, fault in refused.items())})"
    else:
        reason = f"no mirror answered within {PROBE_S:.0f} s ({', '.join(dict.fromkeys(map(_host, urls)))})"
    raise SourceUnavailableError(f"{_names(remotes)} cannot be downloaded: {reason}.")


def _probe(url: str) -> str:
    """Return what speaks against a mirror, or nothing."""
    try:
        response = requests.head(url, allow_redirects=True, timeout=_PROBE_REQUEST_S)
        if response.status_code in _HEAD_REFUSED:
            with requests.get(url, headers={"Range": "bytes=0-0"}, stream=True, timeout=_PROBE_REQUEST_S) as response:
                pass
    except (OSError, ValueError) as error:  # requests raises both, for bad addresses the latter
        return type(error).__name__
    return "" if response.ok else f"HTTP {response.status_code}"


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _names(remotes: Sequence[Remote]) -> str:
    return " or ".join(remote.name for remote in remotes)
