"""Groups of equal runs, works, and what is best: shown, or only so by what was seen."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.comparisons.ranking import rank
from bench.records.groups import equal_runs, finished, same_work
from bench.records.record import CampaignInfo, RunRecord, read_record

FIXTURE = Path(__file__).parent / "records" / "version-1.json"


def run(backend: str, epoch_s: float, *, block: int | None = None, control: bool = False, **changed) -> RunRecord:
    template = read_record(FIXTURE)
    spec = template.spec.model_copy(update={"backend": backend, "options": {}, **changed.pop("spec", {})})
    campaign = None
    if block is not None:
        campaign = CampaignInfo(id="c", seed=0, blocks=8, block=block, position=0, cell=backend, control=control)
    epoch = template.epochs[0].model_copy(update={"epoch_s": epoch_s, "warmup": False})
    fields = {"spec": spec, "spec_id": spec.spec_id, "epochs": [epoch], "campaign": campaign, **changed}
    return template.model_copy(update=fields)


def campaign(seconds: dict[str, float], noise: float = 0.002, blocks: int = 8) -> list[RunRecord]:
    random_ = random.Random(1)
    first = next(iter(seconds))
    runs = [
        run(name, each * random_.uniform(1 - noise, 1 + noise), block=block)
        for block in range(blocks)
        for name, each in seconds.items()
    ]
    return runs + [
        run(first, seconds[first] * random_.uniform(1 - noise, 1 + noise), block=block, control=True)
        for block in range(blocks)
    ]


def libraries(**versions: str) -> dict:
    return {"environment": {"libraries": versions, "python": "3"}}


def test_equal_runs_are_one_group_with_their_control() -> None:
    groups = equal_runs(campaign({"zarr": 2.0, "hdf5": 1.0}))
    assert [(group.first.spec.backend, len(group.records)) for group in groups] == [("zarr", 16), ("hdf5", 8)]
    assert [group.summary("epoch_s").n for group in groups] == [8, 8], "no values are made of controls"
    assert groups[1].interval("epoch_s").low <= groups[1].summary("epoch_s").median


def test_a_version_keeps_runs_apart_and_a_library_not_needed_does_not() -> None:
    runs = [
        run("hdf5", 1, **libraries(torch="1", h5py="3")),
        run("hdf5", 1, **libraries(torch="1")),
        run("hdf5", 1, **libraries(torch="2", h5py="3")),
        run("hdf5", 1, **libraries(torch="1", h5py="4")),
    ]
    assert [len(group.records) for group in equal_runs(runs)] == [2, 1, 1]


def test_what_loads_differently_is_the_same_work_and_what_trains_differently_is_not() -> None:
    runs = [
        run("hdf5", 1),
        run("zarr", 1, spec={"workers": 2, "worker_kind": "thread", "prefetch": 8}),
        run("hdf5", 1, spec={"batch_size": 7}),
        run("zarr", 1, spec={"model": "resnet18"}),
        run("memmap", 1, data=read_record(FIXTURE).data.model_copy(update={"digest": "0" * 32})),
    ]
    works = same_work(equal_runs(runs))
    assert [[group.first.spec.backend for group in work.groups] for work in works] == [
        ["hdf5", "zarr"],
        ["hdf5"],
        ["zarr"],
        ["memmap"],
    ]
    assert len(works[0].records) == 2


def test_runs_without_a_result_are_left_out() -> None:
    broken = run("hdf5", 1).model_copy(update={"status": "failed"})
    assert finished([broken, run("zarr", 1)]) == [run("zarr", 1)]


def ranked(records: list[RunRecord], metric: str = "epoch_s"):
    (work,) = same_work(equal_runs(records))
    found = rank(work, metric)
    return [group.first.spec.backend for group in found.groups], found


def test_the_best_is_shown_where_it_beats_each_other_in_blocks() -> None:
    order, found = ranked(campaign({"zarr": 2.0, "hdf5": 1.0, "memmap": 1.5}))
    assert order == ["hdf5", "memmap", "zarr"]
    assert found.shown
    assert {group.first.spec.backend: round(c.ratio, 1) for group, c in found.contrasts.items()} == {
        "memmap": 1.5,
        "zarr": 2.0,
    }
    assert [group.first.spec.backend for group in found.no_worse()] == ["hdf5"]


def test_a_rate_is_better_when_it_is_higher() -> None:
    order, found = ranked(campaign({"zarr": 2.0, "hdf5": 1.0}), "samples_per_s")
    assert order == ["hdf5", "zarr"]
    assert found.shown


def test_what_noise_may_explain_is_no_worse() -> None:
    order, found = ranked(campaign({"zarr": 2.0, "hdf5": 1.0, "memmap": 1.001}, noise=0.02))
    assert order[2] == "zarr"
    assert not found.shown
    assert {group.first.spec.backend for group in found.no_worse()} == {"hdf5", "memmap"}


def slower_by_the_hour(records: list[RunRecord]) -> list[RunRecord]:
    return [
        record.model_copy(
            update={"epochs": [record.epochs[0].model_copy(update={"epoch_s": record.epochs[0].epoch_s * (1 + block)})]}
        )
        for record in records
        for block in [record.campaign.block]
    ]


def test_blocks_decide_against_the_medians_of_all_runs() -> None:
    # The machine gets slower, and the last runs of what is slower failed: its median over what is left is lower.
    records = slower_by_the_hour(campaign({"memmap": 1.0, "hdf5": 1.05}, noise=0.001))
    records = [r for r in records if r.spec.backend == "memmap" or r.campaign.block < 6]
    (work,) = same_work(equal_runs(records))
    by_name = {group.first.spec.backend: group.summary("epoch_s").median for group in work.groups}
    assert by_name["hdf5"] < by_name["memmap"]
    order, found = ranked(records)
    assert order == ["memmap", "hdf5"]
    assert found.shown
    assert [c.verdict for c in found.contrasts.values()] == ["slower"]


@pytest.mark.parametrize(("old", "new"), [("matrix-1a2b.2", "matrix-1a2b.10"), ("matrix-1a2b", "20261121-000000-x")])
def test_the_newest_campaign_counts_whatever_its_name(old: str, new: str) -> None:
    def of(name: str, day: str, seconds: dict[str, float]) -> list[RunRecord]:
        return [
            r.model_copy(
                update={"campaign": r.campaign.model_copy(update={"id": name}), "started_at": f"{day}T00:00:00+00:00"}
            )
            for r in campaign(seconds)
        ]

    runs = [*of(new, "2026-11-21", {"zarr": 1.0, "hdf5": 0.8}), *of(old, "2025-01-01", {"zarr": 1.0, "hdf5": 1.1})]
    order, found = ranked(runs)
    assert order == ["hdf5", "zarr"]
    assert [round(c.ratio, 2) for c in found.contrasts.values()] == [1.25]


def test_nothing_is_best_where_a_rival_was_not_measured_in_all_its_runs() -> None:
    records = campaign({"hdf5": 2.0, "zarr": 1.5, "memmap": 1.0})
    assert ranked(records)[1].shown
    spoilt = [
        r.model_copy(update={"epochs": []}) if r.spec.backend == "memmap" and r.campaign.block == 3 else r
        for r in records
    ]
    order, found = ranked(spoilt)
    assert order == ["zarr", "hdf5"]
    assert not found.shown
    assert found.reason == "of one of them only some runs have it"


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([run("hdf5", 1)], "nothing to compare with"),
        ([run("hdf5", 1), run("zarr", 9)], "did not run in turns"),
        (campaign({"hdf5": 1.0, "zarr": 9.0}, blocks=3), "3 blocks cannot show any"),
        ([*campaign({"hdf5": 1.0, "zarr": 2.0}), run("memmap", 5)], "not all of them ran in the same blocks"),
    ],
)
def test_nothing_is_claimed_without_enough_blocks(records: list[RunRecord], reason: str) -> None:
    order, found = ranked(records)
    assert order[0] == "hdf5"
    assert not found.shown
    assert reason in found.reason


def test_sizes_do_not_vary_so_any_difference_is_one() -> None:
    small = read_record(FIXTURE).store.model_copy(update={"size_bytes": 5})
    order, found = ranked([run("hdf5", 1), run("zarr", 1, store=small)], "store_mb")
    assert order == ["zarr", "hdf5"]
    assert found.shown
    assert not ranked([run("hdf5", 1), run("zarr", 1)], "store_mb")[1].shown


def test_what_is_measured_once_per_store_is_ranked_and_not_claimed() -> None:
    for metric, why in (("prepare_s", "measured once for each store"), ("loss", "the same in all runs, by their seed")):
        _, found = ranked(campaign({"hdf5": 1.0, "zarr": 2.0}), metric)
        assert not found.shown
        assert why in found.reason


def test_scores_that_differ_are_not_said_to_be_the_same() -> None:
    runs = [
        each.model_copy(update={"epochs": [each.epochs[0].model_copy(update={"loss": loss})]})
        for each, loss in zip(campaign({"hdf5": 1.0, "zarr": 1.0}), [1.0, 1.5] * 8 + [1.0] * 8, strict=True)
    ]
    order, found = ranked(runs, "loss")
    assert order == ["hdf5", "zarr"]
    assert not found.shown
    assert "runs of one seed differ in this" in found.reason


def test_a_best_value_of_zero_has_no_ratio_to_another() -> None:
    record = run("hdf5", 1).epochs[0]
    runs = [
        each.model_copy(update={"epochs": [record.model_copy(update={"wait_s": wait})]})
        for each in campaign({"hdf5": 1.0, "zarr": 1.0})
        for wait in [0.0 if each.spec.backend == "hdf5" else 0.5]
    ]
    order, found = ranked(runs, "wait_share")
    assert order == ["hdf5", "zarr"]
    assert found.reason == "the best value is not above zero, so no other has a ratio to it"


def test_a_control_that_differs_from_itself_is_told_and_another_is_not() -> None:
    def runs(control: float) -> list[RunRecord]:
        own = [r for r in campaign({"zarr": 2.0, "hdf5": 1.0}) if not r.campaign.control]
        return own + [
            run("zarr", control * r.epochs[0].epoch_s, block=r.campaign.block, control=True) for r in own[::2]
        ]

    def warnings(control: float) -> tuple[str, ...]:
        (work,) = same_work(equal_runs(runs(control)))
        return rank(work, "epoch_s").warnings

    assert warnings(1.0) == ()
    (text,) = warnings(1.1)
    assert text.startswith("The control differs from itself: ")
