"""Which runs are equal: what changes results keeps them apart, and what varies from run to run does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.records.comparability import differences
from bench.records.groups import equal_runs, same_work
from bench.records.record import RunRecord, read_record
from bench.records.surroundings import MACHINE, machine_facts

TEMPLATE = read_record(Path(__file__).parent / "records" / "complete-2.json")
STORAGE = TEMPLATE.environment["storage"]
(DISK,) = STORAGE["disks"]


def asked(record: RunRecord, **fields: Any) -> RunRecord:
    spec = record.spec.model_copy(update=fields)
    return record.model_copy(update={"spec": spec, "spec_id": spec.spec_id})


def told(record: RunRecord, **environment: Any) -> RunRecord:
    return record.model_copy(update={"environment": {**record.environment, **environment}})


def on_storage(**facts: Any) -> RunRecord:
    return told(TEMPLATE, storage={**STORAGE, **facts})


def on_disk(**facts: Any) -> RunRecord:
    return on_storage(disks=[{**DISK, **facts}])


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        (told(TEMPLATE, cpu_quota_cores=0.5), TEMPLATE, "CPU quota (0.5 cores or none)"),
        (told(TEMPLATE, memory_limit_bytes=2**28), TEMPLATE, "container memory limit (0.25 GiB or none)"),
        (told(TEMPLATE, cpu_governor="powersave"), TEMPLATE, "CPU governor (powersave or none)"),
        (told(TEMPLATE, cpu_turbo=True), told(TEMPLATE, cpu_turbo=False), "CPU turbo (on or off)"),
        (told(TEMPLATE, transparent_hugepages="always"), TEMPLATE, "transparent huge pages (always or madvise)"),
        (on_storage(network=True), TEMPLATE, "storage (over the network or local)"),
        (on_storage(memory=True), TEMPLATE, "storage (in memory or local)"),
        (on_storage(read_ahead_kb=128), TEMPLATE, "read-ahead (128 KiB or 8192 KiB)"),
        (on_storage(mount_options="rw,sync,user=me"), TEMPLATE, "mount options (sync or relatime)"),
        (on_disk(scheduler="none"), TEMPLATE, "disk scheduler (none or mq-deadline)"),
        (
            on_disk(model="Fast", rotational=False),
            TEMPLATE,
            "disk (Fast, not rotational or of unknown model, rotational)",
        ),
        (on_storage(disks=[DISK, DISK]), on_storage(disks=None), None),
    ],
)
def test_settings_and_storage_that_change_results_keep_runs_apart(
    one: RunRecord, other: RunRecord, named: str | None
) -> None:
    found = [str(difference) for difference in differences([one, other])]
    assert found == [named] if named else found
    assert len(equal_runs([one, other])) == len(same_work(equal_runs([one, other]))) == 2


def test_what_varies_between_equal_runs_on_one_machine_keeps_none_apart() -> None:
    moved = on_storage(
        device="vdb",
        source="/dev/vdb",
        disks=[{**DISK, "name": "vdb"}],
        free_bytes=1,
        mount_options="noise,relatime,resuid=5",
    )
    later = told(moved, uptime_s=1.0, memory_available_bytes=1, swap_used_bytes=1, shm_free_bytes=1, git_revision="a")
    assert len(equal_runs([TEMPLATE, later])) == 1
    assert differences([TEMPLATE, later]) == []


def test_a_limit_that_the_run_was_asked_to_have_is_not_one_of_its_container() -> None:
    # The kernel rounds it down to whole pages.
    limited = {"memory_limit_bytes": 10**9 // 4096 * 4096}
    assert machine_facts(limited, 10**9) == {"container memory limit": None}
    assert machine_facts(limited, 2 * 10**9) == {"container memory limit": "0.931 GiB"}


def test_the_facts_have_the_names_that_are_known_of_them() -> None:
    assert machine_facts(TEMPLATE.environment).keys() == MACHINE


def test_a_record_that_does_not_tell_is_apart_from_one_that_does() -> None:
    old = TEMPLATE.model_copy(
        update={"environment": {k: v for k, v in TEMPLATE.environment.items() if k not in {"storage", "cpu_turbo"}}}
    )
    assert len(equal_runs([old, old])) == 1
    assert len(equal_runs([old, TEMPLATE])) == 2
    assert {d.values[0] for d in differences([old, TEMPLATE])} == {"unknown"}


def test_how_a_reader_read_is_no_size_time_or_reason() -> None:
    facts = {"mode": "auto", "chosen": "resident", "why": "1 MB fit", "set_bytes": 1, "load_s": 0.1}
    one = TEMPLATE.model_copy(update={"reader": {**facts, "kvikio": {"threads": 4, "gds_threshold_bytes": 1}}})
    equal = one.model_copy(update={"reader": {**one.reader, "why": "2 MB fit", "set_bytes": 2, "load_s": 0.2}})
    assert len(equal_runs([one, equal])) == 1
    mapped = one.model_copy(update={"reader": {**one.reader, "chosen": "mapped"}})
    threads = one.model_copy(update={"reader": {**one.reader, "kvikio": {"threads": 8}}})
    assert len(equal_runs([one, mapped, threads])) == 3
    assert len(same_work(equal_runs([one, mapped, threads]))) == 1, "it belongs to what is compared"
    assert [str(d) for d in differences([one, mapped], own=())] == ["reader chosen (resident or mapped)"]
    assert [str(d) for d in differences([one, threads], own=())] == ["reader kvikio threads (4 or 8)"]


@pytest.mark.parametrize(
    "fields",
    [
        {"device": "cpu"},
        {"source": "local:/x"},
        {"dataset": "npy:/x"},
        {"limit": TEMPLATE.data.count},
        {"options": {"reader": None}},
        {"options": {}},
        {"prefetch": 9},
        {"worker_kind": "thread", "start_method": "spawn"},
    ],
    ids=str,
)
def test_runs_that_were_asked_for_differently_and_did_the_same_are_equal(fields: dict[str, Any]) -> None:
    other = asked(TEMPLATE, **fields)
    assert other.spec_id != TEMPLATE.spec_id
    assert [group.records for group in equal_runs([TEMPLATE, other])] == [(TEMPLATE, other)]
    assert differences([TEMPLATE, other], own=()) == []


def test_runs_that_were_asked_for_differently_and_did_not_do_the_same_are_not_equal() -> None:
    assert TEMPLATE.store is not None
    assert TEMPLATE.data is not None
    naive = asked(TEMPLATE, options={"reader": "naive"})
    store = TEMPLATE.store.model_copy(update={"options": {**TEMPLATE.store.options, "reader": "naive"}})
    naive = naive.model_copy(update={"store": store})
    fewer = asked(TEMPLATE, limit=10)
    fewer = fewer.model_copy(update={"data": TEMPLATE.data.model_copy(update={"count": 10, "digest": "f" * 32})})
    others = [naive, fewer, asked(TEMPLATE, workers=2), asked(TEMPLATE, backend="zarr"), asked(TEMPLATE, epochs=9)]
    assert len(equal_runs([TEMPLATE, *others])) == 6
    assert [str(d) for d in differences([TEMPLATE, naive], own=())] == ["option reader (library or naive)"]
    # With workers it matters how they are started and what they keep ready; threads are not started by a method.
    two = asked(TEMPLATE, workers=2)
    assert len(equal_runs([two, asked(two, prefetch=9), asked(two, start_method="spawn")])) == 3
    threads = asked(two, worker_kind="thread")
    assert len(equal_runs([threads, asked(threads, start_method="spawn"), asked(threads, prefetch=9)])) == 2
    # Where the record does not tell which data that was, what was asked for does.
    unknown = TEMPLATE.model_copy(update={"data": None})
    assert len(equal_runs([unknown, asked(unknown, source="local:/x"), asked(unknown, limit=9)])) == 3
