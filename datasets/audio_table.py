"""Tables that come with sound sets: CSV files with one row per sound."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contracts.source import SourceError

# The largest published one has 9,473 rows and 0.7 MB.
_MOST_BYTES = 64 << 20
_NUMBER = re.compile("[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values by column, and where it is, for messages."""

    where: str
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def number(self, column: str) -> int:
        """Return a value as a whole number. Raises SourceError."""
        value = self.values[column]
        if not _NUMBER.fullmatch(value):
            raise self.wrong(f"{column} is {value!r}, not a whole number")
        return int(value)

    def wrong(self, what: str) -> SourceError:
        """Return the error that says what is wrong with this row."""
        return SourceError(f"{self.where}: {what}. Correct the line, or use an untouched copy.")


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a CSV file (UTF-8) that has these columns, the first of which names a sound, each once.

    Raises:
        SourceError: the file cannot be read or is no such table; a row lacks a value or comes twice.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SourceError(f"{path} has more than {_MOST_BYTES >> 20} MB: it is not the table of this set.")
        # A byte order mark is what a spreadsheet adds.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise SourceError(f"{path} lacks the column {missing[0]!r} in its first line. Use an untouched copy.")
            rows = []
            seen: dict[str, str] = {}
            for values in reader:
                row = Row(f"{path}, line {reader.line_num}", {column: values[column] or "" for column in columns})
                key = row[columns[0]]
                if not all(row.values.values()):
                    raise row.wrong("it lacks a value")
                if key in seen:
                    raise row.wrong(f"{key} has been there already, in {seen[key]}")
                seen[key] = f"line {reader.line_num}"
                rows.append(row)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is no table in CSV: {error}. Use an untouched copy.") from error
    if not rows:
        raise SourceError(f"{path} has no rows. Use an untouched copy.")
    return rows


def names_in(folder: Path) -> frozenset[str]:
    """Return the names of the files in a folder. Raises SourceError."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}.") from error
