"""Validation, tests and folds as metrics, lines of `bench show`, and columns of an export."""

import pytest
from learnt import fold, trained
from tabled import run
from typer.testing import CliRunner

from bench.cli import app
from bench.records import results
from bench.records.flat import epoch_columns, flatten
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.records.tracking import tracked
from bench.report.tables import comparison_table, run_table


def values(record: RunRecord) -> dict[str, float | None]:
    found = {key: metric.of(record) for key, metric in METRICS.items()}
    return {key: summary and summary.median for key, summary in found.items()}


def test_metrics_of_what_was_learnt_by_hand() -> None:
    found = values(trained())
    expected = {
        # Of four, three are a cat and one a dog: the last epoch takes a cat for a dog, the best one is right.
        "val_accuracy": 75,
        "val_best_accuracy": 100,
        "val_loss": 0.7,
        "test_loss": 0.5,
        "test_accuracy": 70,
        # cat 3/4 and 3/4, dog 2/3 and 2/3, owl 2/3 and 2/3.
        "test_macro_precision": 100 * (3 / 4 + 2 / 3 + 2 / 3) / 3,
        "test_macro_recall": 100 * (3 / 4 + 2 / 3 + 2 / 3) / 3,
        "test_macro_f1": 100 * (3 / 4 + 2 / 3 + 2 / 3) / 3,
        "test_weighted_precision": 70,
        "test_weighted_recall": 70,
        "test_weighted_f1": 70,
        "evaluate_s": 3 * 0.5 + 0.25,
        "augment_s": None,
    }
    assert {key: found[key] for key in expected} == {k: v and pytest.approx(v) for k, v in expected.items()}


def test_a_run_without_any_of_it_has_none_of_these_metrics_and_no_lines_for_them() -> None:
    record = run()
    learnt = [key for key in METRICS if key.startswith(("val_", "test_"))] + ["evaluate_s", "augment_s"]
    assert len(learnt) == 13
    assert {values(record)[key] for key in learnt} == {None}
    table = run_table([record])
    assert not {METRICS[key].label for key in learnt} & {row[0] for row in table.rows}
    assert not [note for note in table.notes if note.startswith(("Training", "Validation", "Test", "Fold"))]


def test_augmenting_is_the_median_of_the_counted_epochs() -> None:
    record = run("memmap", 1.0, 2.0, 4.0)
    epochs = [epoch.model_copy(update={"augment_s": 0.25 * epoch.epoch_s}) for epoch in record.epochs]
    assert values(record.model_copy(update={"epochs": epochs}))["augment_s"] == 0.5


def test_a_shown_run_says_what_it_learnt() -> None:
    record = fold(2, right=7)
    table = run_table([record])
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["test accuracy"] == ["70.0", "%"]
    assert rows["validation accuracy, best epoch"] == ["100", "%"]
    said = "\n".join(table.notes)
    assert "Training: 1,234 parameters, 900 samples trained on, stopped early." in said
    assert "Validation: split val, 4 samples, after each epoch and outside of its time; best after epoch 1." in said
    assert "Test: split test, 10 samples, with the weights of epoch 1." in said
    assert "Fold 2 of 4 of cross-validation k1: `bench folds k1` puts them together." in said


def test_tables_of_runs_have_the_test_where_there_was_one() -> None:
    columns = comparison_table([trained("zarr"), trained("hdf5")]).columns
    assert {"test accuracy, %", "test F1, macro, %"} <= set(columns)
    assert not [column for column in comparison_table([run()]).columns if column.startswith("test")]


def test_exports_have_the_validation_of_each_epoch_and_the_test_of_the_run() -> None:
    flat = flatten([("a", fold(2, right=7))])
    assert [(row["epoch"], row["validation_accuracy"], row["validation_loss"]) for row in flat.rows] == [
        (0, 0.75, pytest.approx(0.9)),
        (1, 1.0, pytest.approx(0.8)),
        (2, 0.75, pytest.approx(0.7)),
    ]
    run_of = {"test_accuracy": 0.7, "fold_id": "k1", "fold_fold": 2, "fold_folds": 4, "training_best_epoch": 1}
    assert all(row[key] == value for row in flat.rows for key, value in run_of.items())
    assert set(flat.rows[0]) <= set(flat.columns)
    assert all(flat.columns[name] != "text" for name in epoch_columns())


def test_trackers_are_told_of_both() -> None:
    found = tracked(fold(2, right=7), "a")
    assert [epoch["validation_accuracy"] for epoch in found.epochs] == [0.75, 1.0, 0.75]
    assert (found.summary["test_accuracy"], found.tags["fold_id"]) == (70, "k1")


def test_the_command_shows_the_metric_in_tables_and_history(tmp_path) -> None:
    results.write(trained("zarr"), tmp_path)
    for command in ("table", "history"):
        done = CliRunner().invoke(app, [command, "--results", str(tmp_path), "--metric", "test_macro_f1"])
        assert done.exit_code == 0, done.output
        assert "69.4" in done.stdout
