"""Cross-validation over a data set's own folds."""

import json
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.campaigns.folds import chosen_folds, fold_count
from bench.cli import app
from bench.records.record import RunRecord
from bench.stats import deviation


def test_folds_are_those_of_the_data_set() -> None:
    assert (fold_count("esc50"), fold_count("urbansound8k"), fold_count("cifar10")) == (5, 10, None)
    assert fold_count("folder:/anywhere") is None
    assert chosen_folds("all", "esc50") == [1, 2, 3, 4, 5]
    assert chosen_folds("3", "esc50") == [1, 2, 3]


def test_a_deviation_is_that_of_a_sample() -> None:
    assert deviation([2.0, 4.0]) == pytest.approx(2**0.5)
    assert deviation([0.1, 0.4, 0.7]) == pytest.approx(statistics.stdev([0.1, 0.4, 0.7]))
    assert deviation([1.0]) is None


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--dataset", "cifar10", "--folds", "all"), "--folds: cifar10 has no folds. Use --val and --test, or"),
        (("--dataset", "esc50", "--folds", "6"), "--folds 6: must be all, or 2 to 5, as many as esc50 has."),
        (("--dataset", "esc50", "--folds", "1"), "--folds 1: must be all, or 2 to 5"),
        (("--dataset", "esc50", "--folds", "some"), "--folds some: must be all, or 2 to 5"),
        (("--dataset", "esc50", "--folds", "all", "--fold", "2"), "leave --fold out."),
        (("--dataset", "esc50", "--folds", "all", "--model", "none"), "--folds goes with a network: --model none"),
        (("--dataset", "esc50", "--folds", "all", "--split", "test"), "leave --split test out."),
        (("--dataset", "esc50", "--folds", "all", "--repeats", "2"), "--folds runs every fold once"),
        (("--dataset", "esc50", "--folds", "all", "--test", "val"), "leave --test val out."),
        (("--dataset", "esc50", "--folds", "all", "--val", "test"), "--test test is what --val chooses the weights by"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(flags: tuple[str, ...], text: str, tmp_path: Path) -> None:
    arguments = ["run", "--backend", "memmap", "--data-dir", str(tmp_path / "data"), *flags]
    result = CliRunner().invoke(app, arguments, standalone_mode=False)
    assert result.exit_code != 0
    assert text in str(result.exception)
    assert not (tmp_path / "data").exists()


def test_each_fold_is_a_run_of_its_own_and_goes_on_from_its_checkpoint(bench, real_data: Path, tmp_path: Path) -> None:
    flags = (
        *("run", "--backend", "hdf5", "--dataset", "esc50", "--source", f"local:{real_data / 'esc50'}"),
        *("--data-dir", "data", "--folds", "2", "--epochs", "1", "--batch-size", "16", "--no-ceiling"),
        *("--sample-rate", "8000", "--n-mels", "16", "--hop", "1024", "--checkpoint", "c.pt", "--predictions", "p.csv"),
    )
    result = bench(*flags, "--json")
    assert result.returncode == 0, result.stderr
    decoder, text, records = json.JSONDecoder(), result.stdout.strip(), []
    while text:
        content, end = decoder.raw_decode(text)
        records.append(RunRecord.model_validate(content))
        text = text[end:].strip()
    assert [record.fold.fold for record in records] == [1, 2]
    assert {record.fold.folds for record in records} == {5}
    assert len({record.fold.id for record in records}) == 1
    assert [record.spec.dataset_options["fold"] for record in records] == [1, 2]
    assert [record.test.samples for record in records] == [40, 40]
    assert records[0].data.digest != records[1].data.digest
    for name in ("c-fold-1.pt", "c-fold-2.pt", "p-fold-1.csv", "p-fold-2.csv"):
        assert (tmp_path / name).is_file()
    mean = 100 * statistics.fmean(record.test.accuracy for record in records)
    assert "standard deviation" in result.stderr
    # One fold is done again, the other is not: both belong to the cross-validation that was begun.
    (tmp_path / "c-fold-2.pt").unlink()
    again = bench(*flags)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("there is nothing left to do") == 1
    assert again.stdout.count("mean ") == 1
    (line,) = [line.split() for line in again.stdout.splitlines() if line.split()[:1] == ["mean"]]
    assert float(line[line.index("folds") + 1]) == pytest.approx(mean, abs=0.06)
