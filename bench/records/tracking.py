"""Finished runs as runs of MLflow and TensorBoard. Nothing here is called while a run is under way."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from bench.contracts.errors import BenchError
from bench.records.flat import Value, epoch_columns, flatten, text
from bench.records.metrics import METRICS
from bench.records.record import RunRecord

EXPERIMENT = "bench"
"""The experiment of MLflow that runs are put into."""

SUMMARY_METRICS = (
    *("epoch_s", "samples_per_s", "wait_share", "over_ceiling", "peak_pss_mb", "store_mb", "prepare_s"),
    *("val_best_accuracy", "test_loss", "test_accuracy", "test_macro_f1"),
)
"""What is told once per run, by its key in the table of metrics: the median of the epochs that count."""

_PARAMETERS = ("spec_", "option_", "dataset_option_")
_TAGS = ("data_", "library_", "environment_", "cache_", "fold_")
_TAG_NAMES = {"run", "spec_id", "status", "device", "started_at", "warnings", "campaign_id", "campaign_cell"}
_STATUS = {"ok": "FINISHED", "interrupted": "KILLED"}
_AT_ONCE = 100
"""The most parameters or tags that MLflow takes in one request (metrics: ten times as many)."""

_CHECK_S = 60.0


class TrackingError(BenchError):
    """A tracker that cannot be used, or that did not take a run."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A run as trackers see it: what was asked for, what describes it, and numbers by epoch and of the whole run."""

    name: str
    record: RunRecord
    parameters: dict[str, Value]
    tags: dict[str, str]
    epochs: list[dict[str, float]]
    summary: dict[str, float]

    def time_s(self, epoch: int) -> float:
        """Return about when an epoch ended, in seconds since 1970: the start and all epochs up to it."""
        began_s = datetime.fromisoformat(self.record.started_at).timestamp()
        return began_s + sum(one.epoch_s for one in self.record.epochs if one.epoch <= epoch)


def tracked(record: RunRecord, name: str) -> Tracked:
    """Return a run as trackers see it."""
    rows = flatten([(name, record)]).rows
    by_epoch = set(epoch_columns()) - {"epoch"}
    common = {key: value for key, value in rows[0].items() if key not in by_epoch}
    epochs = [
        {"epoch": float(row["epoch"] or 0), **{key: float(row[key] or 0) for key in by_epoch if key in row}}
        for row in rows
        if "epoch" in row
    ]
    for one in epochs:
        one["samples_per_s"] = one["samples"] / one["epoch_s"]
    summaries = {key: METRICS[key].of(record) for key in SUMMARY_METRICS}
    return Tracked(
        name,
        record,
        {key: value for key, value in common.items() if key.startswith(_PARAMETERS)},
        {key: text(value) for key, value in common.items() if key.startswith(_TAGS) or key in _TAG_NAMES},
        epochs,
        {key: summary.median for key, summary in summaries.items() if summary is not None},
    )


class Tracker(ABC):
    """Something that keeps runs. ``target`` is what was written behind its name."""

    remedy: ClassVar[str]
    """What to do where it cannot be used."""

    def __init__(self, target: str) -> None:
        self.target = target

    @abstractmethod
    def open(self) -> None:
        """Import and reach what is needed; raises anything that may go wrong."""

    @abstractmethod
    def log(self, run: Tracked, record_path: Path) -> None:
        """Keep a run; raises anything that may go wrong."""


class MlflowTracker(Tracker):
    """A run of the experiment ``bench``; ``target`` is a tracking URI or a folder, MLflow's default if empty."""

    remedy = (
        "Without MLflow: pip install mlflow-skinny. Databases, its default, need all of mlflow; a folder does "
        "not: mlflow:mlruns"
    )

    def open(self) -> None:
        """See Tracker."""
        self._client().search_experiments(max_results=1)

    def log(self, run: Tracked, record_path: Path) -> None:
        """See Tracker. Epochs are steps; numbers of the whole run are called ``run_…`` and have none."""
        from mlflow.entities import Metric, Param, RunTag

        client = self._client()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment is not None else client.create_experiment(EXPERIMENT)
        start_ms = round(run.time_s(-1) * 1000)
        kept = client.create_run(number, start_time=start_ms, run_name=run.name).info.run_id
        end_ms = start_ms
        metrics = [Metric(f"run_{key}", value, start_ms, 0) for key, value in run.summary.items()]
        for epoch in run.epochs:
            step = int(epoch["epoch"])
            end_ms = round(run.time_s(step) * 1000)
            metrics += [Metric(key, value, end_ms, step) for key, value in epoch.items() if key != "epoch"]
        params = [Param(_mlflow_name(key), text(value)) for key, value in run.parameters.items()]
        tags = [RunTag(_mlflow_name(key), value) for key, value in run.tags.items()]
        if run.record.error is not None:
            tags.append(RunTag("error", run.record.error.message))
        for start in range(0, max(len(params), len(tags)), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            client.log_batch(kept, params=params[part], tags=tags[part])
        for start in range(0, len(metrics), 10 * _AT_ONCE):
            client.log_batch(kept, metrics=metrics[start : start + 10 * _AT_ONCE])
        client.log_artifact(kept, str(record_path))
        client.set_terminated(kept, _STATUS.get(run.record.status, "FAILED"), end_ms)

    def _client(self) -> Any:
        import mlflow
        from mlflow import environment_variables

        uri = self.target
        if uri and ":" not in uri:
            uri = Path(uri).expanduser().absolute().as_uri()
        allow = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)
        if uri.startswith("file:") and allow is not None:
            # MLflow 3 refuses folders unless told that they are wanted: who names one wants it.
            allow.set(True)
        return mlflow.MlflowClient(tracking_uri=uri or None)


class TensorboardTracker(Tracker):
    """A folder of events for each run inside ``target``, with its settings for the HParams tab."""

    remedy = "Without TensorBoard: pip install tensorboard"

    def open(self) -> None:
        """See Tracker."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401  # whether it can be

        Path(self.target).mkdir(parents=True, exist_ok=True)

    def log(self, run: Tracked, record_path: Path) -> None:
        """See Tracker. TensorBoard has no files of a run, so the record goes in as text."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(log_dir=str(Path(self.target) / run.name)) as writer:
            for epoch in run.epochs:
                step = int(epoch["epoch"])
                for key, value in epoch.items():
                    if key != "epoch":
                        writer.add_scalar(f"epoch/{key}", value, step, run.time_s(step))
            for key, said in run.tags.items():
                writer.add_text(f"tag/{key}", said)
            writer.add_text("record", f"```json\n{record_path.read_text()}\n```")
            settings = {key: value for key, value in run.parameters.items() if not _is_nan(value)}
            # A dot: into the folder of the run itself, instead of a run beside it.
            writer.add_hparams(settings, {f"run/{key}": value for key, value in run.summary.items()}, run_name=".")


TRACKERS: dict[str, type[Tracker]] = {"mlflow": MlflowTracker, "tensorboard": TensorboardTracker}


def parse(flag: str) -> Tracker:
    """Return the tracker of ``mlflow``, ``mlflow:URI`` or ``tensorboard:DIR``. Raises TrackingError."""
    name, _, target = flag.partition(":")
    if name not in TRACKERS:
        raise TrackingError(f"--track {flag}: unknown. Write mlflow, mlflow:URI or tensorboard:DIR.")
    if name == "tensorboard" and not target:
        raise TrackingError("--track tensorboard needs a folder: tensorboard:DIR.")
    return TRACKERS[name](target)


def require_usable(flags: Sequence[str]) -> list[Tracker]:
    """Return the trackers of some flags, each tried in a process of its own. Raises TrackingError.

    Tracking libraries start threads and fill memory when they are imported; none of that may be there during a run.
    """
    trackers = [parse(flag) for flag in flags]
    for flag, tracker in zip(flags, trackers, strict=True):
        code = "import sys; from bench.records.tracking import parse; parse(sys.argv[1]).open()"
        try:
            tried = subprocess.run(  # noqa: S603  # this interpreter, and code of ours
                [sys.executable, "-c", code, flag], capture_output=True, text=True, timeout=_CHECK_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TrackingError(f"--track {flag}: no answer within {_CHECK_S:.0f} s. Check the address.") from error
        if tried.returncode:
            lines = tried.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"it ended with {tried.returncode}"
            raise TrackingError(f"--track {flag}: {reason.rstrip('.')}. {tracker.remedy}.")
    return trackers


def log(tracker: Tracker, record: RunRecord, record_path: Path) -> None:
    """Keep a finished run, whose record is in a file already. Raises TrackingError, whatever goes wrong."""
    try:
        tracker.log(tracked(record, record_path.stem), record_path)
    except Exception as error:  # the record is safe, and nothing that a tracker does may end the command
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise TrackingError(f"{record_path.stem} was not tracked: {reason}. Its record is {record_path}.") from error


def _mlflow_name(key: str) -> str:
    return re.sub(r"[^\w\-./: ]", "_", key)


def _is_nan(value: Value) -> bool:
    return isinstance(value, float) and math.isnan(value)
