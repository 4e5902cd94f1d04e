"""What is advised from runs whose truth is known."""

import json
import math

import pytest
from advising import BASE, QUIET, advice_of, backends, blocks, run

from bench.comparisons.advice import AIMS, AdviceError, choose_work
from bench.comparisons.criteria import order
from bench.comparisons.tradeoffs import break_evens, epoch_contrasts
from bench.records.groups import Group, equal_runs, same_work
from bench.records.record import RunRecord
from bench.records.stored import Lossy
from bench.report.advised import advised_table, labels, sentences, to_json


def test_what_was_shown_to_be_fastest_is_recommended_and_the_rest_follows_by_value() -> None:
    found = advice_of(
        [*blocks("hdf5", 1.0, twin=True), *blocks("zarr", 1.5, store_mb=1), *blocks("memmap", 1.2, store_mb=2)]
    )
    assert backends(found.groups) == ["hdf5", "memmap", "zarr"]
    assert found.shown
    (step,) = found.steps
    assert (step.metric, backends(step.tied), backends(step.worse)) == ("epoch_s", ["hdf5"], ["memmap", "zarr"])
    assert found.contrasts[found.groups[2]].ratio == pytest.approx(1.5, rel=0.01)


def test_what_was_not_told_apart_is_a_tie_that_the_next_criterion_decides() -> None:
    same = [*blocks("hdf5", 1.0, twin=True, store_mb=200), *blocks("zarr", 1.001, store_mb=50), *blocks("memmap", 2)]
    found = advice_of(same)
    assert backends(found.groups) == ["zarr", "hdf5", "memmap"]
    assert not found.shown
    assert [step.metric for step in found.steps] == ["epoch_s", "store_mb"]
    assert backends(found.steps[0].tied) == ["hdf5", "zarr"]
    text = "\n".join(sentences(found))
    assert "By epoch: no difference shown between hdf5 and zarr" in text
    assert "The next criterion decides." in text


def test_what_delivers_other_samples_is_not_advised_where_others_can_be() -> None:
    loss = Lossy(psnr_db=31.26)
    lossy = [
        record.model_copy(update={"store": record.store.model_copy(update={"lossy": loss})})
        for record in blocks("filesystem", 0.5, store_mb=1)
    ]
    exact = [*blocks("hdf5", 1.0, twin=True), *blocks("zarr", 1.5, store_mb=50)]
    for aim, expected in (("speed", ["hdf5", "zarr"]), ("disk", ["zarr", "hdf5"]), ("balanced", ["zarr", "hdf5"])):
        found = advice_of([*exact, *lossy], aim)
        assert backends(found.groups) == expected
        assert sorted(backends(found.pareto)) == ["hdf5", "zarr"]
        said = "LOSSY, so not the same samples as those, and left out without --lossy: filesystem (PSNR 31.3 dB)."
        assert sentences(found).count(said) == 1
        assert json.loads(to_json(found))["left_out_as_lossy"] == ["filesystem"]
    welcome = advice_of([*exact, *lossy], "disk", lossy=True)
    assert backends(welcome.groups) == ["filesystem", "zarr", "hdf5"]
    assert "LOSSY, so not the same samples as from the other methods: filesystem (PSNR 31.3 dB)." in sentences(welcome)
    assert backends(advice_of([*exact[:8], *lossy], "disk").groups)[0] == "filesystem", "nothing else to choose from"


def test_runs_that_cannot_show_anything_tie_only_within_the_noise_and_say_so() -> None:
    found = advice_of([run("filesystem", 13.1, store_mb=10), run("hdf5", 6.3), run("memmap", 6.9, store_mb=50)])
    assert backends(found.groups) == ["memmap", "hdf5", "filesystem"], "half as fast is no tie, whatever is not shown"
    assert not found.shown
    assert backends(found.steps[0].seems) == ["filesystem"]
    text = "\n".join(sentences(found))
    assert "No one was shown to be the best by epoch" in text
    assert "Seemingly behind, though these runs cannot show it: filesystem 13.1 (one run)." in text
    assert found.break_evens == ()


def test_what_its_own_ceiling_holds_back_ties_with_nothing_that_is_as_fast_as_memory() -> None:
    near = run("zarr", 1.05, store_mb=50)
    assert backends(advice_of([run("hdf5", 1.0, store_mb=200), near]).groups) == ["zarr", "hdf5"], "within the noise"
    held = run("zarr", 1.05, store_mb=50, ideal_s=0.95, wait=0.05)
    found = advice_of([run("hdf5", 1.0, store_mb=200, ideal_s=0.995, wait=0.01), held])
    assert backends(found.groups) == ["hdf5", "zarr"]
    assert backends(found.steps[0].seems) == ["zarr"]
    assert "It does hold back zarr (5.0 % waiting, 11 % over)." in sentences(found)[0]


def test_a_ceiling_that_was_disturbed_is_not_held_against_anybody() -> None:
    found = advice_of(
        [run("hdf5", 1.0, ideal_s=0.995, wait=0.01), run("zarr", 1.1, ideal_s=1.2, wait=0.03, store_mb=1)]
    )
    assert backends(found.bottleneck.free) == ["hdf5"]
    assert "It does hold back zarr (3.0 % waiting)." in sentences(found)[0]
    table = advised_table(found)
    over = table.columns.index("over the ceiling, %")
    assert [row[over] for row in table.rows] == ["0.503", "n/a"], "it cannot be -8.3 %"
    assert any(note.startswith("n/a, over the ceiling: epochs seemed faster") for note in table.notes)
    untouched = advice_of([run("hdf5", 1.0, ideal_s=0.995), run("zarr", 1.1, ideal_s=1.0)])
    assert not any(note.startswith("n/a") for note in advised_table(untouched).notes)


@pytest.mark.parametrize(("count", "shown"), [(5, False), (6, True)])
def test_too_few_blocks_show_nothing(count: int, shown: bool) -> None:
    found = advice_of([*blocks("hdf5", 1.0, twin=True, count=count), *blocks("zarr", 1.5, count=count)])
    assert found.shown is shown
    assert bool(found.break_evens) is shown
    assert any("Too few runs in the same blocks" in text for text in sentences(found)) is not shown


@pytest.mark.parametrize(
    ("aim", "first"),
    [("speed", "memory"), ("disk", "filesystem"), ("ram", "zarr"), ("remote", "hdf5"), ("balanced", "hdf5")],
)
def test_each_aim_has_its_own_best(aim: str, first: str) -> None:
    records = [
        *blocks("memory", 1.0, twin=True, store_mb=300, files=2, ram_mb=2000, cache="cold", read_mb=300),
        *blocks("filesystem", 4, store_mb=50, files=10_000, ram_mb=1000, cache="cold", read_mb=50),
        *blocks("hdf5", 1.2, store_mb=60, files=1, ram_mb=700, cache="cold", read_mb=60),
        *blocks("zarr", 4, store_mb=100, files=600, ram_mb=500, cache="cold", read_mb=100),
    ]
    assert backends([advice_of(records, aim).recommended]) == [first]


def test_remote_storage_counts_requests_of_a_cold_cache_alone() -> None:
    def both(cache: str) -> list[RunRecord]:
        many = blocks("zarr", 1.0, twin=True, files=9, cache=cache, read_mb=900, calls=90_000)
        return [*many, *blocks("hdf5", 1.1, files=1, cache=cache, read_mb=100, calls=50_000)]

    cold, warm = advice_of(both("cold"), "remote"), advice_of(both("warm"), "remote")
    assert backends(cold.groups) == ["hdf5", "zarr"], "nine files count as much as one; nine times the bytes do not"
    assert [step.metric for step in cold.steps] == ["files", "storage_read_mb"]
    assert [step.metric for step in warm.steps] == ["files", "storage_read_mb", "read_calls", "epoch_s"]
    assert any("cold, so it hides them" in text for text in sentences(warm))
    assert backends(warm.groups) == ["zarr", "hdf5"], "what is left is the epoch: twice the calls are no tenfold"


@pytest.mark.parametrize(
    ("over", "wait", "workers", "is_storage"),
    [
        (1.01, 0.01, 0, False),
        (1.007, 0.049, 0, True),
        (1.17, 0.05, 0, True),
        (1.03, 0.001, 0, None),
        (0.9, 0.5, 0, True),
        (0.9, 0.01, 0, False),
        (None, 0.01, 0, False),
        (None, 0.03, 0, True),
        (1.01, 0.01, 2, False),
        (1.03, 0.01, 2, True),
        (0.9, 0.01, 2, None),
        (None, 0.01, 2, None),
        (None, 0.03, 2, True),
    ],
)
def test_whether_storage_is_the_bottleneck_comes_first(over, wait, workers, is_storage) -> None:
    ideal = None if over is None else 1 / over
    records = [run(name, 1.0, ideal_s=ideal, wait=wait, workers=workers) for name in ("hdf5", "zarr")]
    found = advice_of(records)
    assert found.bottleneck.is_storage is is_storage
    beginnings = {True: "Storage is what", False: "Storage is not the bottleneck", None: "Whether storage is"}
    assert sentences(found)[0].startswith(beginnings[is_storage])
    assert "-10 % over" not in sentences(found)[0], "no epoch is shorter than from memory"


@pytest.mark.parametrize(
    ("workers", "gain"),
    [(0, "5.0 %"), (2, "15 %")],
    ids=["the waiting", "the distance to the ceiling, as workers share the CPU"],
)
def test_storage_can_gain_no_more_than_what_it_is_known_to_cost(workers: int, gain: str) -> None:
    found = advice_of([run(name, 1.0, ideal_s=1 / 1.17, wait=0.05, workers=workers) for name in ("hdf5", "zarr")])
    assert sentences(found)[0].endswith(
        "has 17 % over training from memory, 5.0 % of its epoch spent waiting for data; storage can gain "
        f"{gain} of the epoch at most."
    )


def test_what_hardly_waits_yet_is_over_its_ceiling_is_neither_free_nor_held_back() -> None:
    found = advice_of([run("hdf5", 1.0, ideal_s=1.0, wait=0.01), run("zarr", 1.1, ideal_s=1.0, wait=0.003)])
    assert (backends(found.bottleneck.free), backends(found.bottleneck.unclear)) == (["hdf5"], ["zarr"])
    assert sentences(found)[0].startswith("Storage need not be the bottleneck: hdf5 has")
    assert sentences(found)[0].endswith("It cannot be told of zarr (0.30 % waiting, 10 % over).")
    assert json.loads(to_json(found))["bottleneck"]["not_clear"] == ["zarr"]


def over_the_base(record: RunRecord) -> RunRecord:
    """The record with a ceiling that is the base of its block."""
    ideal_s = BASE[record.campaign.block] * 0.999
    return record.model_copy(update={"ideal": record.epochs[-1].model_copy(update={"epoch_s": ideal_s})})


def test_ways_as_fast_as_memory_tie_and_the_smallest_of_them_is_taken() -> None:
    def ways(wait: float) -> list[RunRecord]:
        near = [*blocks("memmap", 1.0, twin=True, quiet=0.1, wait=wait), *blocks("zarr", 1.015, store_mb=20, wait=wait)]
        return near + blocks("filesystem", 3, store_mb=1)

    assert backends(advice_of(ways(0.5)).groups) == ["memmap", "zarr", "filesystem"], "1.5 % was shown"
    found = advice_of([over_the_base(record) for record in ways(0.01)])
    assert set(backends(found.bottleneck.free)) == {"memmap", "zarr"}
    assert backends(found.groups) == ["zarr", "memmap", "filesystem"]
    assert sentences(found)[0].startswith("Storage need not be the bottleneck: memmap has")
    assert "It does hold back filesystem" in sentences(found)[0]


def test_what_seems_faster_than_memory_is_noise_and_not_free() -> None:
    records = [run("hdf5", 1.0, ideal_s=0.995, wait=0.01), run("zarr", 1.1, ideal_s=1.3)]
    assert backends(advice_of(records).bottleneck.free) == ["hdf5"]


def test_without_a_control_nothing_is_shown_and_large_differences_seem_to_be_there() -> None:
    found = advice_of([*blocks("hdf5", 1.0), *blocks("zarr", 4, store_mb=1)])
    assert not found.shown
    assert backends(found.groups) == ["hdf5", "zarr"]
    assert backends(found.steps[0].seems) == ["zarr"]
    assert found.break_evens == ()


def test_the_break_even_point_is_the_extra_preparation_over_what_an_epoch_saves() -> None:
    # An epoch saves half of 1.0…1.7 s: by hand, the median of the differences is 0.675, and 7 s are 11 times that.
    exact = [run("hdf5", t, block=n, prepare_s=9.0) for n, t in enumerate(BASE)]
    exact += [
        run("hdf5", t * q, block=n, control=True, prepare_s=9.0)
        for n, (t, q) in enumerate(zip(BASE, QUIET, strict=True))
    ]
    slower = [run("zarr", 1.5 * t, block=n, prepare_s=2.0) for n, t in enumerate(BASE)]
    found = advice_of([*exact, *slower])
    (point,) = found.break_evens
    assert backends([point.faster, point.slower]) == ["hdf5", "zarr"]
    assert (point.extra_prepare_s, point.saved_s) == pytest.approx((7.0, 0.675))
    assert point.epochs == math.ceil(7 / 0.675) == 11
    # Of eight values, the smallest and the largest bound the median in 99.2 %, the second and seventh in only 93 %.
    assert (point.interval.low, point.interval.high) == pytest.approx((0.5, 0.85))
    assert (point.earliest, point.latest) == (9, 14)
    text = "\n".join(sentences(found))
    assert "so it repays its 7.00 s of preparation more than zarr after 11 epochs (95 % interval: 9 to 14" in text
    assert "With fewer than 11 epochs in all, zarr takes less time." in text


def test_who_is_faster_and_prepared_sooner_is_ahead_from_the_start() -> None:
    found = advice_of([*blocks("hdf5", 1.0, twin=True, prepare_s=1), *blocks("zarr", 1.5, prepare_s=2)])
    (point,) = found.break_evens
    assert (point.epochs, point.extra_prepare_s) == (0, -1)
    assert any("ahead from the first epoch" in text for text in sentences(found))


def test_there_is_no_break_even_point_without_a_shown_difference() -> None:
    found = advice_of([*blocks("hdf5", 1.0, twin=True, prepare_s=9), *blocks("zarr", 1.001, prepare_s=1)])
    assert found.break_evens == ()
    (work,) = same_work(equal_runs(blocks("hdf5", 1.0)))
    assert break_evens(work.groups[0], epoch_contrasts(work.groups[0], work.groups)) == []


def test_the_length_of_a_training_decides_what_is_balanced() -> None:
    records = [run("hdf5", 1.0, prepare_s=100), run("zarr", 2.0, prepare_s=1)]
    assert backends([advice_of(records, "balanced", training_epochs=1).recommended]) == ["zarr"]
    assert backends([advice_of(records, "balanced", training_epochs=1000).recommended]) == ["hdf5"]


def test_the_work_of_most_groups_is_chosen_the_newest_of_equals() -> None:
    three = [run(name, 1.0) for name in ("hdf5", "zarr", "memmap")]
    two = [run(name, 1.0, epochs=9) for name in ("hdf5", "zarr")]
    work, others = choose_work([*two, *three])
    assert (len(work.groups), len(others)) == (3, 1)
    later = [r.model_copy(update={"started_at": "2026-12-01T00:00:00.000000+00:00"}) for r in two]
    assert choose_work([*three[:2], *later])[0].first.spec.epochs == 9
    with pytest.raises(AdviceError, match="no finished run"):
        choose_work([three[0].model_copy(update={"status": "failed"})])


def test_other_work_says_what_would_change_the_advice() -> None:
    warm = [*blocks("hdf5", 1.0, twin=True, cache="warm"), *blocks("zarr", 1.5, cache="warm")]
    cold = [run("hdf5", 9.0, cache="cold"), run("zarr", 2.0, cache="cold")]
    later = [r.model_copy(update={"started_at": "2026-12-01T00:00:00.000000+00:00"}) for r in warm]
    found = advice_of([*cold, *later])
    (other,) = found.related
    assert backends([other.first]) == ["zarr"]
    assert not other.same
    text = "\n".join(sentences(found))
    assert "Measured with cache asked cold instead of warm" in text
    assert "zarr comes first instead (not shown, 2 ways compared)" in text


def test_one_way_alone_is_no_choice() -> None:
    with pytest.raises(AdviceError, match="nothing to choose from"):
        advice_of([run("hdf5", 1.0)])
    with pytest.raises(AdviceError, match=r"--for luck: unknown\. Choose from: speed, disk"):
        advice_of([run("hdf5", 1.0), run("zarr", 1.0)], "luck")


def test_labels_tell_apart_what_differs_and_nothing_else() -> None:
    records = [run("hdf5", 1.0), run("hdf5", 1.0, workers=2), run("zarr", 1.0)]
    (work,) = same_work(equal_runs(records))
    assert list(labels(work).values()) == ["hdf5 with no workers", "hdf5 with 2 workers", "zarr with no workers"]
    store = records[2].store.model_copy(update={"options": {"chunk": 4}})
    spec = records[2].spec.model_copy(update={"options": {"chunk": 4}})
    chunked = records[2].model_copy(update={"store": store, "spec": spec, "spec_id": spec.spec_id})
    (work,) = same_work(equal_runs([*records, chunked]))
    named = [name for name in labels(work).values() if "zarr" in name]
    assert named == ["zarr chunk=unrecorded with no workers", "zarr chunk=4 with no workers"]


def test_workers_that_were_measured_and_those_that_were_not_are_told() -> None:
    found = advice_of([run("hdf5", 1.0), run("hdf5", 3.0, workers=2), run("zarr", 2.0)])
    assert any(text.startswith("With 2 workers: hdf5 with 2 workers comes first") for text in sentences(found))
    found = advice_of([run("hdf5", 1.0), run("zarr", 2.0)])
    assert any("With 2 workers: not measured. Measure it: bench compare" in text for text in sentences(found))


def test_values_that_are_missing_order_nothing() -> None:
    unknown = run("zarr", 1.0)
    unknown = unknown.model_copy(update={"memory": unknown.memory.model_copy(update={"peak_pss_bytes": None})})
    found = advice_of([run("hdf5", 2.0), run("memmap", 3.0), unknown], "ram")
    assert backends(found.groups)[-1] == "zarr"
    assert "zarr" not in backends(found.pareto)
    ordered, steps = order([Group((unknown,)), Group((unknown,))], ("peak_pss_mb",), ())
    assert (len(ordered), steps[0].tied) == (2, ())


@pytest.mark.parametrize("aim", AIMS)
def test_every_aim_says_what_it_means_in_every_syntax(aim: str) -> None:
    found = advice_of([*blocks("hdf5", 1.0, twin=True), *blocks("zarr", 1.5, store_mb=10)], aim)
    assert any(AIMS[aim].meaning in text for text in sentences(found))
    assert f'"for": "{aim}"' in to_json(found)
    assert advised_table(found).rows[0][1] == found.recommended.first.spec.backend
