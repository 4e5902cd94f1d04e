"""The folder of records: written atomically, one file a run."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from bench.contracts.errors import BenchError
from bench.records.record import RecordError, RunRecord, read_record

RELATED_RUNS = 100


class ResultsError(BenchError):
    """A results folder that cannot be used, or a run that is not in it."""


def require_writable(folder: Path) -> None:
    """Raise ResultsError when records could not be written to a folder; it need not exist, and is not created."""
    existing = folder.absolute()
    try:
        while not existing.exists():
            if existing.is_symlink():
                raise ResultsError(f"Cannot write records to {folder}: {existing} is a link to nowhere. Mend it.")
            existing = existing.parent
    except OSError as error:
        raise ResultsError(f"Cannot write records to {folder}: {error.strerror}. Choose another --results.") from error
    if not existing.is_dir():
        raise ResultsError(f"Cannot write records to {folder}: {existing} is not a folder. Choose another --results.")
    try:
        # Tried, because permissions alone do not tell: procfs, a file system mounted read-only, a full disk.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = f"{existing}: {error.strerror}"
        raise ResultsError(f"Cannot write records to {folder}: {reason}. Choose another --results.") from error


def run_name(record: RunRecord) -> str:
    """Return the name of a run: when, on what, how; synthetic data is named as such."""
    spec = record.spec
    stamp = record.started_at[:19].replace("-", "").replace(":", "").replace("T", "-")
    synthetic = ["synthetic"] if record.data is not None and record.data.origin == "synthetic" else []
    return "-".join([stamp, spec.dataset_label, *synthetic, spec.backend, spec.model, record.spec_id[:6]])


def write(record: RunRecord, folder: Path) -> Path:
    """Write a record under a name not yet taken, and return its path. Raises ResultsError."""
    return keep((record.to_json() + "\n").encode(), folder, run_name(record))


def keep(content: bytes, folder: Path, name: str) -> Path:
    """Write a record as it is, under this name or, if that is taken, one with a number; return its path.

    It is there whole or not at all. Raises ResultsError.
    """
    part = folder / f".{name}.part-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        for number in itertools.count(1):
            path = folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
            if _named(part, path):
                return path
    except OSError as error:
        raise ResultsError(f"Cannot write {folder / name}.json: {error.strerror}. Choose another --results.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    raise AssertionError("numbers do not end")


def _named(part: Path, path: Path) -> bool:
    """Give a file its name, unless another has it: two runs that end in the same second keep both records."""
    try:
        # A link never overwrites.
        path.hardlink_to(part)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP}:
            raise
        # A file system without hard links.
        if path.exists():
            return False
        part.replace(path)
    return True


def read_all(folder: Path) -> tuple[list[tuple[Path, RunRecord]], list[RecordError]]:
    """Return all readable records, oldest first, and the errors of the others. Raises ResultsError.

    A record that is there under two names is returned once: twice it would count as two runs that agree.
    """
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"{folder} is not a folder. Choose another --results.")
    found: list[tuple[Path, RunRecord]] = []
    errors: list[RecordError] = []
    by_start: dict[str, list[tuple[Path, RunRecord]]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = read_record(path)
        except RecordError as error:
            errors.append(error)
            continue
        together = by_start.setdefault(record.started_at, [])
        # As text: a loss that became NaN equals none, itself neither.
        text = record.to_json() if together else ""
        same = next((known for known, other in together if other.to_json() == text), None)
        if same is not None:
            errors.append(RecordError(f"{path} is the same record as {same.name}, which counts once. Remove one."))
            continue
        together.append((path, record))
        found.append((path, record))
    return sorted(found, key=lambda item: item[1].started_at), errors


def find(run: str, folder: Path) -> tuple[Path, RunRecord]:
    """Return a run by path, by the start of its name, or ``last``. Raises ResultsError or RecordError."""
    if Path(run).is_file():
        return Path(run), read_record(Path(run))
    paths = sorted(folder.glob("*.json"))
    if run == "last":
        matching = [path for path, _ in read_all(folder)[0][-1:]]
    else:
        matching = [path for path in paths if path.stem == run] or [path for path in paths if path.name.startswith(run)]
    if not matching:
        raise ResultsError(f"No run {run!r} in {folder}. `bench list runs` shows what is there.")
    if len(matching) > 1:
        names = ", ".join(path.stem for path in matching[:5])
        raise ResultsError(f"{run!r} is the start of {len(matching)} runs: {names}. Give more of the name.")
    return matching[0], read_record(matching[0])


def related(record: RunRecord, folder: Path) -> list[RunRecord]:
    """Return the newest readable runs of the same data set, backend and model."""
    spec = record.spec
    paths = sorted(folder.glob(f"*-{spec.dataset_label}*-{spec.backend}-{spec.model}-*.json"))[-RELATED_RUNS:]
    found = []
    for path in paths:
        # One that cannot be read is reported by the commands that are about records.
        with suppress(RecordError):
            found.append(read_record(path))
    return found


def campaign(name: str, folder: Path) -> tuple[list[RunRecord], list[RecordError]]:
    """Return all runs of a comparison by its id, or of the ``last`` one, and errors of records. Raises ResultsError."""
    found, errors = read_all(folder)
    runs = [record for _, record in found if record.campaign is not None]
    last = runs[-1].campaign if runs else None
    wanted = last.id if name == "last" and last is not None else name
    chosen = [run for run in runs if run.campaign is not None and run.campaign.id == wanted]
    if not chosen:
        ids = sorted({run.campaign.id for run in runs if run.campaign is not None})
        known = f"There are: {', '.join(ids[-5:])}." if ids else "There is none. Make one with `bench compare`."
        raise ResultsError(f"No comparison {name!r} in {folder}. {known}")
    return chosen, errors
