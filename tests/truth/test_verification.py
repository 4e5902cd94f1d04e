"""Wrong data is found and named: what a store holds when it is built or verified, what a loader does in the run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from told import bench, flags, run
from truth_plugins import BAD, damage

COUNT = 160
"""Ten batches, so that the check of delivered batches sees all samples."""

WRONG = ["byte", "label", "dropped", "extra"]


def names_the_bad_sample(text: str) -> bool:
    """An extra sample is a copy of the bad one behind it: it is the next place that is wrong."""
    return re.search(rf"\bsample ({BAD}|{BAD + 1})\b", text) is not None


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_store_is_never_built(bench_environment, tmp_path: Path, wrong: str) -> None:
    arguments = ("--backend", "truth-wrong-store", *flags(COUNT, wrong=wrong), "--data-dir", "data")
    ended = bench(bench_environment, tmp_path, "prepare", *arguments)
    assert ended.returncode == 1
    assert names_the_bad_sample(ended.stderr.splitlines()[-1]), ended.stderr
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.fixture(scope="module")
def built(bench_environment, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    arguments = ("--backend", "truth-wrong-store", *flags(COUNT), "--data-dir", "data")
    ended = bench(bench_environment, folder, "prepare", *arguments)
    assert ended.returncode == 0, ended.stderr
    return folder / "data"


@pytest.mark.parametrize("wrong", WRONG)
def test_what_became_wrong_is_found_by_verifying(bench_environment, tmp_path: Path, built: Path, wrong: str) -> None:
    shutil.copytree(built, tmp_path / "data")
    (rows,) = tmp_path.rglob("rows.bin")
    damage(rows.parent, wrong)
    arguments = ("--backend", "truth-wrong-store", *flags(COUNT), "--data-dir", "data")
    ended = bench(bench_environment, tmp_path, "verify", *arguments)
    assert ended.returncode == 1
    assert names_the_bad_sample(ended.stderr.splitlines()[-1]), ended.stderr


@pytest.mark.parametrize("wrong", WRONG)
def test_what_only_the_loader_does_wrong_fails_the_run(bench_environment, tmp_path: Path, wrong: str) -> None:
    told = run(bench_environment, tmp_path, "truth-wrong", "--epochs", "1", count=COUNT, how=wrong)
    assert told.ended.returncode == 1
    assert told.record.status == "failed"
    assert told.record.error.phase == "check"
    assert told.record.error.type == "DeliveryError"
    said = told.ended.stderr.splitlines()
    assert said[-1].startswith("bench: failed while in phase check: truth-wrong delivered")
    # Behind an extra sample, all others of its batch are where they do not belong.
    allowed = set(told.acts[-1]["batch"]) if wrong == "extra" else {BAD}
    assert {int(number) for number in re.findall(r"\bsample (\d+)\b", said[-1])} <= allowed, said
    assert "sample " in said[-1]
    assert "Traceback" not in told.ended.stderr
