"""The ceiling: which epochs are trained for it, and which of them stands in the record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.campaigns.estimate import trained_s
from bench.loading import Batch
from bench.measure.clock import Phases
from bench.records.record import read_record
from bench.specs.spec import RunSpec
from bench.training.ceiling import Resident, measure_ideal
from bench.training.job import Job
from bench.training.trainer import EpochResult

BATCH = 2
SAMPLES = 5


class KnownTrainer:
    """Takes as long as it is told, and keeps which batches each epoch was trained on."""

    def __init__(self, times_s: list[float]) -> None:
        self._times_s = iter(times_s)
        self.trained: list[list[list[int]]] = []

    def epoch(self, batches: Iterator[Batch], clock: object, on_batch: object, number: int = 0) -> EpochResult:
        del clock, on_batch, number
        epoch_s = next(self._times_s)
        self.trained.append([y.tolist() for _, y in batches])
        return EpochResult(Phases(epoch_s, 0.0, 0.0, 0.0, epoch_s, []), SAMPLES, None, None, None)


def ceiling_of(epochs: int, times_s: list[float]) -> tuple[float, KnownTrainer]:
    """The ceiling of a run of so many epochs, where passes over the resident batches take these times."""
    spec = RunSpec(backend="memory", dataset="cifar10", model="cnn", batch_size=BATCH, epochs=epochs)
    job = Job(spec, Path(), Path(), SAMPLES, (1,), "float32", ("a", "b"), None, ceiling=True)
    resident = Resident(job, SAMPLES, torch.device("cpu"))
    for first in (0, 2):
        resident.keep(torch.zeros(BATCH, 1), torch.tensor([first, first + 1]))
    trainer = KnownTrainer(times_s)
    ideal = measure_ideal(job, trainer, resident, None, lambda _: None)
    assert not ideal.warmup
    return ideal.epoch_s, trainer


@pytest.mark.parametrize(
    ("epochs", "times_s", "ideal_s"),
    [
        (1, [1.3, 1.0], 1.0),
        (2, [1.3, 1.0], 1.0),
        (3, [0.1, 1.3, 1.0, 1.1], 1.1),
        (3, [1.3, 1.0, 1.1, 1.3], 1.1),
        (4, [9.0, 1.0, 1.3, 1.1], 1.1),
        (5, [9.0, 1.0, 1.4, 1.2, 1.1, 1.3], 1.2),
    ],
)
def test_the_ceiling_is_the_middle_of_as_many_epochs_as_count_and_never_the_pass_before(
    epochs: int, times_s: list[float], ideal_s: float
) -> None:
    found, trainer = ceiling_of(epochs, times_s)
    assert found == ideal_s
    assert len(trainer.trained) == len(times_s)


@pytest.mark.parametrize(
    ("times_s", "ideal_s"),
    [([9.0, 5.5], 5.5), ([9.0, 3.0, 2.5, 2.0], 2.5)],
    ids=["one is long enough", "two are, and have no middle"],
)
def test_long_epochs_are_trained_less_often(times_s: list[float], ideal_s: float) -> None:
    found, trainer = ceiling_of(9, times_s)
    assert found == ideal_s
    assert len(trainer.trained) == len(times_s)


def test_each_resident_batch_is_trained_on_once_before_whole_epochs_of_them() -> None:
    _, trainer = ceiling_of(1, [1.0, 1.0])
    assert trainer.trained == [[[0, 1], [2, 3]], [[0, 1], [2, 3], [0]]]


def test_what_plans_the_time_of_runs_counts_the_pass_before_the_ceiling() -> None:
    record = read_record(Path(__file__).parent / "records" / "version-1.json")
    epochs = [record.epochs[0].model_copy(update={"epoch_s": epoch_s}) for epoch_s in (9.0, 7.0)]
    ideal = epochs[0].model_copy(update={"epoch_s": 6.0})
    assert trained_s(record.model_copy(update={"epochs": epochs, "ideal": ideal})) == 16.0 + 12.0
    assert trained_s(record.model_copy(update={"epochs": epochs, "ideal": None})) == 16.0
