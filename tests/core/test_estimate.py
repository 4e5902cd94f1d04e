"""What a matrix will take, by records of runs whose time is known."""

from __future__ import annotations

from typing import Any

import pytest
from tabled import run

from bench.campaigns.estimate import CEILING_EPOCHS, START_S, Estimate, estimates
from bench.records.record import RunRecord
from bench.specs.spec import RunSpec

NOTHING = Estimate(None, None)


def cell(**fields: Any) -> RunSpec:
    return run("hdf5", options={"chunk": None}, seed=9, epochs=3, **{"limit": None, **fields}).spec


def estimate(spec: RunSpec, *known: RunRecord) -> Estimate:
    return estimates({"cell": spec}, known)["cell"]


def known(count: int, limit: int | None, **fields: Any) -> RunRecord:
    """A run of ``count`` samples whose epochs take a millisecond a sample."""
    found = run("hdf5", options={"chunk": None}, data={"count": count}, limit=limit, **fields)
    epochs = [e.model_copy(update={"samples": count, "epoch_s": count / 1000}) for e in found.epochs]
    store = found.store.model_copy(update={"size_bytes": 3 * count, "allocated_bytes": None}) if found.store else None
    return found.model_copy(update={"epochs": epochs, "store": store})


def test_a_run_with_a_limit_says_nothing_of_how_many_samples_there_are() -> None:
    limited, whole = known(500, 500), known(50_000, None, batch_size=64)
    assert estimate(cell(), limited) == NOTHING
    found = estimate(cell(), limited, whole)
    assert found.run_s == pytest.approx(START_S + 50 * (3 + CEILING_EPOCHS))
    assert found.store_bytes == 150_000
    assert estimate(cell(limit=1000), limited).run_s == pytest.approx(START_S + 1 * (3 + CEILING_EPOCHS))


def test_samples_of_another_size_say_nothing_of_these() -> None:
    assert (
        estimate(cell(dataset_options={"size": "224"}), known(50_000, None, dataset_options={"size": "64"})) == NOTHING
    )


def test_a_record_with_an_option_that_its_backend_has_no_more_is_no_obstacle() -> None:
    old = known(50_000, None)
    spec = old.spec.model_copy(update={"options": {**old.spec.options, "gone": 1}})
    assert estimate(cell(), old.model_copy(update={"spec": spec})).store_bytes == 150_000
