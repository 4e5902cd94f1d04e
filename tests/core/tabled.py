"""Records built by hand, of which tables are made whose content is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.records.facets import facets
from bench.records.record import CampaignInfo, ErrorInfo, RunRecord, read_record
from bench.report.pivot import Pivot, make_pivot

TEMPLATE = read_record(Path(__file__).parent / "records" / "version-1.json")
# Ratios to 1 of a control whose interval is about 0.98…1.02.
QUIET = [0.98, 1.02, 0.99, 1.01, 0.985, 1.015, 1.005, 0.995]
BASE = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]


def run(
    backend: str = "memmap",
    *epochs_s: float,
    options: dict[str, Any] | None = None,
    used: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    ideal_s: float | None = None,
    changes: dict[str, Any] | None = None,
    **spec: Any,
) -> RunRecord:
    """A run of a backend whose counted epochs took so long, after a warm-up that would spoil every statistic."""
    asked = {"reader": "library", **(options or {})}
    own = TEMPLATE.spec.model_copy(update={"backend": backend, "options": asked, **spec})
    times = [1000.0, *(epochs_s or (1.0,))]
    epochs = [
        TEMPLATE.epochs[-1].model_copy(
            update={"epoch": n, "warmup": n == 0, "epoch_s": time_s, "wait_s": 0.25 * time_s, "samples": 1000}
        )
        for n, time_s in enumerate(times)
    ]
    ideal = None if ideal_s is None else TEMPLATE.epochs[-1].model_copy(update={"epoch_s": ideal_s})
    update: dict[str, Any] = {
        "spec": own,
        "spec_id": own.spec_id,
        "store": TEMPLATE.store.model_copy(update={"backend": backend, "options": {**asked, **(used or {})}}),
        "epochs": epochs,
        "ideal": ideal,
        "data": TEMPLATE.data.model_copy(update={"name": own.dataset, **(data or {})}),
        "environment": {**TEMPLATE.environment, **(environment or {})},
    }
    return TEMPLATE.model_copy(update={**update, **(changes or {})})


def failed(backend: str, message: str, status: str = "failed", **spec: Any) -> RunRecord:
    """A run that gave no result."""
    error = ErrorInfo(phase="open", type="X", message=message)
    nothing = {"status": status, "error": error, "epochs": [], "data": None, "store": None}
    return run(backend, changes=nothing, **spec)


def campaign(name: str = "c1", control: list[float] | None = QUIET, **cells: list[float]) -> list[RunRecord]:
    """Runs by backend, a value a block. The control repeats the first, times ``control``."""
    first = next(iter(cells))
    series = [(backend, times, False) for backend, times in cells.items()]
    if control is not None:
        series.append((first, [a * b for a, b in zip(cells[first], control, strict=True)], True))
    records = []
    for backend, times, again in series:
        for block, time_s in enumerate(times):
            place = CampaignInfo(
                id=name, seed=3, blocks=len(times), block=block, position=0, cell=backend, control=again
            )
            started = f"2026-11-21T00:{block:02}:00.000000+00:00"
            records.append(run(backend, time_s, changes={"campaign": place, "started_at": started}))
    return records


def pivot(
    records: list[RunRecord],
    rows: str = "method",
    columns: str = "dataset",
    metrics: str = "epoch_s",
    baseline: str | None = None,
) -> Pivot:
    """A pivot as the command makes it."""
    return make_pivot(records, facets([rows]), facets([columns]), metrics.split(","), baseline)
