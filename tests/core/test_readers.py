"""What a slower reader's run says of a faster one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.records.record import RunRecord, read_record
from bench.report.readers import faster_reader

BASE = read_record(Path(__file__).parent / "records" / "version-2.json")


def run(reader: str, epoch_s: float, **changes: object) -> RunRecord:
    """The record, read in another way, with one counted epoch of that length."""
    epoch = BASE.epochs[-1].model_copy(update={"epoch_s": epoch_s, "warmup": False})
    store = BASE.store.model_copy(update={"options": {**BASE.store.options, "reader": reader}})
    spec = BASE.spec.model_copy(update={"options": {**BASE.spec.options, "reader": reader}})
    return BASE.model_copy(update={"epochs": [epoch], "store": store, "spec": spec, **changes})


def test_the_faster_reader_is_named_with_what_it_brings() -> None:
    slow = run("library", 8.0)
    known = [slow, run("mapped", 2.0), run("mapped", 4.0), run("naive", 20.0)]
    name = BASE.spec.backend
    expected = (
        f"{name}[mapped] read the same store in 0.38 times that epoch here (3.00 s, 2 runs): --option reader=mapped."
    )
    assert faster_reader([slow], known) == expected


@pytest.mark.parametrize("known", [[], [run("naive", 20.0)], [run("mapped", 7.9)], [run("library", 1.0)]])
def test_nothing_is_said_where_nothing_is_known_or_gained(known: list[RunRecord]) -> None:
    assert faster_reader([run("library", 8.0)], known) is None


def test_runs_of_other_work_are_no_measure() -> None:
    slow, fast = run("library", 8.0), run("mapped", 2.0)
    batch = fast.spec.model_copy(update={"batch_size": 7})
    store = fast.store.model_copy(update={"options": {**fast.store.options, "chunk": 99}})
    others = [
        fast.model_copy(update={"spec": batch}),
        fast.model_copy(update={"store": store}),
        fast.model_copy(update={"environment": {**fast.environment, "cpu": "another"}}),
        fast.model_copy(update={"status": "failed"}),
    ]
    assert faster_reader([slow], others) is None
    assert faster_reader([slow], [*others, fast]) is not None
