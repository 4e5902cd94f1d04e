"""What was measured of loaders, as tables."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.report.tables import Table

READERS = ("naive", "library", "mapped")


@dataclass
class Row:
    """One case under one kind of loading; ``ratios`` to the limit are those of all rounds."""

    data: str
    case: str
    reader: str
    workers: str
    order: str
    samples_per_s: float
    ratios: list[float]
    cpu_s: float | None
    """For one epoch."""

    goal: float | None = None
    bare: str | None = None
    bare_ratios: list[float] | None = None

    @property
    def words(self) -> str:
        """What the row is about."""
        return words_of(self.data, self.case, self.reader, self.workers, self.order)

    @property
    def ratio(self) -> float:
        """The median ratio to the limit."""
        return statistics.median(self.ratios)


def words_of(*words: str) -> str:
    """Return the words of a row, by which it can be chosen."""
    return " ".join(words)


def table(rows: list[Row], notes: list[str], before: list[Row]) -> Table:
    """Return the rows as a table, with the ratios that the same loading of the same stores had ``before``."""
    earlier = {(row.data, row.case, row.workers, row.order): row.ratio for row in before}
    naive = {(row.data, row.case): row.ratio for row in rows if row.reader == "naive"}
    header = [
        "data",
        "store",
        "reader",
        "loading",
        "order",
        "samples/s",
        "of the limit",
        "goal",
        "before, of the limit there",
        "naive, of the limit",
    ]
    header += ["of bare reading or decoding, or of a sequential read", "CPU s per epoch"]
    return Table(
        title="",
        columns=header,
        rows=[
            [
                row.data,
                row.case,
                row.reader,
                row.workers,
                row.order,
                f"{row.samples_per_s:,.0f}",
                _share(row.ratio),
                _share(row.goal),
                _share(None if row.reader == "naive" else earlier.get((row.data, row.case, row.workers, row.order))),
                _share(naive.get((row.data, row.case))),
                _share(statistics.median(row.bare_ratios) if row.bare_ratios else None),
                "" if row.cpu_s is None else f"{row.cpu_s:.3g}",
            ]
            for row in rows
        ],
        notes=notes,
        text_columns=5,
    )


def summary(rows: list[Row], notes: list[str], before: list[Row]) -> Table:
    """Return a row for each store of the first data set: what each reader reaches, and what was ``before``, at best."""
    rows = [row for row in rows if row.data == rows[0].data and row.order == "full"]
    lines = []
    for case in dict.fromkeys(row.case for row in rows):
        best = {
            reader: max(
                (row for row in rows if (row.case, row.reader) == (case, reader)), key=lambda row: row.samples_per_s
            )
            for reader in dict.fromkeys(row.reader for row in rows if row.case == case)
        }
        cells = [f"{row.samples_per_s:,.0f} ({_share(row.ratio)})" if row else "" for row in map(best.get, READERS)]
        fastest = max(best.values(), key=lambda row: row.samples_per_s)
        naive = best.get("naive")
        factor = "" if naive is None or fastest is naive else f"{fastest.samples_per_s / naive.samples_per_s:,.0f}"
        old = max((row.ratio for row in before if (row.data, row.case) == (rows[0].data, case)), default=None)
        lines.append([case, *cells, fastest.workers, factor, _share(old)])
    columns = ["store", *(f"{reader}, samples/s (of the limit)" for reader in READERS), "best with", "best ÷ naive"]
    columns.append("before these readers, of the limit there")
    text = f"{rows[0].data}, full shuffle. Of several ways to load, the fastest of each reader; naive without workers."
    return Table(title="", columns=columns, rows=lines, notes=[text, *notes], text_columns=1)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
