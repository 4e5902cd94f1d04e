"""Presets of studies: what they say is what `bench run` and `bench matrix` take, and it is what they run."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import registry
from bench.campaigns import studies
from bench.campaigns.studies import STUDIES, Part, Study
from bench.cli import app
from bench.contracts.errors import BenchError
from bench.records.record import ErrorInfo, read_record
from bench.runs import runner
from bench.runs.runner import Outcome
from bench.specs.spec import RunSpec

SB_CNN = "--optimizer sgd --lr 0.01 --momentum 0 --epochs 50"
TEMPLATE = read_record(Path(__file__).parent / "records" / "version-2.json")


def printed(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["study", *arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["esc50", "--model", "esc-crnn-attention"],
            [
                "bench run --dataset esc50 --backend memmap --model esc-crnn-attention --optimizer adam --lr 0.0003 "
                "--weight-decay 0.00001 --batch-size 128 --epochs 10 --balanced-sampler --val 0.1 --test test"
            ],
        ),
        (
            ["gtzan", "--model", "genre-cnn", "--backend", "zarr", "--backend", "hdf5"],
            [
                f"bench run --dataset gtzan --backend {backend} --model genre-cnn --optimizer adam --lr 0.0001 "
                "--batch-size 64 --epochs 500 --val val --test test"
                for backend in ("zarr", "hdf5")
            ],
        ),
        (
            ["urbansound8k"],
            [
                f"bench run --dataset urbansound8k --backend memmap --model {start} --batch-size 100 --folds all "
                "--val val --test test --early-stopping 15"
                for start in (
                    f"sb-cnn {SB_CNN}",
                    "sb-cnn-improved --optimizer adam --epochs 100",
                    f"sb-cnn --augment-copies stretch+pitch+compress+noise {SB_CNN}",
                )
            ],
        ),
        (
            ["fsdkaggle2018", "--model", "convnet4", "--epochs", "2", "--limit", "300", "--source", "local:a b"],
            [
                f"bench run --dataset fsdkaggle2018 --backend memmap --model convnet4 {subset}--optimizer radam "
                f"--class-weights --val val --test test --batch-size {batch} --epochs 2 "
                "--limit 300 --source 'local:a b'"
                for subset, batch in (("--subset music10 ", 32), ("--subset environment10 ", 32), ("", 256))
            ],
        ),
        (
            ["formats", "--model", "inception", "--data-dir", "d", "--results", "r"],
            [
                "bench matrix --dataset masks --backend filesystem --backend memmap --backend cupy --backend hdf5 "
                "--backend zarr --model inception --batch-size 16 --test test --data-dir d --results r"
            ],
        ),
    ],
    ids=lambda value: value[0] if value[0] in STUDIES else "",
)
def test_a_study_is_the_commands_that_it_prints(arguments: list[str], lines: list[str]) -> None:
    assert printed(*arguments) == lines


def test_every_network_and_data_set_is_known_and_can_take_the_samples() -> None:
    assert list(STUDIES) == sorted(STUDIES)
    named = CliRunner().invoke(app, ["study", "--help"]).stdout
    for name, study in STUDIES.items():
        assert name in named
        assert len(printed(name)) >= len(study.parts)
        for part in study.parts:
            source = registry.dataset_class(part.dataset)()
            shape = source.imitate().schema("train").shape
            assert all(registry.MODELS[model].takes(shape) for model in part.models)


class ReachedError(Exception):
    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec


@pytest.mark.parametrize("name", STUDIES)
def test_what_is_printed_can_be_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def reach(spec: RunSpec, *_: Any) -> None:
        raise ReachedError(spec)

    monkeypatch.setattr(runner, "run", reach)
    places = ["--results", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    for line in printed(name):
        words = shlex.split(line)[1:]
        if words[0] == "matrix":
            result = CliRunner().invoke(app, [*words, *places, "--dry-run"])
            assert result.exit_code == 0, result.exception
            continue
        error = CliRunner().invoke(app, [*words, *places]).exception
        assert isinstance(error, ReachedError), f"{line}: {error}"
        given = dict(pairwise(words))
        for field in ("dataset", "model", "optimizer", "val", "test"):
            assert getattr(error.spec, field) == given[f"--{field}"]
        assert (error.spec.epochs, error.spec.batch_size) == (int(given["--epochs"]), int(given["--batch-size"]))


@pytest.fixture
def toy_study(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part("toys", ("cnn", "resnet18"), (("--epochs", "2"), ("--batch-size", "64"), ("--amp", None)))
    monkeypatch.setitem(studies.STUDIES, "toys", Study("Toys", (part,), ("A note.",)))


@pytest.mark.usefixtures("toy_study")
@pytest.mark.parametrize(
    ("statuses", "exit_code"), [(("ok", "ok"), None), (("failed", "ok"), 2), (("interrupted",), 130)], ids=str
)
def test_a_study_runs_all_its_commands(
    statuses: tuple[str, ...], exit_code: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[RunSpec] = []

    def run(spec: RunSpec, *_: Any) -> Outcome:
        status = statuses[len(ran)]
        ran.append(spec)
        error = None if status == "ok" else ErrorInfo(phase="train", type="E", message="went wrong")
        record = TEMPLATE.model_copy(update={"spec": spec, "status": status, "error": error})
        return Outcome(record, None)

    monkeypatch.setattr(runner, "run", run)
    result = CliRunner().invoke(app, ["study", "toys", "--epochs", "1", "--results", str(tmp_path)])
    assert [(spec.model, spec.epochs, spec.batch_size, spec.amp, spec.backend) for spec in ran] == [
        (model, 1, 64, True, "memmap") for model in ("cnn", "resnet18")[: len(statuses)]
    ]
    assert len(list(tmp_path.iterdir())) == len(statuses)
    assert "A note." in result.stderr
    assert "bench run --dataset toys --backend memmap --model cnn --batch-size 64 --amp --epochs 1" in result.stderr
    if exit_code is None:
        assert result.exit_code == 0, result.exception
    else:
        assert isinstance(result.exception, BenchError)
        assert result.exception.exit_code == exit_code


@pytest.mark.usefixtures("toy_study")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["esc5"], "Unknown study 'esc5'. Did you mean esc50?"),
        (["esc50", "--model", "sb-cnn"], "Unknown network of this study 'sb-cnn'. Known: esc-baseline, "),
        (["toys", "--backend", "zar"], "Unknown backend 'zar'. Did you mean zarr?"),
        (["toys", "--limit", "9"], "--batch-size 64 is larger than the data: --limit is 9."),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], text: str) -> None:
    error = CliRunner().invoke(app, ["study", *arguments]).exception
    assert isinstance(error, BenchError)
    assert text in str(error)
