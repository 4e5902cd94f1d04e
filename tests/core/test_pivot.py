"""Which runs stand in which cell: no two that differ ever share one, and every difference is named."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tabled import BASE, campaign, failed, pivot, run

from bench.comparisons.comparison import compare
from bench.records.facets import FacetError
from bench.records.record import CacheInfo, RunRecord
from bench.report.marked import HEADING, MarkedTable
from bench.report.pivot import Pivot
from bench.report.pivot_notes import pivot_notes
from bench.report.pivot_tables import Marks, pivot_tables
from bench.report.ratios import PivotError


def tables(records: list[RunRecord], *asked: str, **more: str) -> list[MarkedTable]:
    return pivot_tables(pivot(records, *asked, **more))[0]


def notes_of(made: Pivot) -> dict[str, str]:
    return {letter: note for note, letter in pivot_tables(made)[1].letters.items()}


def test_the_default_is_methods_by_data_sets() -> None:
    records = [
        run("zarr", 4.0, dataset="esc50", data={"digest": "e"}),
        run("zarr", 2.0, 3.0, 10.0),
        run("hdf5", 1.5),
        run("hdf5", 2.5, dataset="esc50", data={"digest": "e"}),
    ]
    (table,) = tables(records)
    assert table.title == "Epoch, s: method by dataset"
    assert table.columns == ["method", "cifar10", "esc50"]
    assert table.rows == [["hdf5", "1.50", "2.50"], ["zarr", "3.00 (2.00…10.0)", "4.00"]]
    assert table.text_columns == 1


WARM, COLD = CacheInfo(asked="warm", achieved="verified"), CacheInfo(asked="cold", achieved="verified")
FAILED_COLD = CacheInfo(asked="cold", achieved="not-achieved")


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ({"model": "cnn"}, {"model": "resnet18"}, "model resnet18"),
        ({"batch_size": 16}, {"batch_size": 32}, "batch size 32"),
        ({"seed": 0}, {"seed": 1}, "seed 1"),
        ({"shuffle": "full"}, {"shuffle": "none"}, "shuffle none"),
        ({"environment": {"cpu": "A"}}, {"environment": {"cpu": "B"}}, "cpu B"),
        ({"environment": {"libraries": {"torch": "1"}}}, {"environment": {"libraries": {"torch": "2"}}}, "torch 2"),
        ({"environment": {"bench": "1"}}, {"environment": {"bench": "2"}}, "bench version 2"),
        ({"changes": {"device": "cpu"}}, {"changes": {"device": "cuda:0"}}, "device cuda:0"),
        ({"changes": {"cache": WARM}}, {"changes": {"cache": COLD}}, "page cache cold"),
        ({"changes": {"cache": COLD}}, {"changes": {"cache": FAILED_COLD}}, "page cache NOT achieved"),
    ],
)
def test_what_is_neither_row_nor_column_divides_tables(one: dict, other: dict, named: str) -> None:
    same = [run("hdf5", 1.0, **one), run("zarr", 2.0, **one)]
    found = tables([*same, run("hdf5", 3.0, **other), run("zarr", 4.0, **other)])
    assert [[row[1] for row in table.rows] for table in found] == [["1.00", "2.00"], ["3.00", "4.00"]]
    assert named in found[1].title
    assert named not in found[0].title
    # On its own it stands in a table of lone values, by the same words.
    *_, alone = tables([*same, run("zarr", 4.0, **other)])
    assert alone.title == "Alone under their circumstances"
    assert (alone.rows[0][0], alone.rows[0][-1]) == ("zarr", "4.00")
    assert named in alone.rows[0][2]


@pytest.mark.parametrize(
    ("one", "other", "headings"),
    [
        ({"count": 10, "digest": "a"}, {"count": 20, "digest": "b"}, ["cifar10 (10 samples)", "cifar10 (20 samples)"]),
        ({"origin": "local", "digest": "a"}, {"origin": "official", "digest": "b"}, ["cifar10 (local)", "(official)"]),
        ({"digest": "aaaaaaaa99"}, {"digest": "bbbbbbbb99"}, ["cifar10 [aaaaaaaa]", "cifar10 [bbbbbbbb]"]),
        ({"split": "train", "digest": "a"}, {"split": "test", "digest": "b"}, ["test split", "train split"]),
    ],
)
def test_other_bytes_are_another_column(one: dict, other: dict, headings: list[str]) -> None:
    (table,) = tables([run("zarr", 1.0, data=one), run("zarr", 2.0, data=other)])
    assert sorted(table.rows[0][1:]) == ["1.00", "2.00"]
    assert all(text in column for text, column in zip(headings, table.columns[1:], strict=True))


def test_options_of_a_data_set_are_told() -> None:
    small = run("zarr", 1.0, data={"digest": "a"}, dataset_options={"size": 64, "skip_bad": False})
    large = run("zarr", 2.0, data={"digest": "b"}, dataset_options={"size": 224, "skip_bad": False})
    (table,) = tables([small, large])
    assert table.columns == ["method", "cifar10 size=64", "cifar10 size=224"]


def test_data_sets_may_differ_in_how_training_was_set_up_and_the_headings_say_so() -> None:
    other = {"dataset": "esc50", "batch_size": 16, "data": {"digest": "e"}}
    made = pivot([run("zarr", 1.0), run("hdf5", 2.0), run("zarr", 3.0, **other), run("hdf5", 4.0, **other)])
    (table,), _ = pivot_tables(made)
    assert table.rows == [["hdf5", "2.00", "4.00"], ["zarr", "1.00", "3.00"]]
    notes = notes_of(made)
    assert notes[table.marks[HEADING, 1]] == f"batch size {run().spec.batch_size}"
    assert notes[table.marks[HEADING, 2]] == "batch size 16"


def test_data_sets_of_two_machines_are_two_tables() -> None:
    other = {"dataset": "esc50", "environment": {"cpu": "B"}, "data": {"digest": "e"}}
    found = tables([run("zarr", 1.0), run("hdf5", 2.0), run("zarr", 3.0, **other), run("hdf5", 4.0, **other)])
    assert [table.columns[1:] for table in found] == [["cifar10"], ["esc50"]]


def test_what_lies_on_an_axis_divides_no_tables() -> None:
    other = {"dataset": "esc50", "batch_size": 16, "data": {"digest": "e"}, "changes": {"cache": COLD}}
    records = [
        run("zarr", 1.0, changes={"cache": WARM}),
        run("zarr", 2.0, changes={"cache": COLD}),
        run("zarr", 3.0, **other),
    ]
    (table,) = tables(records, "cache")
    assert table.columns == ["cache", "method", "cifar10", "esc50"]
    assert table.rows == [["cold: verified", "zarr", "2.00", "3.00"], ["warm: verified", "zarr", "1.00", "n/a"]]


def test_machines_on_an_axis_are_told_apart_by_what_is_installed() -> None:
    old, new = ({"libraries": {"torch": version}} for version in ("2.0", "2.1"))
    made = pivot([run("zarr", 1.0, environment=old), run("zarr", 2.0, environment=new)], columns="machine")
    (table,), _ = pivot_tables(made)
    assert table.rows == [["zarr", "1.00", "2.00"]]
    assert [notes_of(made)[table.marks[HEADING, n]] for n in (1, 2)] == ["version of torch 2.0", "version of torch 2.1"]


def test_machines_on_an_axis_are_told_apart_by_their_settings() -> None:
    limits = [{"cpu_quota_cores": quota} for quota in (0.5, None)]
    made = pivot([run("zarr", time_s, environment=known) for time_s, known in enumerate(limits, 1)], columns="machine")
    (table,), _ = pivot_tables(made)
    assert sorted(table.rows[0][1:]) == ["1.00", "2.00"]
    told = {notes_of(made)[table.marks[HEADING, n]] for n in (1, 2)}
    assert told == {"CPU quota 0.5 cores", "CPU quota none"}


def test_revisions_on_an_axis_divide_runs_that_are_equal_otherwise() -> None:
    records = [run("zarr", time_s, environment={"git_revision": text}) for text, time_s in (("a", 1.0), ("b", 3.0))]
    assert tables(records)[0].rows == [["zarr", "2.00 (1.00…3.00)"]]
    assert tables(records, "method", "revision")[0].rows == [["zarr", "1.00", "3.00"]]


def test_runs_that_were_asked_for_differently_and_did_the_same_are_one_cell() -> None:
    (table,) = tables([run("zarr", 1.0, source="auto"), run("zarr", 3.0, source="local:x")])
    assert table.rows == [["zarr", "2.00 (1.00…3.00)"]]


def test_a_method_is_told_as_far_as_it_differs() -> None:
    chunks = [run("zarr", options={"chunk": chunk, "codec": "none"}) for chunk in (16, 4)]
    others = [
        run("hdf5", options={"layout": "contiguous"}),
        run("zarr", options={"chunk": 4, "codec": "none"}, workers=2),
    ]
    made = pivot([*chunks, *others])
    (table,), _ = pivot_tables(made)
    assert [row[0] for row in table.rows] == [
        "hdf5, no workers",
        "zarr chunk=4, 2 workers",
        "zarr chunk=4, no workers",
        "zarr chunk=16, no workers",
    ]
    assert made.arrangement.methods.common() == "reader library; hdf5 layout=contiguous; zarr codec=none"
    (table,) = tables([run("zarr"), run("zarr", options={"reader": "mapped"}), run("memory")])
    assert [row[0] for row in table.rows] == ["memory[library]", "zarr[library]", "zarr[mapped]"]


def test_what_all_workers_are_is_told_once_and_what_they_differ_in_is_not() -> None:
    alike = [run(name, workers=2, worker_kind="thread", prefetch=8) for name in ("hdf5", "zarr")]
    assert pivot(alike).arrangement.methods.common() == "reader library; 2 thread workers (prefetch 8)"
    kinds = [run("zarr", workers=2, worker_kind=kind) for kind in ("thread", "process")]
    assert pivot(kinds).arrangement.methods.common() == "reader library; 2 workers"
    ahead = [run("zarr", workers=2, prefetch=batches) for batches in (2, 8)]
    assert pivot(ahead).arrangement.methods.common() == "reader library; 2 process workers"


def test_weights_and_a_limit_of_memory_are_part_of_the_work() -> None:
    asked = {"weights": "folder/known.pt", "memory_limit_bytes": 2**30}
    notes = pivot_notes(pivot([run("zarr", **asked), run("hdf5", **asked)]), Marks())
    (note,) = (note for note in notes if note.startswith("The same in all runs"))
    assert "memory limit 1,024 MiB, weights of known.pt, sgd" in note


def test_what_became_the_same_is_one_row() -> None:
    auto = {"options": {"format": "auto"}, "used": {"format": "png"}}
    png = {"options": {"format": "png"}}
    other = {"dataset": "esc50", "data": {"digest": "e"}}
    (table,) = tables([run("filesystem", 1.0, **auto), run("filesystem", 2.0, **png, **other)])
    assert table.rows == [["filesystem", "1.00", "2.00"]]
    (table,) = tables([run("filesystem", 1.0, **auto), run("filesystem", 2.0, **png)])
    assert table.rows == [["filesystem", "1.50 (1.00…2.00)"]]


def test_a_method_tells_what_its_options_became() -> None:
    auto = {"format": "auto", "quality": None}
    png = run("filesystem", 1.0, options=auto, used={"format": "png"})
    jpeg = run("filesystem", 2.0, options={"format": "jpeg", "quality": 80})
    (table,) = tables([png, jpeg])
    names = ["filesystem format=auto (png) quality=default", "filesystem format=jpeg quality=80"]
    assert [row[0] for row in table.rows] == names
    (table,) = tables([run("zarr", options={"chunk": n}, used={"chunk": n or 16}) for n in (None, 4)])
    assert sorted(row[0] for row in table.rows) == ["zarr chunk=4", "zarr chunk=default (16)"]
    elsewhere = {"dataset": "esc50", "data": {"digest": "e"}}
    npy = run("filesystem", 3.0, options=auto, used={"format": "npy"}, **elsewhere)
    (table,) = tables([png, jpeg, npy])
    assert table.rows[0] == ["filesystem format=auto (npy or png) quality=default", "1.00", "3.00"]


def test_an_option_that_an_older_record_lacks_is_not_taken_for_a_default() -> None:
    (table,) = tables([run("zarr", 1.0), run("zarr", 2.0, options={"shard": None})])
    assert table.rows == [["zarr shard=default", "2.00"], ["zarr shard=unrecorded", "1.00"]]


@pytest.mark.parametrize(
    ("rows", "columns", "headings", "cells"),
    [
        (
            "backend",
            "workers",
            ["backend", "workers 0", "workers 2"],
            [["hdf5", "1.00", "2.00"], ["zarr", "3.00", "4.00"]],
        ),
        ("workers", "backend", ["workers", "hdf5", "zarr"], [["0", "1.00", "3.00"], ["2", "2.00", "4.00"]]),
        ("dataset", "backend,workers", None, [["cifar10", "1.00", "2.00", "3.00", "4.00"]]),
        (
            "backend,workers",
            "model",
            ["backend", "workers", "cnn"],
            [["hdf5", "0", "1.00"], ["hdf5", "2", "2.00"], ["zarr", "0", "3.00"], ["zarr", "2", "4.00"]],
        ),
    ],
)
def test_any_facet_may_be_rows_or_columns(rows: str, columns: str, headings: list[str] | None, cells: list) -> None:
    records = [
        run("zarr", 4.0, workers=2),
        run("hdf5", 1.0),
        run("hdf5", 2.0, workers=2),
        run("zarr", 3.0),
    ]
    (table,) = tables(records, rows, columns)
    assert headings is None or table.columns == headings
    assert table.rows == cells


def test_methods_that_no_axis_names_have_a_column_of_their_own() -> None:
    (table,) = tables([run("zarr", 1.0), run("hdf5", 2.0)], "model", "dataset")
    assert table.columns == ["model", "method", "cifar10"]
    assert table.rows == [["cnn", "hdf5", "2.00"], ["cnn", "zarr", "1.00"]]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rows": "dataset"}, "dataset cannot be both"),
        ({"rows": "status"}, "status is no row or column"),
        ({"rows": ","}, "needs --rows and --columns"),
        ({"metrics": "epochs"}, "no such metric. Choose from: epoch_s"),
        ({"metrics": "epoch_s,epoch_s"}, "given twice"),
    ],
)
def test_a_table_that_cannot_be_is_refused_in_a_line(asked: dict, said: str) -> None:
    with pytest.raises((PivotError, FacetError), match=said):
        pivot([run()], **asked)


def test_without_a_result_there_is_no_table() -> None:
    with pytest.raises(PivotError, match="None of the 2 runs chosen gave a result"):
        pivot([failed("zarr", "a"), failed("hdf5", "b")])


def test_controls_are_with_the_runs_that_they_repeat_and_in_no_value() -> None:
    runs = campaign(control=[3.0] * 8, zarr=BASE, hdf5=[2 * value for value in BASE])
    made = pivot(runs)
    assert sorted(len(group.records) for group in made.groups) == [8, 16]
    (table,) = pivot_tables(made)[0]
    assert [row[1].split(" ")[0] for row in table.rows] == ["2.70", "1.35"], "with the control's zarr has 2.32"
    (said,) = (note for note in pivot_notes(made, Marks()) if note.startswith("Runs per cell"))
    assert said == "Runs per cell: 8, 16 in all; 8 runs that repeat a method as a control left out."
    cells = {cell.name: cell.median for cell in compare(runs).cells if not cell.control}
    assert cells == {"zarr": pytest.approx(1.35), "hdf5": pytest.approx(2.7)}


def test_controls_are_all_that_there_is_where_their_runs_are_missing() -> None:
    runs = [record for record in campaign(zarr=[1.0] * 8, hdf5=[2.0] * 8) if record.campaign.control]
    assert len(runs) == 8
    (group,) = pivot(runs).groups
    assert len(group.counted) == 8


def test_letters_of_notes_never_run_out() -> None:
    marks = Marks()
    letters = [marks.of(str(number)) for number in range(1000)]
    assert letters[:2] + letters[25:28] + letters[701:703] == ["a", "b", "z", "aa", "ab", "zz", "aaa"]
    assert len(set(letters)) == 1000
    assert marks.of("27") == "ab"


CHOICES = {
    "backend": ["zarr", "hdf5"],
    "workers": [0, 2],
    "batch_size": [16, 32],
    "dataset": ["cifar10", "esc50"],
    "model": ["cnn", "resnet18"],
}
SPECS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()})
AXES = st.permutations(["method", "backend", "workers", "dataset", "model", "machine", "cache"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(SPECS, st.sampled_from("AB")), min_size=1, max_size=12), AXES)
def test_every_run_is_in_one_cell_and_runs_of_a_cell_are_equal(chosen: list, axes: list[str]) -> None:
    records = [run(environment={"cpu": cpu}, data={"digest": spec["dataset"]}, **spec) for spec, cpu in chosen]
    made = pivot(records, axes[0], axes[1])
    placed = [id(record) for group in made.groups for record in group.records]
    assert sorted(placed) == sorted(id(record) for record in records)
    for group in made.groups:
        assert len({(r.spec_id, r.environment["cpu"]) for r in group.records}) == 1
    # Nothing is left out of the tables either: each group fills one cell.
    shown = sum(cell != "n/a" for t in pivot_tables(made)[0] for row in t.rows for cell in row[t.text_columns :])
    assert shown == len(made.groups)


def test_a_cache_that_was_achieved_in_some_runs_of_a_comparison_only_is_told_and_never_averaged() -> None:
    records = campaign(memmap=BASE, hdf5=[2 * value for value in BASE], control=None)
    warm = [r.model_copy(update={"spec": r.spec.model_copy(update={"cache": "warm"})}) for r in records]
    made = [r.model_copy(update={"spec_id": r.spec.spec_id}) for r in warm]
    states = ["verified"] * 5 + ["not-achieved"] * 3 + ["verified"] * 8
    mixed = [
        r.model_copy(update={"cache": r.cache.model_copy(update={"asked": "warm", "achieved": state})})
        for r, state in zip(made, states, strict=True)
    ]
    found = pivot(mixed)
    assert sorted(len(group.records) for group in found.groups) == [3, 5, 8]
    (note,) = [note for note in pivot_notes(found, Marks()) if note.startswith("MIXED CACHE STATES")]
    assert "memmap, warm: verified in 5 of 8 runs, not-achieved in 3 of 8 runs" in note
    assert "hdf5" not in note
    same = [r.model_copy(update={"cache": mixed[0].cache}) for r in mixed]
    assert not [note for note in pivot_notes(pivot(same), Marks()) if "MIXED" in note]
