"""`bench folds`: runs of one cross-validation, put together by hand."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path

import pytest
from click.testing import Result
from learnt import fold
from tabled import run
from typer.testing import CliRunner

from bench.cli import app
from bench.records import results
from bench.records.cross_validation import cross_validations
from bench.records.record import ErrorInfo, RunRecord
from bench.report.cross_validated import folds_notes, folds_table
from bench.stats import moments


def folds(folder: Path, *flags: str) -> Result:
    return CliRunner().invoke(app, ["folds", "--results", str(folder), *flags])


def written(folder: Path, *records: RunRecord) -> Path:
    for record in records:
        results.write(record, folder)
    return folder


def test_mean_median_and_deviation_are_those_of_a_sample() -> None:
    found = moments([2.0, 4.0, 4.0, 10.0])
    # Deviations from 5: -3, -1, -1, 5; 36 in squares, over 3.
    assert (found.n, found.mean, found.median, found.deviation) == (4, 5, 4, pytest.approx(12**0.5))
    assert moments([7.0]).deviation is None
    assert moments([]) is None


def test_a_table_has_each_fold_and_what_they_make_together() -> None:
    (found,) = cross_validations([fold(n, right=right) for n, right in ((1, 5), (2, 7), (4, 8), (3, 9))])
    table = folds_table(found, ["test_accuracy"])
    assert table.rows == [
        ["1", "ok", "50.0"],
        ["2", "ok", "70.0"],
        ["3", "ok", "90.0"],
        ["4", "ok", "80.0"],
        ["mean", "of 4 folds", "72.5"],
        ["median", "of 4 folds", "75.0"],
        ["standard deviation", "of 4 folds", "17.1"],
    ]
    assert statistics.stdev([50, 70, 90, 80]) == pytest.approx(17.1, abs=0.05)
    assert table.title == "k1: cnn from memmap[library] on cifar10 (local) size=8, 4 folds"
    assert not [note for note in table.notes if "INCOMPLETE" in note]


def test_folds_without_a_result_are_named_with_the_reason() -> None:
    error = ErrorInfo(phase="train", type="X", message="No memory left.")
    failed = fold(3, right=1).model_copy(update={"status": "failed", "error": error})
    (found,) = cross_validations([fold(1, right=5), failed])
    table = folds_table(found, ["test_accuracy"])
    assert table.rows[1:4] == [
        ["2", "not run", "n/a"],
        ["3", "failed: No memory left.", "n/a"],
        ["4", "not run", "n/a"],
    ]
    assert table.rows[4:] == [
        ["mean", "of 1 folds", "50.0"],
        ["median", "of 1 folds", "50.0"],
        ["standard deviation", "of 1 folds", "n/a"],
    ]
    assert any(note.startswith("INCOMPLETE: no result of folds 2, 3, 4.") for note in table.notes)


def test_a_cross_validation_without_any_result_says_what_was_tried(tmp_path: Path) -> None:
    error = ErrorInfo(phase="train", type="X", message="No memory left.")
    failed = [fold(n, right=1).model_copy(update={"status": "failed", "error": error}) for n in (1, 2)]
    done = folds(written(tmp_path, *failed))
    assert done.exit_code == 0, done.exception
    assert "failed: No memory left." in done.stdout
    assert "Each fold: " in done.stdout


def test_a_fold_that_was_done_again_counts_once_and_that_is_said() -> None:
    again = fold(1, right=9).model_copy(update={"started_at": "2026-11-22T00:00:00.000000+00:00"})
    (found,) = cross_validations([again, fold(1, right=5)])
    assert found.value(1, "test_accuracy") == 90
    assert any("Several results of fold 1" in note for note in folds_table(found, ["test_accuracy"]).notes)


def test_folds_that_ran_under_other_conditions_are_told() -> None:
    first, second = fold(1, right=5), fold(2, right=7)
    assert not [note for note in folds_notes(cross_validations([first, second])[0]) if "ALIKE" in note]
    environment = {**second.environment, "libraries": {**second.environment["libraries"], "torch": "9.9"}}
    made_up = second.data.model_copy(update={"origin": "synthetic"}) if second.data else None
    later = second.model_copy(update={"environment": environment, "data": made_up})
    notes = " ".join(folds_notes(cross_validations([first, later])[0]))
    assert "NOT ALIKE: folds ran under different conditions" in notes
    torch = first.environment["libraries"]["torch"]
    assert f"version of torch ({torch} or 9.9), origin of the samples (local or synthetic)." in notes


def test_what_differs_in_more_than_the_fold_is_not_merged() -> None:
    records = [fold(n, right=5, **other) for n in (1, 2) for other in ({}, {"backend": "zarr"}, {"seed": 1})]
    records += [fold(1, right=5, identity="k2"), run()]
    found = cross_validations(records)
    assert sorted((one.identity, one.first.spec.backend, one.first.spec.seed, len(one.runs)) for one in found) == [
        ("k1", "memmap", 0, 2),
        ("k1", "memmap", 1, 2),
        ("k1", "zarr", 0, 2),
        ("k2", "memmap", 0, 1),
    ]


def test_the_command_shows_all_or_one_and_raw_values(tmp_path: Path) -> None:
    folder = written(
        tmp_path, *(fold(n, right=4 + n) for n in (1, 2, 3, 4)), fold(1, right=2, identity="a", backend="zarr")
    )
    text = folds(folder).stdout
    assert "k1: cnn from memmap[library]" in text
    assert "a: cnn from zarr[library]" in text
    assert "memmap" not in folds(folder, "a").stdout
    rows = list(csv.DictReader(io.StringIO(folds(folder, "k1", "--format", "csv").stdout)))
    assert [(row["fold"], row["test_accuracy [%]"]) for row in rows] == [
        (str(n), f"{40.0 + 10 * n}") for n in (1, 2, 3, 4)
    ]
    markdown = folds(folder, "k1", "--format", "markdown", "--metric", "epoch_s,test_loss").stdout
    assert "| fold | result | epoch, s | test loss, nats |" in markdown
    document = tmp_path / "doc.md"
    document.write_text("a\n<!-- bench folds -->\nold\n<!-- /bench folds -->\nz\n")
    assert folds(folder, "k1", "--metric", "epoch_s,test_loss", "--into", str(document)).stdout == ""
    assert document.read_text() == f"a\n<!-- bench folds -->\n{markdown.strip()}\n<!-- /bench folds -->\nz\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["k9"], "No cross-validation 'k9' in"),
        (["--metric", "speed"], "--metric speed: there is no such metric. Choose from:"),
        (["--format", "csv", "--into", "x.md"], "--into writes Markdown, not csv"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, flags: list[str], said: str) -> None:
    done = folds(written(tmp_path, fold(1, right=5)), *flags)
    assert (done.exit_code, done.stdout) == (1, "")
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_runs_without_folds_are_no_cross_validation(tmp_path: Path) -> None:
    done = folds(written(tmp_path, run()))
    assert str(done.exception).startswith("No cross-validation in ")


def test_folds_of_different_sizes_are_not_said_to_be_alike() -> None:
    def of_size(number: int, count: int) -> RunRecord:
        record = fold(number, right=5)
        return record.model_copy(update={"data": record.data.model_copy(update={"count": count})})

    (alike,) = cross_validations([of_size(1, 1000), of_size(2, 1000)])
    assert folds_notes(alike)[0].startswith("Each fold: 900 of 1,000 samples, batch ")
    (unlike,) = cross_validations([of_size(1, 1000), of_size(2, 950), of_size(3, 1000)])
    said = folds_notes(unlike)[0]
    assert said.startswith("Each fold: batch ")
    assert " Folds 1, 3: 900 of 1,000 samples. Fold 2: 900 of 950 samples." in said
    assert said.count("batch ") == 1


def test_below_the_folds_stand_optimizer_seed_and_what_they_were_tested_on() -> None:
    def tested_on(number: int, samples: int) -> RunRecord:
        record = fold(number, right=5, optimizer="sgd", lr=0.05, seed=17)
        return record.model_copy(update={"test": record.test.model_copy(update={"samples": samples})})

    (alike,) = cross_validations([tested_on(1, 1200), tested_on(2, 1200)])
    (said, *_) = folds_notes(alike)
    # Both are what happens by default.
    assert ", sgd, lr 0.05, " in said
    assert ", seed 17. Tested on 1,200 samples each. Standard deviation" in said
    (unlike,) = cross_validations([tested_on(1, 1200), tested_on(2, 873), tested_on(3, 1200)])
    assert " Tested on 1,200 samples (folds 1, 3), 873 samples (fold 2)." in folds_notes(unlike)[0]
