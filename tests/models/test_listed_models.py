"""`bench list models`: sizes for the samples of a data set, without any of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn
from typer.testing import CliRunner

from bench import listing
from bench.cli import app
from bench.contracts.errors import BenchError
from bench.models.cost import cost_of
from bench.specs.spec import DataSpec, make_spec


def rows(spec: DataSpec | None, folder: Path) -> dict[str, dict[str, str]]:
    table = listing.models(spec, folder, [folder])
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_a_multiply_add_counts_as_two() -> None:
    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, classes))

    cost = cost_of(build, (2, 8, 8), 5)
    assert cost.flops == 2 * (4 * 36 * 2 * 9) + 2 * (144 * 5)
    assert cost.parameters == (4 * 2 * 9 + 4) + (144 * 5 + 5)


def test_recurrent_layers_are_counted() -> None:
    from bench import registry

    # A step of an LSTM multiplies input and state with four gates' weights each; the last step is classified.
    cost = cost_of(registry.model_builder("esc-lstm"), (1, 16, 10), 3)
    assert cost.flops == 10 * 2 * (16 + 64) * 4 * 64 + 2 * 64 * 3


def test_sizes_for_a_data_set_without_its_data(tmp_path: Path) -> None:
    found = rows(make_spec(DataSpec, [], dataset="urbansound8k"), tmp_path)
    assert found["sb-cnn"]["samples"] == "1x128x128, 10 classes"
    assert found["sb-cnn"]["parameters"] == "241,434"
    assert found["sb-cnn-improved"]["parameters"] == "33,634"
    assert found["none"]["parameters"] == ""
    assert found["esc-vgg"]["usable here"] == "no: samples are too small"
    assert found["esc-vgg"]["takes from"] == "36x246"
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_data_set_count(tmp_path: Path) -> None:
    options = {"n_mels": 64, "subset": "music10", "feature": "mel"}
    found = rows(make_spec(DataSpec, [], dataset="fsdkaggle2018", dataset_options=options), tmp_path)
    assert found["convnet4"]["samples"] == "1x64x40, 10 classes"


def test_own_data_is_looked_at(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((6, 3, 9, 9), dtype=np.uint8))
    np.save(tmp_path / "y.npy", np.arange(6) % 2)
    found = rows(make_spec(DataSpec, [], dataset=f"npy:{tmp_path}"), tmp_path / "cache")
    assert found["cnn"]["samples"] == "3x9x9, 2 classes"
    with pytest.raises(BenchError, match="does not exist"):
        rows(make_spec(DataSpec, [], dataset=f"npy:{tmp_path}/none"), tmp_path / "cache")


def test_without_a_data_set_each_is_shown_for_its_own(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["list", "models", "--data-dir", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for text in ("resnet18", "11,173,962", "1x64x862, 50 classes", "a multiply-add counts as 2", "none"):
        assert text in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["backends", "--dataset", "cifar10"], "--dataset goes with `bench list models` alone."),
        (["models", "resnet18"], "bench list models lists all of them: leave resnet18 out."),
        (["models", "--n-mels", "3"], "Options of a data set go with `bench list models --dataset NAME`."),
        (["models", "--dataset", "cifar11"], "Unknown data set 'cifar11'. Did you mean cifar10?"),
    ],
)
def test_flags_that_do_not_go_together(arguments: list[str], text: str) -> None:
    error = CliRunner().invoke(app, ["list", *arguments]).exception
    assert isinstance(error, BenchError)
    assert text in str(error)
