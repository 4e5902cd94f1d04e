"""Records for the page: runs of known times, made in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.records.learned import FoldInfo
from bench.records.record import CampaignInfo, RunRecord, read_record
from bench.training.evaluation import evaluate

TEMPLATE = read_record(Path(__file__).parent.parent / "core" / "records" / "version-2.json")
BLOCKS = 8
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1><b>bold</b>&amp;"


def run(
    backend: str,
    block: int,
    epoch_s: float,
    *,
    control: bool = False,
    campaign: bool = True,
    spec: dict[str, Any] | None = None,
    prepare_s: float = 1.0,
    store_bytes: int = 1_000_000,
    ideal_s: float | None = 1.0,
    wait: float = 0.5,
    **changes: Any,
) -> RunRecord:
    """A run of a warm-up, which would spoil every statistic, and an epoch of so many seconds, a share of it waiting."""
    fields = {"backend": backend, "options": {"reader": "library"}, **(spec or {})}
    own = TEMPLATE.spec.model_copy(update=fields)
    epochs = [
        TEMPLATE.epochs[-1].model_copy(
            update={
                "epoch": number,
                "warmup": number == 0,
                "epoch_s": seconds,
                "wait_s": seconds * wait,
                "copy_s": seconds / 8,
                "compute_s": seconds * (7 / 8 - wait),
            }
        )
        for number, seconds in enumerate([1000.0, epoch_s])
    ]
    store = TEMPLATE.store.model_copy(
        update={"backend": backend, "options": own.options, "prepare_s": prepare_s, "size_bytes": store_bytes}
    )
    place = CampaignInfo(id="c1", seed=3, blocks=BLOCKS, block=block, position=0, cell=own.backend, control=control)
    values = {
        "spec": own,
        "spec_id": own.spec_id,
        "status": "ok",
        "error": None,
        "warnings": [],
        "store": store,
        "epochs": epochs,
        "ideal": None if ideal_s is None else TEMPLATE.epochs[-1].model_copy(update={"epoch_s": ideal_s}),
        "campaign": place if campaign else None,
        "started_at": f"2026-11-21T00:{block:02}:00.000000+00:00",
        "repeat": block,
    }
    return TEMPLATE.model_copy(update={**values, **changes})


NOISE = (0.98, 1.02, 0.99, 1.01, 0.985, 1.015, 1.005, 0.995)
"""Ratios of equal runs: their interval is about 0.98…1.02."""


def campaign(wait: float = 0.5, **median_s: float) -> list[RunRecord]:
    """Eight blocks of runs with these epochs; the first backend has a control."""
    records = []
    for number, (backend, seconds) in enumerate(median_s.items()):
        # Each its own order of noise, so that not all ratios within blocks are alike.
        noise = NOISE[number:] + NOISE[:number]
        records += [run(backend, block, seconds * noise[block], wait=wait) for block in range(BLOCKS)]
    first, seconds = next(iter(median_s.items()))
    again = [run(first, block, seconds * NOISE[-1 - block], control=True, wait=wait) for block in range(BLOCKS)]
    return records + again


def with_losses(record: RunRecord, *epochs: list[float], deterministic: bool = True) -> RunRecord:
    """The run with these losses of the batches of each epoch."""
    template = record.epochs[0]
    made = [template.model_copy(update={"epoch": n, "batch_loss": losses}) for n, losses in enumerate(epochs)]
    spec = record.spec.model_copy(update={"deterministic": deterministic})
    return record.model_copy(update={"epochs": made, "spec": spec, "spec_id": spec.spec_id})


def with_tests(
    record: RunRecord,
    true: Sequence[int],
    predicted: Sequence[int],
    classes: tuple[str, ...] = ("cat", "dog", "owl"),
    *,
    loss: float = 0.5,
) -> RunRecord:
    """The run with these predictions in its test, and, of losses 1.5 and 1, in a validation after each epoch."""

    def evaluation(**facts: Any) -> Any:
        return evaluate(np.array(true), np.array(predicted), classes, evaluate_s=record.epochs[-1].epoch_s, **facts)

    validation = [evaluation(loss=1.5 - n / 2, split="val", epoch=n, detailed=False) for n in range(2)]
    test = evaluation(loss=loss, split="test", epoch=1, detailed=True)
    spec = record.spec.model_copy(update={"deterministic": True})
    return record.model_copy(
        update={"validation": validation, "test": test, "spec": spec, "spec_id": spec.spec_id},
    )


def fold(number: int, right: int, *, identity: str = "k1", folds: int = 4, backend: str = "zarr") -> RunRecord:
    """Fold ``number`` of a cross-validation, with so many of ten test samples right, trained on data of its own."""
    record = run(backend, 0, 1.0, spec={"dataset_options": {"fold": number}}, campaign=False)
    tested = with_tests(record, [1] * 10, [1] * right + [0] * (10 - right))
    return tested.model_copy(
        update={
            "fold": FoldInfo(id=identity, fold=number, folds=folds),
            "data": TEMPLATE.data.model_copy(update={"digest": f"{number:032x}"}),
        }
    )


def draw_all(page: Any) -> dict[str, str]:
    """Draw every chart, and return what became of each."""
    page.evaluate("Bench.charts.all()")
    states = "Object.fromEntries([...document.querySelectorAll('figure')].map((f) => [f.id, f.dataset.state]))"
    return page.evaluate(states)
