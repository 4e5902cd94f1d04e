"""Runs in MLflow and TensorBoard, read back by their own packages."""

import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.commands import tracked as command
from bench.records import tracking
from bench.records.record import ErrorInfo, RunRecord, read_record
from bench.records.tracking import EXPERIMENT, Tracker, TrackingError, parse, require_usable
from bench.runs import runner

RECORDS = Path(__file__).parent / "records"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunRecord, Path]:
    """A finished run with the parts that not every run has, and the file of its record."""
    # MLflow would report its use over the network, and remember in the environment that folders are wanted.
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    monkeypatch.chdir(tmp_path)
    record = read_record(RECORDS / "complete-2.json").model_copy(update={"status": "ok", "error": None})
    path = tmp_path / "20261121-run.json"
    path.write_text(record.to_json())
    return record, path


def test_mlflow_has_parameters_epochs_tags_and_the_record(run, tmp_path: Path) -> None:
    import mlflow

    record, path = run
    tracking.log(parse("mlflow:runs"), record, path)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "runs").as_uri())
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (kept,) = client.search_runs([experiment.experiment_id])
    assert (kept.info.run_name, kept.info.status) == ("20261121-run", "FINISHED")
    assert kept.data.params["spec_backend"] == "hdf5"
    assert kept.data.params["spec_batch_size"] == "128"
    assert kept.data.params["option_layout"] == record.store.options["layout"]
    assert kept.data.tags["library_torch"] == record.environment["libraries"]["torch"]
    assert kept.data.tags["environment_git_revision"] == "0" * 40
    assert kept.data.tags["environment_cpu"] == record.environment["cpu"]
    for name in ("epoch_s", "wait_s", "loss", "accuracy", "io_read_calls"):
        history = client.get_metric_history(kept.info.run_id, name)
        expected = [getattr(e, name) if hasattr(e, name) else e.io.read_calls for e in record.epochs]
        assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == list(enumerate(expected)), name
    rates = [e.samples / e.epoch_s for e in record.epochs]
    assert [m.value for m in client.get_metric_history(kept.info.run_id, "samples_per_s")] == pytest.approx(rates)
    assert [m.value for m in client.get_metric_history(kept.info.run_id, "warmup")] == [1, 0]
    assert kept.data.metrics["run_epoch_s"] == record.epochs[-1].epoch_s, "the warm-up does not count"
    assert kept.data.metrics["run_peak_pss_mb"] == 800
    (artifact,) = client.list_artifacts(kept.info.run_id)
    assert artifact.path == path.name
    saved = Path(client.download_artifacts(kept.info.run_id, path.name))
    assert read_record(saved) == record
    assert kept.info.start_time == pytest.approx(1000 * tracking.tracked(record, "x").time_s(-1), abs=1)


def test_a_failed_run_is_one_in_mlflow_too(run, tmp_path: Path) -> None:
    import mlflow

    record, path = run
    error = ErrorInfo(phase="train", type="X", message="It broke.")
    tracking.log(parse("mlflow:runs"), record.model_copy(update={"status": "failed", "error": error}), path)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "runs").as_uri())
    (kept,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert (kept.info.status, kept.data.tags["error"]) == ("FAILED", "It broke.")


def test_tensorboard_has_curves_settings_and_the_record(run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams import metadata

    record, path = run
    tracking.log(parse("tensorboard:events"), record, path)
    events = EventMultiplexer().AddRunsFromDirectory("events").Reload()
    assert list(events.Runs()) == [path.stem], "no second run beside it for its settings"
    for name in ("epoch_s", "wait_s", "loss"):
        values = [(e.step, e.value) for e in events.Scalars(path.stem, f"epoch/{name}")]
        assert values == [(n, pytest.approx(getattr(e, name), rel=1e-6)) for n, e in enumerate(record.epochs)]
    (median,) = events.Scalars(path.stem, "run/epoch_s")
    assert median.value == pytest.approx(record.epochs[-1].epoch_s, rel=1e-6)
    accumulator: EventAccumulator = events.GetAccumulator(path.stem)
    (kept,) = accumulator.Tensors("record/text_summary")
    text = kept.tensor_proto.string_val[0].decode()
    assert json.loads(text.removeprefix("```json\n").removesuffix("\n```")) == json.loads(record.to_json())
    plugin = accumulator.PluginTagToContent("hparams")
    started = metadata.parse_session_start_info_plugin_data(plugin[metadata.SESSION_START_INFO_TAG])
    assert started.hparams["spec_backend"].string_value == "hdf5"
    assert started.hparams["spec_batch_size"].number_value == 128


def test_a_loss_that_became_nan_is_kept(run, tmp_path: Path) -> None:
    import mlflow

    record, path = run
    epochs = [e.model_copy(update={"loss": float("nan")}) for e in record.epochs]
    lost = record.model_copy(update={"epochs": epochs})
    for flag in ("mlflow:runs", "tensorboard:events"):
        tracking.log(parse(flag), lost, path)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "runs").as_uri())
    (kept,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert kept.data.metrics["loss"] != kept.data.metrics["loss"]


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("wandb", "--track wandb: unknown. Write mlflow, mlflow:URI or tensorboard:DIR."),
        ("tensorboard", "--track tensorboard needs a folder: tensorboard:DIR."),
        ("tensorboard:", "needs a folder"),
    ],
)
def test_what_is_no_tracker_is_refused(flag: str, text: str) -> None:
    with pytest.raises(TrackingError, match=re.escape(text)):
        parse(flag)


def test_trackers_are_tried_in_another_process_before_anything_runs(run, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match=r"--track tensorboard:file/x: .*pip install tensorboard") as caught:
        require_usable([f"tensorboard:{'file/x'}"])
    assert "\n" not in str(caught.value)
    (tmp_path / "mlflow.py").write_text("raise ImportError('it is broken here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "run", lambda *arguments: pytest.fail("nothing should run"))
    flags = ("run", "--backend", "memmap", "--dataset", "toys", "--source", "synthetic", "--track", "mlflow:runs")
    result = CliRunner().invoke(app, flags, standalone_mode=False)
    assert isinstance(result.exception, TrackingError)
    assert "--track mlflow:runs: ImportError: it is broken here. Without MLflow: pip install" in str(result.exception)
    assert not Path("results").exists()


class Broken(Tracker):
    remedy = "Repair it"

    def open(self) -> None:
        """There is nothing to open."""

    def log(self, run, record_path) -> None:
        raise ValueError("the server\nis gone")


def test_a_tracker_that_fails_is_a_line_and_the_others_go_on(run, capsys) -> None:
    record, path = run
    command.log([Broken("x"), parse("tensorboard:events")], [(record, path), (record, path)])
    said = capsys.readouterr().err.splitlines()
    assert said == [f"bench: 20261121-run was not tracked: ValueError: the server is gone. Its record is {path}."] * 2
    assert list(Path("events").iterdir())


@pytest.mark.parametrize("failed", [False, True])
def test_runs_are_logged_after_the_last_one_even_if_that_failed(run, monkeypatch, failed: bool) -> None:
    record, _ = run
    order: list[str] = []

    def one(spec, places, progress, attempt) -> runner.Outcome:
        order.append("run")
        error = ErrorInfo(phase="train", type="X", message="It broke.") if failed and attempt.repeat == 1 else None
        status = "failed" if error else "ok"
        return runner.Outcome(record.model_copy(update={"status": status, "error": error}), None)

    monkeypatch.setattr(runner, "run", one)
    monkeypatch.setattr(tracking, "require_usable", lambda flags: [parse(flag) for flag in flags])
    monkeypatch.setattr(
        tracking, "log", lambda tracker, record, path: order.append(f"log {record.status} {path.exists()}")
    )
    flags = ("run", "--backend", "memmap", "--dataset", "toys", "--source", "synthetic", "--repeats", "2")
    result = CliRunner().invoke(app, [*flags, "--track", "tensorboard:events"])
    assert order == ["run", "run", "log ok True", f"log {'failed' if failed else 'ok'} True"]
    assert (result.exit_code != 0) is failed


def test_without_the_flag_no_tracker_is_imported(bench, tmp_path: Path) -> None:
    flags = ("run", "--backend", "memmap", "--dataset", "toys", "--source", "synthetic", "--model", "none")
    poison = tmp_path / "poison"
    poison.mkdir()
    for name in ("mlflow", "tensorboard"):
        (poison / f"{name}.py").write_text("raise SystemExit('imported')")
    path = os.pathsep.join([str(poison), str(Path(__file__).parent.parent / "plugins")])
    result = bench(*flags, "--batch-size", "32", "--data-dir", "data", PYTHONPATH=path)
    assert result.returncode == 0, result.stderr
