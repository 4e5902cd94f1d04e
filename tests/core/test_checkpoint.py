"""Going on from a checkpoint, exactly, and what is no checkpoint of this run."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lessons_here import Cut, batch_losses, job_of
from running import RUN, start, wait_until

from bench.console import make_progress
from bench.files import OutputError
from bench.measure import environment
from bench.measure.page_cache import Brought, PageCache
from bench.records.record import RunRecord
from bench.runs.findings import Findings
from bench.runs.observer import _Observer, observe
from bench.specs.spec import RunSpec, make_spec
from bench.training.checkpoint import Checkpoint, CheckpointError, NothingLeftError, finish


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
    done, job = f"all its {first} epochs are done", job_of(tmp_path, **fields)
    with pytest.raises(NothingLeftError, match=rf"{done}(, and --early-stopping.* of 5)?, there is nothing left to do"):
        Checkpoint.at(path, job.spec, job.digest, evaluated=job.evaluated_digests)


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
    assert "resumed" in {warning.kind for warning in record.warnings}
    assert "resumed" not in {warning.kind for warning in whole.warnings}
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
    # As if it had been killed behind its last epoch: what memory the next process takes is not that of an epoch.
    complete = torch.load(tmp_path / "c.pt", weights_only=True)
    torch.save({**complete, "complete": False}, tmp_path / "c.pt")
    concluded = RunRecord.model_validate_json(bench(*RUN, *flags, "--checkpoint", "c.pt", "--json").stdout)
    assert [info.batch_loss for info in concluded.epochs] == [info.batch_loss for info in whole.epochs]
    assert record.memory.peak_pss_bytes is not None
    assert concluded.memory.model_dump(exclude={"page_cache_bytes"}, exclude_none=True) == {}


def test_what_is_in_the_page_cache_is_limited_too_where_a_run_goes_on(
    tmp_path: Path, arrays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = []

    def bring(pages: PageCache, state: str, *, drop_all: bool = False) -> Brought:
        brought.append(state)
        return Brought(state, None, None, None)

    monkeypatch.setattr(PageCache, "bring", bring)
    job = job_of(tmp_path, dataset=f"npy:{arrays}", epochs=4, memory_limit_bytes=1 << 30)
    observer = _Observer(job, "", Findings(), make_progress(), None)
    for epoch in (2, 3):
        observer.hear("cache", epoch)
    assert brought == ["cold", "as-is", "as-is"]


def test_a_checkpoint_holds_to_the_weights_that_it_began_with(tmp_path: Path) -> None:
    spec = make_spec(RunSpec, [], backend="memory", dataset="toys", weights="w.pt")
    fresh = Checkpoint(tmp_path / "c.pt", spec, "d")
    fresh.require_weights("a")
    begun = Checkpoint(tmp_path / "c.pt", spec, "d", weights="a", told=["{}"])
    begun.require_weights("a")
    with pytest.raises(CheckpointError, match=r"the training began with other weights than w\.pt holds now"):
        begun.require_weights("b")


def test_a_training_does_not_go_on_under_other_conditions(
    tmp_path: Path, arrays: Path, trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fields = tmp_path / "c.pt", {"dataset": f"npy:{arrays}", "epochs": 3}
    with pytest.raises(Cut):
        trial(job_of(tmp_path, **fields, checkpoint=path), stop_before(2))
    kept, threads = path.read_bytes(), torch.get_num_threads()

    def refused(topic: str, value: Any) -> None:
        if topic == "failed":
            raise value.error

    machine = environment.machine()
    with monkeypatch.context() as other:
        other.setattr(torch, "get_num_threads", lambda: 99)
        other.setattr(environment, "machine", lambda: {**machine, "uptime_s": 1.0, "memory_available_bytes": 1})
        with pytest.raises(CheckpointError) as caught:
            trial(job_of(tmp_path, **fields, checkpoint=path), refused)
    assert str(caught.value) == (
        f"--checkpoint {path} was made under other conditions: torch threads ({threads}, not 99). One record "
        "cannot hold epochs of both: go on under those, or train anew with another file."
    )
    assert path.read_bytes() == kept
    assert [info.epoch for info in trial(job_of(tmp_path, **fields, checkpoint=path)).all("epoch")] == [2]


def test_what_is_refused_leaves_no_record_behind(bench, bench_environment: dict[str, str], tmp_path: Path) -> None:
    flags = (*RUN, "--backend", "memory", "--epochs", "2", "--no-ceiling", "--checkpoint", "c.pt")
    assert bench(*flags).returncode == 0
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    elsewhere = {**content["surroundings"], "kernel": "another"}
    torch.save({**content, "complete": False, "surroundings": elsewhere}, tmp_path / "c.pt")
    before = sorted((tmp_path / "results").iterdir())
    refused = bench(*flags)
    assert refused.returncode == 1
    assert "was made under other conditions: kernel (another, not " in refused.stderr.splitlines()[-1]
    assert sorted((tmp_path / "results").iterdir()) == before


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


def test_it_goes_on_with_the_samples_alone_that_it_was_validated_on(tmp_path: Path, arrays: Path, trial) -> None:
    path = tmp_path / "c.pt"
    job = job_of(tmp_path, dataset=f"npy:{arrays}", epochs=2, val="val", checkpoint=path)
    with pytest.raises(Cut):
        trial(job, stop_before(1))
    assert job.evaluated_digests["val"]
    assert Checkpoint.at(path, job.spec, job.digest, evaluated=job.evaluated_digests).next_epoch == 1
    with pytest.raises(CheckpointError, match=r"of another data set: the samples of --val have changed since\. Name"):
        Checkpoint.at(path, job.spec, job.digest, evaluated={"val": "another digest"})


def test_a_disk_that_takes_a_part_is_told_and_leaves_the_checkpoint_before(tmp_path: Path, arrays: Path, trial) -> None:
    path = tmp_path / "c.pt"
    job = job_of(tmp_path, dataset=f"npy:{arrays}", epochs=2, checkpoint=path)
    with pytest.raises(Cut):
        trial(job, stop_before(1))
    # As large as those of real networks, whose tensors torch writes past all buffers.
    torch.save({**torch.load(path, weights_only=True), "more": [torch.zeros(200_000)] * 2}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"Cannot write .*c\.pt: File too large"):
            finish(path, "record.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".c.pt.part-*"))


def test_what_a_process_was_writing_when_it_was_ended_is_removed(tmp_path: Path, arrays: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".c.pt.part-{gone.pid}"
    left.touch()
    job = job_of(tmp_path, dataset=f"npy:{arrays}", epochs=1, checkpoint=tmp_path / "c.pt")
    observe(job, "training", Findings(), make_progress(), 60)
    assert not left.exists()
    assert (tmp_path / "c.pt").exists()


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
