"""What a matrix would run, and what that takes, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.campaigns.estimate import Estimate, estimates, store_key
from bench.campaigns.matrix import Matrix
from bench.comparisons.campaign import Slot
from bench.records.record import RunRecord
from bench.report.tables import Table


def planned_table(matrix: Matrix, slots: Sequence[Slot], left: Sequence[Slot], records: Sequence[RunRecord]) -> Table:
    """Return a row for each cell: how often it still runs, the time of these runs and the size of its store on disk.

    ``slots`` are all runs, ``left`` those that are neither done nor given up.
    """
    expected = estimates(matrix.cells, records)
    runs = Counter(slot.cell for slot in left)
    rows = [
        [name, str(runs[name]), _minutes(expected[name], runs[name]), _megabytes(expected[name].store_bytes)]
        for name in matrix.cells
    ]
    controls = sum(slot.control for slot in slots)
    notes = [f"{len(matrix.cells)} cells, {len(slots)} runs, {controls} of them controls, in {matrix.blocks} blocks."]
    if len(left) < len(slots):
        done = len(slots) - len(left)
        notes.append(
            f"{done} of the runs are done or given up: the table is of the other {len(left)}. --anew runs all."
        )
    known_s = [(each.run_s, runs[name]) for name, each in expected.items() if each.run_s is not None and runs[name]]
    total_s = sum(run_s * count for run_s, count in known_s)
    notes.append(_sum("time", f"{total_s / 60:,.0f} min", len(known_s), len(runs), "cell"))
    stores = {store_key(matrix.cells[name]): each.store_bytes for name, each in expected.items()}
    known_bytes = [size for size in stores.values() if size is not None]
    notes.append(_sum("disk", f"{sum(known_bytes) / 1e6:,.0f} MB", len(known_bytes), len(stores), "store"))
    notes.append("By earlier records of the same and similar runs; preparing stores comes on top.")
    return Table("Planned", ["cell", "runs", "about, min", "store on disk, about MB"], rows, notes)


def _minutes(expected: Estimate, runs: int) -> str:
    return "unknown" if expected.run_s is None else f"{expected.run_s * runs / 60:,.1f}"


def _megabytes(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / 1e6:,.0f}"


def _sum(what: str, total: str, known: int, of: int, noun: str) -> str:
    if of and not known:
        return f"Total {what}: unknown."
    unknown = of - known
    if not unknown:
        return f"Total {what}: about {total}."
    return (
        f"Total {what}: about {total}, and {unknown} {noun if unknown == 1 else noun + 's'} of which nothing is known."
    )
