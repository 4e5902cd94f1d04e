"""Records out and in: tables for other programs, and records of several machines in one folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.contracts.errors import BenchError
from bench.files import replacing
from bench.records import results
from bench.records.flat import Flat, flatten, text
from bench.records.record import RecordError, RunRecord, read_record

FORMATS = (".csv", ".parquet")
_ROWS_AT_ONCE = 10_000


class ExchangeError(BenchError):
    """A table that cannot be written, or a folder that cannot be imported."""


def require_target(path: Path) -> None:
    """Raise ExchangeError where no table could be written to ``path``: before any work is done."""
    if path.suffix not in FORMATS:
        raise ExchangeError(f"-o {path}: unknown format. The name must end in {' or '.join(FORMATS)}.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ExchangeError(f"-o {path}: its folder does not exist, or it is one itself. Choose another name.")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401  # whether it can be
        except ImportError as error:
            raise ExchangeError(
                f"Parquet needs pyarrow, which cannot be imported here ({error}): pip install pyarrow, or write .csv."
            ) from error


def export(named: Sequence[tuple[str, RunRecord]], path: Path) -> Flat:
    """Write a table of records with the names of their runs, in the format of the path's ending, and return it.

    CSV is UTF-8 with a heading; unknown is an empty cell, truth values are ``true`` and ``false``, floats are written
    so that they read back exactly, ``nan`` and ``inf`` among them. Parquet has int64, double, bool and string columns,
    unknown is null. An existing file is replaced when the new one is complete. Raises ExchangeError and OutputError.
    """
    require_target(path)
    flat = flatten(named)
    try:
        with replacing(path) as part:
            (_write_parquet if path.suffix == ".parquet" else _write_csv)(flat, part)
    except OverflowError as error:
        raise ExchangeError(
            f"-o {path}: a number does not fit into 64 bits, as Parquet has them. Write .csv."
        ) from error
    return flat


def _write_csv(flat: Flat, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(flat.columns)
        writer.writerows([text(row.get(name)) for name in flat.columns] for row in flat.rows)


def _write_parquet(flat: Flat, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in flat.columns.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(flat.rows), _ROWS_AT_ONCE):
            writer.write_table(pa.Table.from_pylist(flat.rows[start : start + _ROWS_AT_ONCE], schema=schema))


@dataclass(slots=True)
class Imported:
    """What an import did: new records by the path they got, how many were there already, and what was left.

    ``renamed`` are those of ``new`` whose name was taken by another record.
    """

    new: list[tuple[Path, RunRecord]] = field(default_factory=list)
    known: int = 0
    renamed: list[Path] = field(default_factory=list)
    unreadable: list[RecordError] = field(default_factory=list)


def merge(folders: Sequence[Path], into: Path) -> Imported:
    """Copy the records of folders into one, each once: those of equal content are the same, whatever their names.

    Files are copied as they are, so that records of older versions stay what they were. Raises ExchangeError for a
    folder that is none, ResultsError where nothing can be written; what was copied until then stays and is complete.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ExchangeError(f"{folder} is not a folder. Name folders of records.")
    results.require_writable(into)
    done = Imported()
    known = {_content(path) for path in sorted(into.glob("*.json")) if _readable(path)}
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            try:
                record = read_record(path)
                identity = _content(path)
            except RecordError as error:
                done.unreadable.append(error)
                continue
            if identity in known:
                done.known += 1
                continue
            known.add(identity)
            target = results.keep(path.read_bytes(), into, path.stem)
            done.new.append((target, record))
            if target.name != path.name:
                done.renamed.append(target)
    return done


def _readable(path: Path) -> bool:
    try:
        read_record(path)
    except RecordError:
        # Whoever reads the folder hears of it; for a merge it is no record.
        return False
    return True


def _content(path: Path) -> str:
    """Return the content of a record without its layout."""
    return json.dumps(json.loads(path.read_bytes()), sort_keys=True)
