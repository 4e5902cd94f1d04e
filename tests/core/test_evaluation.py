"""Evaluations against tables that were made by hand."""

import subprocess
import sys

import numpy as np
import pytest

from bench.records.learned import EvaluationInfo
from bench.training.evaluation import evaluate

CLASSES = ("cat", "dog", "owl", "eel", "yak")


def evaluation(true: list[int], predicted: list[int], *, detailed: bool = True) -> EvaluationInfo:
    return evaluate(
        np.array(true, dtype=np.int64),
        np.array(predicted, dtype=np.int64),
        CLASSES,
        loss=0.5,
        split="test",
        epoch=3,
        evaluate_s=0.25,
        detailed=detailed,
    )


# cat: 4 samples, 3 found, 1 taken for a dog; dog: 2 samples, 1 found, 1 taken for an eel; owl: 2 samples, taken
# for cats: never predicted. Nothing is an eel, though one was seen; of yaks there is nothing at all.
TRUE = [0, 0, 0, 0, 1, 1, 2, 2]
PREDICTED = [0, 0, 0, 1, 1, 3, 0, 0]


def test_every_class_is_counted_as_by_hand() -> None:
    found = evaluation(TRUE, PREDICTED)
    assert [(c.name, c.precision, c.recall, c.support) for c in found.per_class] == [
        ("cat", 3 / 5, 3 / 4, 4),
        ("dog", 1 / 2, 1 / 2, 2),
        ("owl", None, 0, 2),
        ("eel", 0, None, 0),
        ("yak", None, None, 0),
    ]
    assert [c.f1 for c in found.per_class] == [pytest.approx(6 / 9), pytest.approx(1 / 2), 0, 0, None]


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    assert evaluation(TRUE, PREDICTED).confusion == [
        [3, 1, 0, 0, 0],
        [0, 1, 0, 1, 0],
        [2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_averages_count_what_is_undefined_as_0_and_leave_out_what_is_not_there() -> None:
    found = evaluation(TRUE, PREDICTED)
    assert (found.samples, found.accuracy) == (8, 4 / 8)
    # Four classes: of yaks there is nothing.
    assert found.macro_precision == pytest.approx((3 / 5 + 1 / 2) / 4)
    assert found.macro_recall == pytest.approx((3 / 4 + 1 / 2) / 4)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 4)
    assert found.weighted_precision == pytest.approx((4 * 3 / 5 + 2 * 1 / 2) / 8)
    assert found.weighted_recall == pytest.approx(found.accuracy)
    assert found.weighted_f1 == pytest.approx((4 * 2 / 3 + 2 * 1 / 2) / 8)


def test_what_was_measured_is_kept_and_details_only_on_demand() -> None:
    found = evaluation(TRUE, PREDICTED, detailed=False)
    assert (found.split, found.epoch, found.loss, found.evaluate_s) == ("test", 3, 0.5, 0.25)
    assert (found.per_class, found.confusion) == ([], None)


def test_one_class_alone_is_no_special_case() -> None:
    found = evaluation([1, 1], [1, 1])
    assert (found.accuracy, found.macro_f1, found.weighted_f1) == (1, 1, 1)
    assert found.confusion is not None
    assert found.confusion[1] == [0, 2, 0, 0, 0]


def test_scikit_learn_is_loaded_only_when_something_is_evaluated() -> None:
    check = "import sys, bench.training.evaluation\nassert 'sklearn' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
