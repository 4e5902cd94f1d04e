"""Wrong data is found and named: what a store holds when it is built or verified, what a loader does in the run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from told import run
from truth_plugins import BAD, SIDE, damage

from bench.contracts.source import SilentProgress
from bench.specs.spec import StoreSpec, make_spec
from bench.stores.prepare import prepare, verify
from bench.stores.store import StoreError

COUNT = 160
"""Ten batches, so that the check of delivered batches sees all samples."""

WRONG = ["byte", "label", "dropped", "extra"]


def names_the_bad_sample(text: str) -> bool:
    """An extra sample is a copy of the bad one behind it: it is the next place that is wrong."""
    return re.search(rf"\bsample ({BAD}|{BAD + 1})\b", text) is not None


def spec(**options: str) -> StoreSpec:
    pairs = [f"{key}={value}" for key, value in options.items()]
    data = {"dataset": "truth", "dataset_options": {"count": COUNT, "side": SIDE}, "source": "synthetic"}
    return make_spec(StoreSpec, pairs, backend="truth-wrong-store", **data)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_store_is_never_built(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(StoreError) as caught:
        prepare(spec(wrong=wrong), tmp_path, (), SilentProgress())
    assert names_the_bad_sample(str(caught.value))
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize("wrong", WRONG)
def test_what_became_wrong_is_found_by_verifying(tmp_path: Path, wrong: str) -> None:
    damage(prepare(spec(), tmp_path, (), SilentProgress()).root, wrong)
    _, found = verify(spec(), tmp_path, (), SilentProgress())
    assert found.problem is not None
    assert names_the_bad_sample(found.problem), found.problem


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
