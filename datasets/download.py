"""Downloads: mirrors, resuming, checksums, and a quick answer where there is no network."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import requests

from bench.contracts.locks import held
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
    """A published file, where it can be had, best place first, and the one thing that it is known by.

    That is its sha256; or its md5, where nothing better is published; or, for an archive that
    GitHub makes of one commit, the 40 digits of ``commit``: GitHub sets them as the comment of
    the zip file, whose bytes it does not keep stable. All digits are in lower case.
    """

    name: str
    mirrors: tuple[str, ...]
    sha256: str | None = None
    size_bytes: int | None = None
    md5: str | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        if len(self._digests()) != 1:
            raise ValueError(f"{self.name} must be known by exactly one of sha256, md5 and commit")

    @property
    def digest_name(self) -> str:
        """What the file is known by: "sha256", "md5" or "commit"."""
        return next(iter(self._digests()))

    @property
    def digest(self) -> str:
        """Its hexadecimal value."""
        return self._digests()[self.digest_name]

    def _digests(self) -> dict[str, str]:
        known = {"sha256": self.sha256, "md5": self.md5, "commit": self.commit}
        return {name: value for name, value in known.items() if value is not None}


def is_published(remote: Remote, path: Path) -> bool:
    """Say whether a file is the published one; see ``deviation``."""
    return not deviation(remote, path)


def deviation(remote: Remote, path: Path) -> str:
    """Say what sets a file apart from the published one, or return nothing.

    A file known by md5 or commit is also compared with the sha256 that was noted next to it
    when it was downloaded: the other two guard against accidents only.

    Raises:
        OSError: it cannot be read.
    """
    found = _digest_of(remote, path)
    if found != remote.digest:
        return f"its {remote.digest_name} is {found}, not {remote.digest}"
    note = _note_of(path)
    if remote.sha256 is None and note.is_file() and note.read_bytes().split()[:1] != [sha256_of(path).encode()]:
        return f"it has changed since it was downloaded: its sha256 is not that in {note.name}"
    return ""


def _digest_of(remote: Remote, path: Path) -> str:
    if remote.commit is not None:
        return _commit_of(path)
    if remote.md5 is not None:
        with path.open("rb") as file:
            return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    return sha256_of(path)


def _commit_of(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return ascii(archive.comment[:80].decode("latin-1"))[1:-1] or "none"
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "none"


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def fetch_first(remotes: Sequence[Remote], folder: Path, progress: Progress, *, licence: str | None = None) -> Path:
    """Return the first of several equivalent files that can be had, complete and verified.

    What is in ``folder`` already is not downloaded again, and a broken transfer is taken up.
    ``licence`` is told before the first byte is transferred.

    Raises:
        SourceUnavailableError: no mirror answers (known within 10 s), or all of them fail.
        SourceError: what the mirrors offer is not the published file, or cannot be stored.
    """
    return _fetch_first(remotes, folder, progress, _notes(licence))


def fetch_all(remotes: Sequence[Remote], folder: Path, progress: Progress, *, licence: str) -> list[Path]:
    """Return all of several files, complete and verified; see ``fetch_first`` for the rest."""
    notes = _notes(licence)
    return [_fetch_first([remote], folder, progress, notes) for remote in remotes]


def _notes(licence: str | None) -> Iterator[str]:
    """Yield what to tell before a transfer. An iterator, so that it is told before the first one only."""
    return iter([] if licence is None else [f"Licence of {licence}"])


def _fetch_first(remotes: Sequence[Remote], folder: Path, progress: Progress, notes: Iterator[str]) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for remote in remotes:
                # Two processes that resume the same part would ruin it.
                lock = folder / f".{remote.name}.lock"
                stack.enter_context(held(lock, f"downloading {remote.name}", progress))
            for remote in remotes:
                path = folder / remote.name
                if path.is_file() and is_published(remote, path):
                    return path
            return _download(remotes, folder, progress, notes)
    except OSError as error:
        raise SourceError(f"{folder} cannot take downloads: {error.strerror or error}. Check the folder.") from error


def _download(remotes: Sequence[Remote], folder: Path, progress: Progress, notes: Iterator[str]) -> Path:
    reachable = _reachable(remotes)
    for note in notes:
        progress.note(note)
    attempts = deque([(remote, url) for remote in remotes for url in remote.mirrors if url in reachable] * _ROUNDS)
    mismatch: SourceError | None = None
    failure = ""
    while attempts:
        remote, url = attempts.popleft()
        transfer = _Transfer(remote, folder / remote.name, progress)
        try:
            return transfer.fetch(url)
        except requests.RequestException as error:
            failure = f"{_host(url)}: {type(error).__name__}"
        except _WrongFileError as error:
            mismatch = SourceError(
                f"{remote.name} from {_host(url)} is not the published file: expected {remote.digest_name} "
                f"{remote.digest}, found {error}. It was removed; run again, or get the file by hand."
            )
            # A resumed file may have begun wrong; one fetched in one go only comes out the same.
            if not transfer.resumed:
                attempts = deque(attempt for attempt in attempts if attempt != (remote, url))
    if mismatch is not None:
        raise mismatch
    raise SourceUnavailableError(
        f"{_names(remotes)} cannot be downloaded: every transfer broke off (last {failure}). Run again to resume."
    )


class _WrongFileError(Exception):
    """What came is not the published file; the text is its digest."""


class _Transfer:
    """Brings a file to ``path``; one that is unfinished lies beside it, and is taken up again."""

    def __init__(self, remote: Remote, path: Path, progress: Progress) -> None:
        self._remote = remote
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._progress = progress
        self.resumed = False

    def fetch(self, url: str) -> Path:
        """Return the path of the published file. Raises RequestException, _WrongFileError and OSError."""
        # What GitHub makes of a commit today need not go on where yesterday's broke off.
        resumable = self._remote.commit is None and self._part.exists()
        have = self._part.stat().st_size if resumable else 0
        if not self._receive(url, have):
            self._part.unlink()
            self._receive(url, 0)
        found = _digest_of(self._remote, self._part)
        if found != self._remote.digest:
            self._part.unlink()
            raise _WrongFileError(found)
        note = _note_of(self._path)
        # That of another file.
        note.unlink(missing_ok=True)
        self._part.replace(self._path)
        if self._remote.sha256 is None:
            note.write_text(f"{sha256_of(self._path)}  {self._path.name}\n")
        return self._path

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
