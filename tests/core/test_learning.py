"""What a run has learnt: validation, test, best weights, and early stopping."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_plugins
from lessons_here import batch_losses, job_of, small
from running import RUN
from sklearn.metrics import accuracy_score, f1_score
from typer.testing import CliRunner

from bench.cli import app
from bench.measure.clock import HostClock
from bench.records.record import RunRecord, read_record
from bench.specs.sampling import ClassError
from bench.specs.spec import RunSpec
from bench.training.job import Job
from bench.training.lessons import BatchError, lessons_of
from bench.training.trainer import Recipe, Trainer
from bench.training.validation import Best

CPU = torch.device("cpu")
X, Y = toy_plugins.toy_arrays()


def test_a_record_has_every_validation_and_the_test_of_the_best_weights(
    bench, arrays: Path, tmp_path: Path, bench_environment: dict[str, str]
) -> None:
    flags = ("--val", "0.2", "--test", "test", "--predictions", "p.csv", "--class-weights", "--cache", "cold")
    result = bench(
        *("run", "--backend", "zarr", "--dataset", f"npy:{arrays}", "--data-dir", "data", "--batch-size", "32"),
        *("--epochs", "4", "--optimizer", "adam", "--workers", "1", "--json", *flags),
    )
    assert result.returncode == 0, result.stderr
    record = RunRecord.model_validate_json(result.stdout)
    assert [info.epoch for info in record.validation] == [0, 1, 2, 3]
    assert {(info.split, info.samples) for info in record.validation} == {("held out", 36)}
    assert {info.samples for info in record.epochs} == {record.training.train_samples} == {144}
    accuracies = [info.accuracy for info in record.validation]
    assert record.training.best_epoch == accuracies.index(max(accuracies))
    assert (record.test.split, record.test.samples, record.test.epoch) == ("test", 60, record.training.best_epoch)
    assert record.test.accuracy > 0.6, "chance is a third"
    assert record.validation[0].confusion is None
    assert np.sum(record.test.confusion) == 60
    assert len(record.training.class_weights) == 3
    assert not record.training.stopped_early
    assert record.data.count == 180
    assert record.data.checked_samples == 144
    assert (record.order.kind, record.spec.lr, record.spec.momentum) == ("full", 0.001, None)
    with (tmp_path / "p.csv").open() as file:
        rows = [[int(value) for value in row.values()] for row in csv.DictReader(file)]
    index, true, predicted = np.array(rows).T
    assert index.tolist() == list(range(60))
    assert true.tolist() == Y[240:].tolist()
    assert record.test.accuracy == accuracy_score(true, predicted)
    assert record.test.macro_f1 == pytest.approx(f1_score(true, predicted, average="macro"))
    for line in ("held out after epoch 0: loss ", "test after epoch "):
        assert line in result.stderr
    listed = bench("table", "--each").stdout
    assert "144 of 180 samples" in listed
    assert "adam, val 0.2, test test, class weights" in listed


def test_validation_changes_nothing_of_training(tmp_path: Path, arrays: Path, trial) -> None:
    fields = {"dataset": f"npy:{arrays}", "epochs": 3}
    plain, validated = (trial(job_of(tmp_path, **fields, **more)) for more in ({}, {"val": "val", "test": "test"}))
    assert batch_losses(validated) == batch_losses(plain)
    assert [found.indices.tolist() for found in validated.all("validation")] == [list(range(60))] * 3
    phases = [value for name, value in validated.facts if name == "phase"]
    assert phases == ["start", *["cache", "open", "train", "evaluate"], *["cache", "train", "evaluate"] * 2,
                      *["evaluate", "check", "order"]]  # fmt: skip
    assert [value for name, value in validated.facts if name == "pause"] == [True, False] * 3


def test_predictions_are_those_of_the_weights_at_that_time(tmp_path: Path, arrays: Path, trial) -> None:
    """A plain loop, with the whole split as one batch, comes to the same classes and nearly the same loss."""
    told = trial(job_of(tmp_path, dataset=f"npy:{arrays}", epochs=2, val="val", test="test", shuffle="none"))
    torch.manual_seed(3)
    model = small((3, 8, 8), 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = (torch.from_numpy(array) for array in (X, Y))
    accuracies, states = [], []
    for epoch, found in enumerate(told.all("validation")):
        model.train()
        for start_at in range(0, 180, 32):
            here = slice(start_at, min(start_at + 32, 180))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model((x[here].float() - 127.5) / 127.5), y[here]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            scores = model((x[180:240].float() - 127.5) / 127.5)
        assert found.predicted.tolist() == scores.argmax(1).tolist()
        assert found.loss == pytest.approx(torch.nn.functional.cross_entropy(scores, y[180:240]).item(), rel=1e-4)
        assert found.epoch == epoch
        accuracies.append(float((scores.argmax(1) == y[180:240]).float().mean()))
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    best = accuracies.index(max(accuracies))
    model.load_state_dict(states[best])
    with torch.no_grad():
        expected = model((x[240:].float() - 127.5) / 127.5).argmax(1).tolist()
    (tested,) = told.all("test")
    assert tested.predicted.tolist() == expected
    assert tested.epoch == told.all("training")[-1].best_epoch == best


@pytest.mark.parametrize(
    ("accuracies", "patience", "stops_after", "best"),
    [
        ([0.5, 0.6, 0.6, 0.5], 2, 3, 1),
        ([0.5, 0.4, 0.5, 0.9], 3, None, 3),
        ([0.5, 0.4, 0.3], 2, 2, 0),
        ([0.0, 0.0], 1, 1, 0),
        ([0.5, 0.4, 0.3], None, None, 0),
    ],
)
def test_training_stops_after_so_many_epochs_without_gain(
    accuracies: list[float], patience: int | None, stops_after: int | None, best: int
) -> None:
    network, kept = torch.nn.Linear(1, 1), Best(patience)
    stopped = None
    for epoch, accuracy in enumerate(accuracies):
        torch.nn.init.constant_(network.weight, epoch)
        kept.consider(epoch, accuracy, network)
        if kept.exhausted and stopped is None:
            stopped = epoch
    assert (stopped, kept.epoch) == (stops_after, best)
    kept.restore(network)
    assert network.weight.item() == best


def test_early_stopping_ends_a_run(tmp_path: Path, arrays: Path, trial) -> None:
    told = trial(
        job_of(tmp_path, dataset=f"npy:{arrays}", epochs=15, optimizer="adam", lr=0.05, val="val", early_stopping=2)
    )
    accuracies = [float(np.mean(found.true == found.predicted)) for found in told.all("validation")]
    best = accuracies.index(max(accuracies))
    assert len(told.all("epoch")) == len(accuracies) == best + 3 < 15
    training = told.all("training")[-1]
    assert (training.best_epoch, training.stopped_early) == (best, True)


def test_class_weights_weigh_the_loss(tmp_path: Path, arrays: Path, trial) -> None:
    told = trial(job_of(tmp_path, dataset=f"npy:{arrays}", epochs=1, class_weights=True, shuffle="none"))
    counts = np.bincount(Y[:180], minlength=3)
    weights = 180 / (3 * counts)
    assert told.all("training")[0].class_weights == pytest.approx(weights.tolist())
    torch.manual_seed(3)
    model = small((3, 8, 8), 3)
    scores = model.train()((torch.from_numpy(X[:32]).float() - 127.5) / 127.5).detach().numpy().astype(np.float64)
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(32), Y[:32]]
    expected = np.average(losses, weights=weights[Y[:32]])
    assert told.all("epoch")[0].batch_loss[0] == pytest.approx(expected, rel=1e-4)


def test_what_is_held_out_is_not_left_for_a_batch(tmp_path: Path, arrays: Path) -> None:
    with pytest.raises(BatchError, match=r"--batch-size 178 is larger than what is trained on: 177 samples, as 3 are"):
        lessons_of(job_of(tmp_path, dataset=f"npy:{arrays}", val="0.01", batch_size=178), lambda samples: None)


def test_what_stands_in_no_order_has_no_measure_of_one(tmp_path: Path, arrays: Path, trial) -> None:
    told = trial(job_of(tmp_path, dataset=f"npy:{arrays}", epochs=1, balanced_sampler=True, val="0.25"))
    (order,) = told.all("order")
    assert (order.kind, order.mean_displacement, order.class_mixing) == ("balanced", None, None)
    assert told.all("epoch")[0].samples == 135
    assert told.all("checked") == [135]
    shuffled = trial(job_of(tmp_path, dataset=f"npy:{arrays}", epochs=1, val="0.25", seed=4))
    assert 0.7 < shuffled.all("order")[0].mean_displacement < 1.3


def test_classes_on_one_side_alone_are_told(tmp_path: Path, arrays: Path, trial) -> None:
    np.save(arrays / "y_test.npy", np.where(Y[240:] == 2, 1, Y[240:]))
    told = trial(job_of(tmp_path, dataset=f"npy:{arrays}", epochs=1, test="test"))
    assert told.all("note") == [f"npy:{arrays} test has no sample of class '2': averages over classes leave it out."]
    np.save(arrays / "y_test.npy", Y[240:] + 1)
    with pytest.raises(ClassError, match="test has samples of class '3', of which there is none to train on"):
        lessons_of(job_of(tmp_path, dataset=f"npy:{arrays}", epochs=1, test="test"), lambda samples: None)


STORES = [("memory",), ("memmap", "reader=naive"), ("hdf5",), ("zarr", "chunk=4", "codec=zstd", "reader=mapped")]
WAYS: list[dict[str, Any]] = [{}, {"workers": 2, "worker_kind": "thread"}, {"workers": 2}]


@pytest.mark.parametrize("more", [{"val": "0.2"}, {"val": "0.2", "balanced_sampler": True}], ids=str)
def test_every_backend_learns_the_same(tmp_path: Path, arrays: Path, more: dict, deterministic: None) -> None:
    found = {}
    for backend, *option in STORES:
        for way in WAYS if backend in {"memory", "memmap"} else WAYS[:1]:
            fields = {"dataset": f"npy:{arrays}", "backend": backend, "option": option, **more, **way}
            job = job_of(tmp_path, **fields)
            found[(backend, *option, *way.values())] = learnt(job)
    reference = found[("memory",)]
    assert len(reference[0]) == 2 * 5
    assert {name: value for name, value in found.items() if value != reference} == {}


@pytest.fixture
def deterministic() -> Any:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def learnt(job: Job) -> tuple[list[float], list[int], float]:
    """Losses of two epochs, and what is predicted then."""
    from bench import loading

    lessons = lessons_of(job, lambda samples: None)
    torch.manual_seed(job.spec.seed)
    model = small(job.shape, len(job.classes))
    trainer = Trainer(model, CPU, amp=False, recipe=Recipe.of(job.spec, lessons.class_weights))
    loader = loading.make_loader(job.spec.open_backend().open(job.root), job.spec, CPU, lessons.order)
    try:
        results = [trainer.epoch(loader.epoch(e), HostClock(), lambda samples: None) for e in range(2)]
    finally:
        loader.close()
    losses = [loss for result in results for loss in result.batch_loss]
    assert lessons.val is not None
    found = lessons.val.predictions(trainer, CPU, 1, lambda samples: None)
    return losses, found.predicted.tolist(), found.loss


def test_a_result_that_cannot_be_shown_is_recorded_all_the_same(
    bench_environment: dict[str, str], tmp_path: Path
) -> None:
    command = [Path(sys.executable).with_name("bench"), *RUN, "--epochs", "1", "--no-ceiling", "--checkpoint", "c.pt"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--backend", "memmap", "--json"], cwd=tmp_path, env=bench_environment, stdout=full, check=False
        )
    assert done.returncode == 1
    (path,) = (tmp_path / "results").glob("*.json")
    assert read_record(path).status == "ok"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ("--dataset", "esc50", "--val", "0.1", "--augment-copies", "noise"),
            "--val 0.1 does not go with --augment-copies noise: what is held out would have copies of itself",
        ),
        (("--checkpoint", ""), "--checkpoint names no file. Give it a name."),
        (
            ("--val", "0.1", "--checkpoint", "a.pt", "--predictions", "./a.pt"),
            "--checkpoint and --predictions are the same file, a.pt. Name another for one of them.",
        ),
        (
            ("--val", "0.1", "--predictions", "w.pt", "--weights", "w.pt"),
            "--predictions and --weights are the same file, w.pt. Name another for one of them.",
        ),
        (("--val", "2"), "--val '2': must be a split (train, val, test) or a share between 0 and 1, like 0.1."),
        (("--val", "some"), "--val 'some': must be a split"),
        (("--val", "val"), "cifar10 has no split 'val'. It has: train, test."),
        (("--val", "train"), "--val train: that is what is trained on."),
        (("--test", "test", "--split", "test"), "--test test: that is what is trained on."),
        (("--test", "0.1"), "--test '0.1': input should be 'train', 'val' or 'test'."),
        (("--val", "test", "--test", "test"), "--test test is what --val chooses the weights by: validate on another"),
        (("--early-stopping", "3"), "--early-stopping goes with --val, whose accuracy it watches."),
        (("--val", "0.1", "--early-stopping", "0"), "--early-stopping '0': input should be greater than or equal to 1"),
        (("--balanced-sampler", "--shuffle", "none"), "--balanced-sampler is an order of its own: leave --shuffle out"),
        (("--model", "none", "--val", "0.1"), "--val goes with a network: --model none trains nothing."),
        (("--model", "none", "--class-weights"), "--class-weights goes with a network"),
        (("--model", "none", "--checkpoint", "c.pt"), "--checkpoint goes with a network"),
        (("--checkpoint", "c.pt", "--repeats", "2"), "--checkpoint is the file of one training: leave --repeats out."),
        (("--checkpoint", "no/c.pt"), "--checkpoint no/c.pt: there is no folder no."),
        (("--test", "test", "--predictions", "paper.tex"), "--predictions paper.tex is there already"),
        (("--predictions", "p.csv"), "--predictions goes with --test or --val: nothing else is predicted."),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    flags: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paper.tex").write_text("years of work")
    arguments = ["run", "--backend", "memmap", "--dataset", "cifar10", "--data-dir", str(tmp_path / "data"), *flags]
    result = CliRunner().invoke(app, arguments, standalone_mode=False)
    assert result.exit_code != 0
    assert text in str(result.exception)
    assert not (tmp_path / "data").exists()


def test_a_batch_has_to_fit_into_what_is_trained_on(bench) -> None:
    result = bench(*RUN, "--backend", "toy", "--val", "0.5", "--batch-size", "200")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "bench: --batch-size 200 is larger than the data: toys train has 300 samples, of which 150 are held out."
    )


def test_what_is_evaluated_leaves_other_runs_their_identity() -> None:
    plain = RunSpec(backend="hdf5", dataset="toys", options={"reader": "library"})
    # Written down before there was anything to evaluate.
    assert plain.spec_id == "393cbea41327574b"
    chosen = [
        *({"val": "0.1"}, {"val": "0.2"}, {"val": "val"}, {"test": "test"}, {"class_weights": True}),
        *({"val": "0.1", "early_stopping": 2}, {"balanced_sampler": True}),
    ]
    assert len({plain.spec_id, *(RunSpec(**{**plain.model_dump(), **fields}).spec_id for fields in chosen)}) == 8
    assert RunSpec(**{**plain.model_dump(), "val": 0.10}).val == RunSpec(**{**plain.model_dump(), "val": ".1"}).val
