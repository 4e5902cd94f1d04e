"""What a run has learnt: validation, test, best weights, early stopping, and going on from a checkpoint."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_plugins
from running import RUN, start, wait_until
from sklearn.metrics import accuracy_score, f1_score
from typer.testing import CliRunner

from bench.checkpoint import Checkpoint, CheckpointError, NothingLeftError, finish
from bench.cli import app
from bench.contracts.source import SilentProgress
from bench.findings import Findings
from bench.job import EvaluatedStore, Job
from bench.lessons import BatchError, lessons_of
from bench.measure.clock import HostClock
from bench.prepare import prepare
from bench.record import RunRecord, read_record
from bench.sampling import ClassError
from bench.spec import RunSpec, StoreSpec, make_spec
from bench.training import Recipe, Trainer
from bench.trial import run_trial
from bench.validation import Best

CPU = torch.device("cpu")
X, Y = toy_plugins.toy_arrays()


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Samples whose class can be read off them, as a set of the user's own: 180 train, 60 are for val, 60 for test."""
    folder = tmp_path / "own"
    folder.mkdir()
    for split, part in (("train", slice(180)), ("val", slice(180, 240)), ("test", slice(240, 300))):
        np.save(folder / f"x_{split}.npy", X[part])
        np.save(folder / f"y_{split}.npy", Y[part])
    return folder


def job_of(folder: Path, **fields: Any) -> Job:
    """What a measured process is given, with stores below ``folder``."""
    option = fields.pop("option", [])
    checkpoint = fields.pop("checkpoint", None)
    fields = {"backend": "memory", "batch_size": 32, "seed": 3, "deterministic": True, **fields}
    spec = make_spec(RunSpec, option, **fields)
    names = {name: getattr(spec, name) for name in StoreSpec.model_fields}
    store = prepare(StoreSpec(**names), folder, (), SilentProgress())
    others = {
        name: prepare(StoreSpec(**{**names, "split": split}), folder, (), SilentProgress())
        for name, split in spec.evaluated_splits.items()
    }
    known = store.manifest
    return Job(
        spec=spec,
        root=store.root,
        hashes_path=store.hashes_path,
        samples=known.count,
        shape=known.shape,
        dtype=known.dtype,
        classes=known.classes,
        scale=None,
        ceiling=False,
        digest=known.source_digest,
        checkpoint=checkpoint,
        **{
            name: EvaluatedStore(found.manifest.split, found.root, found.hashes_path, found.manifest.count)
            for name, found in others.items()
        },
    )


class Told:
    """The parent's side of a trial, in this process; ``on`` may answer, or end it all."""

    def __init__(self, on: Callable[[str, Any], Any] = lambda topic, value: None) -> None:
        self.facts: list[tuple[str, Any]] = []
        self.found = Findings()
        self._on = on

    def tell(self, topic: str, value: Any = None) -> None:
        self.facts.append((topic, value))
        self._on(topic, value)

    def ask(self, topic: str, value: Any = None) -> Any:
        self.tell(topic, value)
        return json.dumps({"epoch": self.all("epoch")[-1].model_dump(mode="json")}) if topic == "keep" else None

    def all(self, topic: str) -> list[Any]:
        return [value for name, value in self.facts if name == topic]


def small(shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    """A quick network with all that makes a training hard to repeat: running statistics, and something drawn."""
    layers = [torch.nn.Conv2d(shape[0], 6, 3, stride=2), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Dropout(0.25), torch.nn.Linear(54, classes))


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a job to its end in this process, with a small network, and return what it told."""
    monkeypatch.setattr("bench.registry.model_builder", lambda name: small)

    def run(job: Job, on: Callable[[str, Any], Any] = lambda topic, value: None) -> Told:
        told = Told(on)
        run_trial(told, job, SimpleNamespace(value=0))
        assert [failure.message for failure in told.all("failed")] == []
        return told

    yield run
    torch.use_deterministic_algorithms(False)


def batch_losses(told: Told) -> list[float]:
    return [loss for info in told.all("epoch") for loss in info.batch_loss]


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


class Cut(BaseException):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize(
    "more",
    [{"optimizer": "adam", "val": "0.2", "early_stopping": 2}, {"balanced_sampler": True, "optimizer": "rmsprop"}],
    ids=str,
)
def test_a_training_goes_on_exactly_where_it_was(tmp_path: Path, arrays: Path, trial, more: dict, after: int) -> None:
    fields = {"dataset": f"npy:{arrays}", "epochs": 5, "test": "test", **more}
    whole = trial(job_of(tmp_path, **fields))
    path = tmp_path / "c.pt"

    def cut(topic: str, value: Any) -> None:
        if topic == "cache" and value == after:
            raise Cut

    with pytest.raises(Cut):
        trial(job_of(tmp_path, **fields, checkpoint=path), cut)
    torch.manual_seed(99)
    rest = trial(job_of(tmp_path, **fields, checkpoint=path))
    assert [json.loads(text)["epoch"]["epoch"] for text in rest.all("resumed")[0]] == list(range(after))
    first = len(whole.all("epoch"))
    assert [info.epoch for info in rest.all("epoch")] == list(range(after, first))
    assert batch_losses(rest) == [loss for info in whole.all("epoch")[after:] for loss in info.batch_loss]
    (expected,), (found,) = whole.all("test"), rest.all("test")
    assert (found.loss, found.epoch, found.predicted.tolist()) == (
        expected.loss, expected.epoch, expected.predicted.tolist()
    )  # fmt: skip
    assert rest.all("training")[-1].best_epoch == whole.all("training")[-1].best_epoch
    assert rest.all("training")[-1].resumed_before == [after]
    assert [path.name for path in tmp_path.glob("*c.pt*")] == ["c.pt"]
    # Whoever has written the record says that there is nothing left to do.
    finish(path, "record.json")
    done = f"all its {first} epochs are done"
    with pytest.raises(NothingLeftError, match=rf"{done}(, and --early-stopping.* of 5)?, there is nothing left to do"):
        Checkpoint.at(path, job_of(tmp_path, **fields).spec, job_of(tmp_path, **fields).digest)


def test_a_run_that_ended_behind_its_last_epoch_is_concluded(tmp_path: Path, arrays: Path, trial) -> None:
    fields = {"dataset": f"npy:{arrays}", "epochs": 2, "val": "val", "test": "test", "checkpoint": tmp_path / "c.pt"}

    def cut(topic: str, value: Any) -> None:
        if (topic, value) == ("phase", "check"):
            raise Cut

    with pytest.raises(Cut):
        trial(job_of(tmp_path, **fields), cut)
    rest = trial(job_of(tmp_path, **fields))
    assert rest.all("epoch") == []
    assert [len(found.true) for found in rest.all("test")] == [60]
    assert rest.all("checked") == [180]
    assert rest.all("training")[-1].resumed_before == [2]


def stop_before(epoch: int) -> Callable[[str, Any], None]:
    def on(topic: str, value: Any) -> None:
        if topic == "cache" and value == epoch:
            raise Cut

    return on


def test_a_run_that_was_killed_goes_on_with_the_same_losses(
    bench, bench_environment: dict[str, str], tmp_path: Path
) -> None:
    flags = ("--backend", "toy-slow", "--epochs", "3", "--deterministic", "--no-ceiling", "--val", "0.2")
    begun = start(bench_environment, tmp_path, *RUN, *flags, "--checkpoint", "c.pt")
    # What it says has to be read, or it waits at last.
    threading.Thread(target=begun.communicate, daemon=True).start()
    wait_until(lambda: (tmp_path / "c.pt").exists())
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    kept = torch.load(tmp_path / "c.pt", weights_only=True)
    done = len(kept["told"])
    assert 1 <= done < 3
    resumed = bench(*RUN, *flags, "--checkpoint", "c.pt", "--json")
    assert resumed.returncode == 0, resumed.stderr
    record = RunRecord.model_validate_json(resumed.stdout)
    whole = RunRecord.model_validate_json(bench(*RUN, *flags, "--json").stdout)
    assert [info.batch_loss for info in record.epochs] == [info.batch_loss for info in whole.epochs]
    scores = [info.model_dump(exclude={"evaluate_s"}) for info in record.validation]
    assert scores == [info.model_dump(exclude={"evaluate_s"}) for info in whole.validation]
    assert record.training.resumed_before == [done]
    assert [info.epoch for info in record.epochs] == [0, 1, 2]
    assert record.spec_id == whole.spec_id
    again = bench(*RUN, *flags, "--checkpoint", "c.pt", "--json")
    assert again.returncode == 0, again.stderr
    assert "there is nothing left to do" in again.stderr.splitlines()[-1]
    assert RunRecord.model_validate_json(again.stdout) == record
    elsewhere = bench(*RUN, *flags, "--checkpoint", "c.pt", "--results", "other")
    assert elsewhere.returncode == 1
    assert elsewhere.stderr.splitlines()[-1].endswith(".json, is not in other: choose --results.")
    unmade = bench(*RUN, *flags, "--checkpoint", "c.pt", "--predictions", "p.csv")
    assert unmade.returncode == 1
    assert unmade.stderr.splitlines()[-1].endswith("--predictions p.csv cannot be made from it.")


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


def test_a_checkpoint_holds_to_the_weights_that_it_began_with(tmp_path: Path) -> None:
    spec = make_spec(RunSpec, [], backend="memory", dataset="toys", weights="w.pt")
    fresh = Checkpoint(tmp_path / "c.pt", spec, "d")
    fresh.require_weights("a")
    begun = Checkpoint(tmp_path / "c.pt", spec, "d", weights="a", told=["{}"])
    begun.require_weights("a")
    with pytest.raises(CheckpointError, match=r"the training began with other weights than w\.pt holds now"):
        begun.require_weights("b")


def test_a_checkpoint_is_for_its_own_run_alone(tmp_path: Path, arrays: Path, trial) -> None:
    path = tmp_path / "c.pt"
    fields = {"dataset": f"npy:{arrays}", "epochs": 2}
    with pytest.raises(Cut):
        trial(job_of(tmp_path, **fields, checkpoint=path), stop_before(1))
    job = job_of(tmp_path, **fields)
    assert Checkpoint.at(path, job.spec, job.digest).next_epoch == 1
    for changes, text in (
        ({"model": "resnet18"}, "is of another network: cnn, not resnet18. Name another file, or remove that one."),
        ({"dataset": "toys"}, f"is of another data set: npy:{arrays}, not toys. "),
        ({"batch_size": 64, "epochs": 3}, "is of another run, which differs in epochs (2, not 3), batch size (32, not"),
    ):
        other = job.spec.model_copy(update=changes)
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.at(path, other, job.digest)
        assert text in str(caught.value)
    with pytest.raises(CheckpointError, match=r"is of another data set: the samples of npy:.* have changed since"):
        Checkpoint.at(path, job.spec, "another digest")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"text"], ids=str)
def test_what_is_no_checkpoint_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"--checkpoint .*c\.pt is no checkpoint of bench, or a damaged one"):
        Checkpoint.at(path, RunSpec(backend="toy", dataset="toys"), "")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"format": Evil()}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError):
        Checkpoint.at(tmp_path / "c.pt", RunSpec(backend="toy", dataset="toys"), "")
    assert not (tmp_path / "evil").exists()


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
        (("--predictions", "p.csv"), "--predictions goes with --test or --val: nothing else is predicted."),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    flags: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
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
