"""What cells say: values with intervals, ratios, best values that were shown, and why there is nothing."""

import math
import re

import pytest
from tabled import BASE, QUIET, TEMPLATE, campaign, failed, pivot, run

from bench.comparisons.advice import advise
from bench.comparisons.comparison import compare
from bench.records.groups import equal_runs, same_work
from bench.records.record import GpuInfo, RunRecord, WarningInfo
from bench.records.stored import Lossy
from bench.report.advised import verdict
from bench.report.cells import NEVER
from bench.report.compared import compared_table
from bench.report.marked import MarkedTable
from bench.report.pivot import Pivot
from bench.report.pivot_notes import pivot_notes
from bench.report.pivot_tables import pivot_tables
from bench.report.ratios import PivotError


def only(made: Pivot) -> MarkedTable:
    (table,) = pivot_tables(made)[0]
    return table


def all_notes(made: Pivot) -> str:
    tables, marks = pivot_tables(made)
    return "\n".join([*(note for table in tables for note in table.notes), *pivot_notes(made, marks)])


def note(made: Pivot, row: int, column: int) -> str:
    tables, marks = pivot_tables(made)
    return {letter: text for text, letter in marks.letters.items()}[tables[0].marks[row, column]]


def times(ratio: float) -> list[float]:
    wobble = [1.0, 1.01, 0.99, 1.02, 0.98, 1.005, 0.995, 1.0]
    return [base * ratio * by for base, by in zip(BASE, wobble, strict=True)]


def test_many_runs_have_an_interval_few_have_a_range_and_one_has_its_epochs() -> None:
    # The median of 8 values lies between the smallest and the largest with 1 - 2/256, between the next with 0.93.
    made = pivot([*campaign("c", None, zarr=BASE), run("hdf5", 3.0, 5.0, 4.0), run("memory", 2.0)])
    assert [row[1] for row in only(made).rows] == ["4.00 (3.00…5.00; n=3)", "2.00", "1.35 [1.00, 1.70; n=8]"]
    few = pivot([run("zarr", time_s) for time_s in (1.0, 2.0, 4.0)])
    assert only(few).rows == [["zarr", "2.00 (1.00…4.00)"]]
    assert "3 values each" in all_notes(few)


def cached(cache: str, resident: float | None, seconds: float) -> RunRecord:
    record = run("zarr", seconds)
    state = record.cache.model_copy(update={"asked": cache, "resident_before": resident})
    return record.model_copy(update={"cache": state})


def test_runs_that_found_the_page_cache_in_different_states_say_so() -> None:
    made = pivot([cached("as-is", 1.0, 1.0), cached("as-is", 0.0, 1.5)])
    assert only(made).rows == [["zarr", "1.25 (1.00…1.50)"]]
    assert note(made, 0, 1).startswith("before the epochs that count, 0% to 100% of the store were in memory")
    for alike in (
        [cached("as-is", 1.0, 1.0), cached("as-is", 0.97, 1.5)],
        [cached("as-is", 1.0, 1.0), cached("as-is", None, 1.5)],
    ):
        assert only(pivot(alike)).marks == {}


def test_what_was_measured_once_for_all_runs_has_no_interval() -> None:
    made = pivot(campaign(zarr=BASE), metrics="store_mb,prepare_s")
    store = run().store
    shown = [f"{store.size_bytes / 1e6:.2f}", f"{store.prepare_s:.4f}"]
    assert only(made).rows == [["zarr", *shown]]
    assert [cell.interval for cell in made.sheets[0].cells.values()] == [None, None]


def test_the_best_is_marked_where_that_was_shown() -> None:
    made = pivot(campaign(zarr=times(2.0), hdf5=BASE, memmap=times(3.0)))
    table = only(made)
    assert [row[0] for row in table.rows] == ["hdf5", "memmap", "zarr"]
    assert table.strong == {(0, 1)}
    assert "shown to be better than every other method" in all_notes(made)
    assert not table.notes


def test_the_best_is_not_marked_where_it_was_not_shown() -> None:
    close = pivot(campaign(zarr=times(1.01), hdf5=BASE))
    assert not only(close).strong
    assert only(close).notes == [
        "No best value is marked in cifar10: hdf5 seems best, and was not shown to differ from zarr."
    ]
    apart = pivot([run("zarr", 1.0), run("hdf5", 100.0)])
    assert not only(apart).strong
    assert "they did not run in turns" in only(apart).notes[0]
    assert "Bold" not in all_notes(apart)


def test_what_all_runs_have_in_common_is_told_whatever_they_differ_in() -> None:
    trained = {"optimizer": "adam", "lr": 0.001, "momentum": None, "val": "0.1", "test": "test"}
    made = pivot([run("zarr", **trained), run("zarr", **trained, weight_decay=0.01)])
    assert ", adam, lr 0.001, val 0.1, test test" in all_notes(made)
    assert "weight decay 0.01" not in all_notes(made)


def test_why_nothing_is_marked_is_told_once_for_all_places() -> None:
    def runs(dataset: str, model: str, size_bytes: int = 7) -> list[RunRecord]:
        stores = {"zarr": TEMPLATE.store.model_copy(update={"size_bytes": size_bytes})}
        stores["hdf5"] = stores["zarr"].model_copy(update={"size_bytes": 7})
        told = {"dataset": dataset, "model": model, "data": {"digest": dataset}}
        return [run(name, **told, changes={"store": store}) for name, store in stores.items()]

    def notes(records: list[RunRecord], metrics: str) -> list[str]:
        return only(pivot(records, "method", "dataset,model", metrics=metrics)).notes

    three = [*runs("cifar10", "cnn"), *runs("cifar10", "none"), *runs("masks", "cnn", 5)]
    assert notes(three, "epoch_s,samples_per_s,store_mb") == [
        "No best value is marked in epoch; throughput: they did not run in turns: use `bench compare` or "
        "`bench matrix`.",
        "No best value is marked in store on disk (cifar10): another one has the same value.",
    ]
    two = [*runs("cifar10", "cnn", 5), *runs("cifar10", "none")]
    assert notes(two, "epoch_s,store_mb")[1] == (
        "No best value is marked in store on disk (cifar10, none): another one has the same value."
    )


def test_what_is_marked_is_not_among_what_is_not() -> None:
    decided = campaign(zarr=times(2.0), hdf5=BASE)
    masks = [run(name, 1.0, dataset="masks", data={"digest": "m"}) for name in ("zarr", "hdf5")]
    made = pivot([*decided, *masks], metrics="epoch_s,samples_per_s")
    assert len(only(made).strong) == 2
    assert only(made).notes[0].startswith("No best value is marked in epoch (masks); throughput (masks): they did not")
    untrained = [run(name, 1.0, model="none") for name in ("zarr", "hdf5")]
    made = pivot([*decided, *untrained], "method", "dataset,model")
    assert len(only(made).strong) == 1
    assert only(made).notes[0].startswith("No best value is marked in cifar10, none: they did not")


def test_a_metric_without_a_better_direction_has_no_best() -> None:
    made = pivot([run("zarr", 1.0, ideal_s=1.0), run("hdf5", 1.0, ideal_s=2.0)], metrics="ideal_s")
    assert (only(made).strong, only(made).notes) == (frozenset(), [])


def test_higher_is_better_for_rates() -> None:
    made = pivot(campaign(zarr=times(2.0), hdf5=BASE), metrics="samples_per_s")
    assert only(made).rows[0][0] == "hdf5"
    assert only(made).strong == {(0, 1)}


def test_ratios_within_blocks_come_with_their_interval() -> None:
    made = pivot(campaign(zarr=times(2.0), hdf5=BASE, memmap=times(1.001)), baseline="hdf5")
    table = only(made)
    assert table.columns == ["method", "cifar10", "cifar10: ratio to hdf5"]
    assert table.rows[0][2] == "1"
    assert table.rows[2][2].startswith("2.00x [1.9")
    assert "[0.9" in table.rows[1][2]
    assert note(made, 1, 2).startswith("no difference shown")
    assert (2, 2) not in table.marks


def test_the_ratio_is_that_within_blocks_not_of_medians() -> None:
    drifting = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
    slower = [1.5 * time_s for time_s in drifting]
    made = pivot(campaign(hdf5=drifting, zarr=slower), baseline="hdf5")
    assert only(made).rows[1][2] == "1.50x [1.50, 1.50]"


def test_a_ratio_that_was_shown_is_not_rounded_to_1() -> None:
    still = [0.999, 1.001] * 4
    slightly = [base * (1.003 if block < 3 else 1.016) for block, base in enumerate(BASE)]
    made = pivot(campaign(control=still, hdf5=BASE, zarr=slightly), baseline="hdf5")
    assert only(made).rows[1][2] == "1.016x [1.003, 1.016]"
    constant = pivot(campaign(control=still, hdf5=BASE, zarr=[1.003 * base for base in BASE]), baseline="hdf5")
    assert only(constant).rows[1][2] == "1.003x [1.003, 1.003]"
    assert only(made).strong == only(constant).strong == {(0, 1)}


def test_methods_that_are_lossy_are_named_in_tables_comparisons_and_advice() -> None:
    lossy = TEMPLATE.store.model_copy(update={"lossy": Lossy(psnr_db=31.26)})
    runs = [
        record.model_copy(update={"store": lossy}) if record.spec.backend == "filesystem" else record
        for record in campaign(zarr=BASE, filesystem=times(0.5))
    ]
    said = "LOSSY, so not the same samples as from the other methods: filesystem (PSNR 31.3 dB)."
    assert said in all_notes(pivot(runs))
    assert said in compared_table(compare(runs)).notes
    (work,) = same_work(equal_runs(runs))
    assert said.replace("filesystem", "filesystem[library]") in verdict(advise(work, "speed"))
    assert "LOSSY" not in all_notes(pivot(campaign(zarr=BASE, hdf5=BASE)))


def test_a_small_ratio_is_not_rounded_to_0() -> None:
    made = pivot(campaign(control=[1.0] * 8, hdf5=BASE, zarr=[0.00042 * base for base in BASE]), baseline="hdf5")
    assert only(made).rows[1][2] == "0.00042x [0.00042, 0.00042]"
    apart = pivot([run("zarr", 0.0123), run("hdf5", 1.0)], baseline="hdf5")
    assert [row[2] for row in only(apart).rows] == ["1", "~0.012x"]


def test_ratios_of_runs_apart_are_marked_as_not_tested() -> None:
    made = pivot([run("zarr", 3.0), run("hdf5", 2.0)], baseline="hdf5")
    assert [row[2] for row in only(made).rows] == ["1", "~1.50x"]
    assert "~: not tested" in all_notes(made)


def test_percentages_are_compared_by_their_difference() -> None:
    made = pivot(
        [run("zarr", 3.0, ideal_s=2.0), run("hdf5", 2.5, ideal_s=2.0)], baseline="hdf5", metrics="over_ceiling"
    )
    table = only(made)
    assert table.columns[2] == "cifar10: difference to hdf5"
    assert [row[1:] for row in table.rows] == [["25.0", "0"], ["50.0", "~+25.0"]]


def test_exact_sizes_need_no_test() -> None:
    small = run("zarr")
    large = run("hdf5")
    large = large.model_copy(
        update={"store": large.store.model_copy(update={"size_bytes": 2 * small.store.size_bytes})}
    )
    made = pivot([small, large], metrics="store_mb", baseline="zarr")
    assert [row[2] for row in only(made).rows] == ["2.00x", "1"]
    assert only(made).strong == {(1, 1)}


def test_the_ceiling_is_a_baseline_of_each_run() -> None:
    records = [run("zarr", time_s, ideal_s=2.0) for time_s in (3.0, 3.1, 3.2, 3.3, 3.4, 3.5)]
    made = pivot(
        [*records, run("hdf5", 2.5, ideal_s=2.0), run("memory", 1.0, ideal_s=2.0), run("memmap")], baseline="ceiling"
    )
    table = only(made)
    assert table.columns[2] == "cifar10: ratio to the ceiling"
    assert {row[0]: row[2] for row in table.rows} == {
        "hdf5": "~1.25x",
        "memmap": "n/a",
        "memory": "n/a",
        # Medians of runs over 2 s: 1.5 … 1.75, the middle is 1.625.
        "zarr": "1.62x [1.50, 1.75]",
    }
    assert note(made, 1, 2) == "the ceiling was not measured"
    assert "faster than the ceiling" in note(made, 2, 2)


@pytest.mark.parametrize(
    ("baseline", "metrics", "said"),
    [
        (
            "hdf",
            "epoch_s",
            r"there is no such method. Choose ceiling or one of: hdf5\[library\], zarr\[library\], zarr\[mapped\]",
        ),
        ("ceiling", "epoch_s,store_mb", "goes with --metric epoch_s alone"),
        ("zarr", "epoch_s", r"fits 2 methods: zarr\[library\]; zarr\[mapped\]. Say which .* such as zarr\[library\]"),
        (" ", "epoch_s", "there is no such method"),
    ],
)
def test_a_baseline_that_cannot_be_is_refused(baseline: str, metrics: str, said: str) -> None:
    records = [run("zarr"), run("hdf5"), run("zarr", options={"reader": "mapped"})]
    with pytest.raises(PivotError, match=said):
        pivot(records, metrics=metrics, baseline=baseline)


def test_the_hint_at_a_baseline_that_fits_several_methods_fits_one() -> None:
    png = run("filesystem", 2.0, options={"format": "png"})
    npy, slow = (run("filesystem", s, options={"format": "npy"}, workers=n) for s, n in ((1.0, 0), (4.0, 2)))
    for records, name in (
        ([png, npy], "filesystem"),
        ([npy, slow], "filesystem[library]"),
        ([png, npy, slow], "filesystem"),
    ):
        with pytest.raises(PivotError, match=f"fits {len(records)} methods") as refused:
            pivot(records, baseline=name)
        hint = re.search('such as "?(.+?)"?\\.$', str(refused.value))[1]
        assert [row[2] for row in only(pivot(records, baseline=hint)).rows].count("1") == 1


@pytest.mark.parametrize("name", ["zarr[mapped]", "zarr reader=mapped", "zarr[mapped] chunk=16"])
def test_a_baseline_is_named_by_words(name: str) -> None:
    records = [run("zarr", 2.0), run("zarr", 1.0, options={"reader": "mapped", "chunk": None}, used={"chunk": 16})]
    assert [row[2] for row in only(pivot(records, baseline=name)).rows] == ["~2.00x", "1"]


def test_a_baseline_that_one_data_set_lacks_is_missed_there_alone() -> None:
    other = {"dataset": "esc50", "data": {"digest": "e"}}
    made = pivot([run("zarr", 2.0), run("hdf5", 1.0), run("zarr", 3.0, **other)], baseline="hdf5")
    assert only(made).rows[1] == ["zarr", "2.00", "~2.00x", "3.00", "n/a"]
    assert note(made, 1, 4) == "the baseline hdf5 was not measured under the same circumstances"


def test_a_missing_value_says_why() -> None:
    other = {"dataset": "esc50", "data": {"digest": "e"}}
    records = [run("zarr", 1.0), run("hdf5", 2.0), run("zarr", 3.0, **other), run("memmap", 3.0, **other)]
    made = pivot([*records, failed("hdf5", "It\nbroke.", dataset="esc50")])
    table = only(made)
    assert table.rows == [["hdf5", "2.00", "n/a"], ["memmap", "n/a", "3.00"], ["zarr", "1.00", "3.00"]]
    assert note(made, 0, 2) == "failed: It broke"
    assert note(made, 1, 1) == NEVER
    assert "(a) Failed: It broke." in all_notes(made)


def test_a_method_that_never_worked_has_a_row() -> None:
    made = pivot([run("zarr", 1.0), failed("hdf5", "No such format.", status="unsupported")])
    assert only(made).rows == [["hdf5", "n/a"], ["zarr", "1.00"]]
    assert note(made, 0, 1) == "unsupported: No such format"


def test_failures_of_other_work_are_counted_below() -> None:
    made = pivot([run("zarr", 1.0), failed("zarr", "Out of memory.", batch_size=999)])
    assert only(made).rows == [["zarr", "1.00"]]
    assert not only(made).marks
    assert "1 run without a result left out, of work that no other run finished. The last failed: Out of memory." in (
        all_notes(made)
    )


def test_a_value_of_which_some_runs_failed_says_so() -> None:
    made = pivot([run("zarr", 1.0), run("zarr", 1.0), failed("zarr", "Boom.")])
    assert note(made, 0, 1) == "1 of 3 runs gave no result: failed: Boom"
    found = [
        run("zarr", 1.0, source="auto"),
        run("zarr", 1.0, source="local:x"),
        failed("zarr", "Boom.", source="local:x"),
    ]
    assert note(pivot(found), 0, 1) == "1 of 3 runs gave no result: failed: Boom"


def test_a_run_that_its_user_stopped_is_no_failure_where_others_were_done() -> None:
    stopped = failed("zarr", "Interrupted", status="interrupted")
    made = pivot([run("zarr", 1.0), run("hdf5", 2.0), stopped])
    assert not any(cell.doubt for filled in made.sheets for cell in filled.cells.values())
    assert note(pivot([run("hdf5", 2.0), stopped]), 1, 1) == "interrupted: Interrupted"


def test_what_failed_under_another_quota_is_no_failure_here() -> None:
    quota = failed("zarr", "Boom.").model_copy(update={"environment": {**TEMPLATE.environment, "cpu_quota_cores": 0.5}})
    made = pivot([run("zarr", 1.0), quota])
    assert not only(made).marks
    assert len(made.arrangement.unplaced) == 1


def test_a_run_that_failed_before_its_memory_limit_was_in_force_is_counted() -> None:
    limit = {"memory_limit_bytes": 2**30}
    made = pivot([run("zarr", 1.0, environment=limit, **limit), failed("zarr", "Boom.", **limit)])
    assert note(made, 0, 1) == "1 of 2 runs gave no result: failed: Boom"


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("over_ceiling", "the ceiling was not measured"),
        ("gpu_energy_j", "no GPU was used"),
        ("limited_peak_mb", "this system does not tell"),
        ("wait_p99_ms", "too few batches"),
    ],
)
def test_a_quantity_that_no_record_has_says_why(metric: str, why: str) -> None:
    made = pivot([run("zarr")], metrics=metric)
    assert only(made).rows == [["zarr", "n/a"]]
    assert why in note(made, 0, 1)


def test_a_quantity_that_some_runs_lack_is_not_that_of_the_others() -> None:
    gpu = GpuInfo(name="x", energy_j=1.0)
    made = pivot(
        [run("zarr", changes={"gpu": gpu}), run("zarr", changes={"gpu": GpuInfo(name="x")})], metrics="gpu_energy_j"
    )
    assert only(made).rows == [["zarr", "n/a"]]
    assert note(made, 0, 1).endswith("only 1 of 2 runs have it")


def test_synthetic_data_is_named_loudly() -> None:
    made = pivot([run("zarr", data={"origin": "synthetic"})])
    assert only(made).columns[1] == "cifar10 (synthetic)"
    _, marks = pivot_tables(made)
    assert pivot_notes(made, marks)[0].startswith("SYNTHETIC DATA: cifar10 is a stand-in.")


def test_notes_say_what_numbers_rest_on() -> None:
    text = all_notes(pivot([run("zarr", 1.0, 2.0)]))
    environment = run().environment
    for part in (
        environment["cpu"],
        f"torch {environment['libraries']['torch']}",
        "Page cache (asked for: achieved): as-is",
        "found locally",
        "model cnn",
        f"batch size {run().spec.batch_size}",
        "2 epochs after a warm-up",
        "Runs per cell: 1, 1 in all",
        "no workers",
    ):
        assert part in text, part


def test_a_loss_that_is_no_number_is_shown_as_such() -> None:
    record = run("zarr")
    last = record.epochs[-1].model_copy(update={"loss": math.nan})
    made = pivot([record.model_copy(update={"epochs": [*record.epochs[:-1], last]})], metrics="loss")
    assert only(made).rows == [["zarr", "nan"]]


def test_control_noise_decides_what_is_marked() -> None:
    noisy = [0.3, 3.0] * 4
    assert not only(pivot(campaign("n", noisy, hdf5=BASE, zarr=times(1.5)))).strong
    assert only(pivot(campaign("q", QUIET, hdf5=BASE, zarr=times(1.5)))).strong


def test_defaults_that_became_different_numbers_are_told_in_order() -> None:
    other = {"dataset": "esc50", "data": {"digest": "e"}}
    chunk = {"options": {"chunk": None}}
    made = pivot([run("zarr", used={"chunk": 16}, **chunk), run("zarr", used={"chunk": 4}, **chunk, **other)])
    assert only(made).rows == [["zarr", "1.00", "1.00"]]
    assert "zarr chunk=4 or 16" in all_notes(made)


def test_what_cannot_be_is_neither_shown_nor_ranked() -> None:
    records = [run("zarr", 1.0, ideal_s=2.0), run("hdf5", 2.5, ideal_s=2.0), run("memmap", 3.0, ideal_s=2.0)]
    made = pivot(records, metrics="over_ceiling", baseline="zarr")
    assert [row[1:] for row in only(made).rows] == [["25.0", "n/a"], ["50.0", "n/a"], ["n/a", "n/a"]]
    assert "faster than the ceiling" in note(made, 2, 1)
    assert note(made, 0, 2).startswith("baseline: epochs seemed faster")
    assert all("zarr" not in text for text in only(made).notes)


def test_no_distance_to_the_ceiling_is_marked_as_the_best() -> None:
    records = campaign(hdf5=times(2.0), memmap=times(4.0), zarr=times(0.5))
    ideal = run(ideal_s=1.0).ideal
    made = pivot([record.model_copy(update={"ideal": ideal}) for record in records], metrics="over_ceiling")
    assert [row[0] for row in only(made).rows] == ["hdf5", "memmap", "zarr"]
    assert only(made).rows[2][1] == "n/a"
    assert not only(made).strong
    why = "No best value is marked in cifar10: this is a difference, of which ratios say nothing."
    assert why in only(made).notes


def test_lone_groups_have_ratios_to_their_ceiling() -> None:
    records = [run("zarr", 3.0, ideal_s=2.0), run("hdf5", 4.0, ideal_s=2.0)]
    made = pivot([*records, run("zarr", 5.0, ideal_s=2.0, seed=7)], baseline="ceiling")
    *_, alone = pivot_tables(made)[0]
    assert alone.columns[-2:] == ["epoch, s", "epoch, s: ratio to the ceiling"]
    assert alone.rows[0][-2:] == ["5.00", "~2.50x"]


def test_warnings_of_runs_are_counted() -> None:
    warned = run("zarr", changes={"warnings": [WarningInfo(kind="unstable", message="m")] * 2})
    assert "in doubt: unstable (1 run)." in all_notes(pivot([warned]))
    quiet = warned.model_copy(update={"warnings": []})
    assert "in doubt" not in all_notes(pivot([quiet]))


def test_one_epoch_is_no_doubt_where_several_runs_tell_the_spread() -> None:
    def short(backend: str, epoch_s: float, *kinds: str) -> RunRecord:
        return run(backend, epoch_s, changes={"warnings": [WarningInfo(kind=kind, message="m") for kind in kinds]})

    several = [short("zarr", 1.0, "no-repeats"), short("zarr", 1.1, "no-repeats")]
    assert "in doubt" not in all_notes(pivot(several))
    assert "in doubt: no-repeats (1 run)." in all_notes(pivot([*several, short("hdf5", 1.0, "no-repeats")]))
    also = [*several, short("zarr", 1.2, "no-repeats", "unstable")]
    assert "in doubt: unstable (1 run)." in all_notes(pivot(also))
