"""A run's scores against those of scikit-learn on the predictions that it saved, and against the labels themselves."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics


def write_arrays(folder: Path) -> None:
    """Four classes of noise, a little brighter each; the test has no sample of the last."""
    folder.mkdir()
    random = np.random.default_rng(3)
    for split, count, classes in (("train", 48, 4), ("test", 30, 3)):
        labels = np.arange(count) % classes
        images = random.integers(0, 160, (count, 1, 8, 8)) + 30 * labels[:, None, None, None]
        np.save(folder / f"x_{split}.npy", images.astype(np.uint8))
        np.save(folder / f"y_{split}.npy", labels)


def test_scores_are_scikit_learns_on_the_saved_predictions(bench, tmp_path: Path) -> None:
    write_arrays(tmp_path / "arrays")
    flags = ["--backend", "memmap", "--dataset", "npy:arrays", "--data-dir", "data", "--batch-size", "16"]
    done = bench("run", *flags, "--no-ceiling", "--test", "test", "--predictions", "found.csv", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    test = record["test"]
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert sorted(row["index"] for row in rows) == list(range(30))
    labels = np.load(tmp_path / "arrays" / "y_test.npy")
    assert all(row["true"] == labels[row["index"]] for row in rows)

    true, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
    assert test["samples"] == 30
    assert test["accuracy"] == pytest.approx(sum(a == b for a, b in zip(true, predicted, strict=True)) / 30)
    for average in ("macro", "weighted"):
        for name, score in (
            ("precision", metrics.precision_score),
            ("recall", metrics.recall_score),
            ("f1", metrics.f1_score),
        ):
            expected = score(true, predicted, average=average, zero_division=0)
            assert test[f"{average}_{name}"] == pytest.approx(expected), (average, name)
    counts = [[sum(pair == (t, p) for pair in zip(true, predicted, strict=True)) for p in range(4)] for t in range(4)]
    assert test["confusion"] == counts
    assert [one["support"] for one in test["per_class"]] == [10, 10, 10, 0]
    assert test["per_class"][3]["recall"] is None

    # What other commands show of it is the same.
    shown = bench("confusion", "last", "--csv", "matrix.csv")
    assert shown.returncode == 0, shown.stderr
    lines = (tmp_path / "matrix.csv").read_text().splitlines()[1:]
    assert [[int(value) for value in line.split(",")[1:]] for line in lines] == counts
