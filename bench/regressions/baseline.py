"""Saved baselines: what a set of cells measured, and how fast the machine was meanwhile.

The file is that of pytest-benchmark (``Benchmark JSON``, one benchmark per cell, seconds per epoch), so that
``pytest-benchmark compare`` reads it. What only we read stands in each benchmark's ``extra_info`` and in
``dataset_bench``, beside ``benchmarks``: whole records without their values per batch, and a calibration per run.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.contracts.errors import BenchError
from bench.files import replacing, require_place
from bench.measure.calibration import Calibration
from bench.records.metrics import METRICS
from bench.records.record import SCHEMA_VERSION, CampaignInfo, EpochInfo, RunRecord, fault, recorded
from bench.specs.spec import RunSpec

FORMAT = 1
"""Raised when what we write into the file changes its meaning."""

FOLDER = "baselines"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class BaselineError(BenchError):
    """A baseline that is not there, cannot be read, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A run, and the speed of the machine around it: the mean of what was taken before and after."""

    record: RunRecord
    calibration: Calibration

    @property
    def cell(self) -> str:
        """The cell that it is a run of. Raises BaselineError where the record does not tell."""
        return self._place.cell

    @property
    def block(self) -> int:
        """The number of its block. Raises BaselineError where the record does not tell."""
        return self._place.block

    @property
    def _place(self) -> CampaignInfo:
        if self.record.campaign is None:
            raise BaselineError(f"The run {self.record.spec_id} was not made for a baseline: it has no place in one.")
        return self.record.campaign

    @property
    def control(self) -> bool:
        """Whether it is the repetition that shows how far equal runs differ."""
        return self.record.campaign is not None and self.record.campaign.control


@dataclass(frozen=True, slots=True)
class Baseline:
    """The runs of some cells, made in blocks.

    ``units`` are the versions of what the calibration used; ``ceiling`` is whether the ceiling was measured as well.
    """

    name: str
    made_at: str
    blocks: int
    seed: int
    ceiling: bool
    units: Mapping[str, str]
    runs: tuple[Measured, ...]

    @property
    def cells(self) -> dict[str, RunSpec]:
        """What each cell runs, by name, in the order of the campaign: the one with the control first."""
        found = {run.cell: run.record.spec for run in self.runs}
        twins = {run.cell for run in self.runs if run.control}
        return dict(sorted(found.items(), key=lambda item: item[0] not in twins))


def path_of(name: str, results: Path) -> Path:
    """Return where the baseline of a name lies: below ``results``, or the file itself where a path is given."""
    if name.endswith(".json") or "/" in name:
        return Path(name)
    if not _NAME.fullmatch(name):
        raise BaselineError(f"{name!r} is no name for a baseline. Use letters, digits, dots and dashes.")
    return results / FOLDER / f"{name}.json"


def require_free(path: Path, *, replace: bool) -> None:
    """Raise BaselineError where one is there and not to be replaced, OutputError where none can be written."""
    if path.exists() and not replace:
        raise BaselineError(f"{path} is there already. Choose another name, or use --replace.")
    folder = path.absolute().parent
    while not folder.exists():
        # It is made, once there is something to keep.
        folder = folder.parent
    require_place(folder / path.name, "--save")


def save(baseline: Baseline, path: Path) -> None:
    """Write a baseline, whole or not at all. Raises BaselineError and OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BaselineError(f"Cannot write {path}: {error.strerror}. Choose another --results.") from error
    with replacing(path) as part, part.open("w") as file:
        file.write(json.dumps(_content(baseline), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(name: str, results: Path) -> Baseline:
    """Load a baseline by name or path. Raises BaselineError."""
    path = path_of(name, results)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        known = sorted(found.stem for found in (results / FOLDER).glob("*.json"))
        there = f"There are: {', '.join(known)}." if known else f"Make one with `bench regress --save {name}`."
        raise BaselineError(f"There is no baseline {path}. {there}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BaselineError(f"{path} cannot be read: {str(error).splitlines()[0]}. Save it again.") from error
    ours = content.get("dataset_bench") if isinstance(content, dict) else None
    if not isinstance(ours, dict):
        raise BaselineError(f"{path} was not saved by `bench regress --save`, so there is nothing to repeat.")
    newer = [ours.get("format", 0) > FORMAT, ours.get("record_schema", 0) > SCHEMA_VERSION]
    if any(newer):
        raise BaselineError(f"{path} was written by a newer bench. Upgrade to read it.")
    try:
        return Baseline(
            name=path.stem,
            made_at=content["datetime"],
            blocks=ours["blocks"],
            seed=ours["seed"],
            ceiling=ours["ceiling"],
            units=ours["units"],
            runs=tuple(
                Measured(recorded(run["record"]), Calibration(**run["calibration"]))
                for benchmark in content["benchmarks"]
                for run in benchmark["extra_info"]["runs"]
            ),
        )
    except ValidationError as error:
        reason, has_more = fault(error)
        if has_more:
            raise BaselineError(f"{path} was written by a newer bench: {reason}. Upgrade to read it.") from error
        raise BaselineError(f"{path} is damaged: {reason}. Save it again.") from error
    except (KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise BaselineError(f"{path} is damaged: {reason}. Save it again.") from error


def _content(baseline: Baseline) -> dict[str, Any]:
    first = baseline.runs[0].record.environment
    return {
        "machine_info": {
            "cpu": {"brand_raw": first.get("cpu"), "count": first.get("cpu_count")},
            "machine": first.get("cpu"),
            "node": "",
            "python_version": first.get("python"),
            "release": first.get("kernel"),
            "system": first.get("system"),
        },
        "commit_info": {"id": first.get("git_revision") or "unknown", "dirty": bool(first.get("git_modified"))},
        "benchmarks": [_benchmark(cell, [run for run in baseline.runs if run.cell == cell]) for cell in baseline.cells],
        "datetime": baseline.made_at,
        "version": _writer(),
        "dataset_bench": {
            "format": FORMAT,
            "record_schema": SCHEMA_VERSION,
            "blocks": baseline.blocks,
            "seed": baseline.seed,
            "ceiling": baseline.ceiling,
            "units": dict(baseline.units),
        },
    }


def _writer() -> str:
    # pytest-benchmark writes its own version here; readers of the format look at none.
    return "5.0.0"


def _benchmark(cell: str, runs: Sequence[Measured]) -> dict[str, Any]:
    own = [run.record for run in runs if not run.control and run.record.status == "ok"]
    seconds = [summary.median for record in own if (summary := METRICS["epoch_s"].of(record)) is not None]
    if not seconds:
        raise BaselineError(f"{cell} gave no result at all, so it cannot be part of a baseline. Leave it out.")
    spec = runs[0].record.spec
    work = f"{spec.dataset_label}, {spec.model}"
    return {
        "group": work,
        "name": cell,
        "fullname": f"{work}::{cell}",
        "params": None,
        "param": None,
        "extra_info": {"runs": [{"calibration": run.calibration.facts(), "record": _slim(run.record)} for run in runs]},
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": len(seconds),
            "max_time": 0,
            "min_time": 0,
            "warmup": spec.epochs > 1,
        },
        "stats": statistics_of(seconds),
    }


def _slim(record: RunRecord) -> dict[str, Any]:
    """Return a record without its values per batch and per process, which make most of its size."""
    epochs = [_slim_epoch(epoch) for epoch in record.epochs]
    ideal = _slim_epoch(record.ideal) if record.ideal else None
    slim: dict[str, Any] = json.loads(record.model_copy(update={"epochs": epochs, "ideal": ideal}).model_dump_json())
    return slim


def _slim_epoch(epoch: EpochInfo) -> EpochInfo:
    return epoch.model_copy(update={"batch_wait_s": [], "batch_loss": None, "processes": []})


def statistics_of(seconds: Sequence[float]) -> dict[str, Any]:
    """Return what pytest-benchmark keeps of a list of times, defined as there; ``data`` has the times themselves.

    Quartiles are medians of halves for an even number of values, and interpolated for an odd one (its ``stats.py``).
    """
    data, n = sorted(seconds), len(seconds)
    mean = statistics.mean(data)
    deviation = statistics.stdev(data) if n > 1 else 0.0
    q1, q3 = _quartiles(data)
    reach = 1.5 * (q3 - q1)
    within = [value for value in data if q1 - reach <= value <= q3 + reach]
    far = sum(not mean - deviation <= value <= mean + deviation for value in data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": n,
        "median": statistics.median(data),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": n - len(within),
        "stddev_outliers": far,
        "outliers": f"{far};{n - len(within)}",
        "ld15iqr": within[0],
        "hd15iqr": within[-1],
        "ops": n / sum(data),
        "total": sum(data),
        "data": list(seconds),
        "iterations": 1,
    }


def _quartiles(data: Sequence[float]) -> tuple[float, float]:
    n = len(data)
    if n == 1:
        return data[0], data[0]
    if n % 2 == 0:
        return statistics.median(data[: n // 2]), statistics.median(data[n // 2 :])
    k = n // 4
    if n % 4 == 1:
        return 0.25 * data[k - 1] + 0.75 * data[k], 0.75 * data[3 * k] + 0.25 * data[3 * k + 1]
    return 0.75 * data[k] + 0.25 * data[k + 1], 0.25 * data[3 * k + 1] + 0.75 * data[3 * k + 2]
