"""What the page knows of a method: numbers for charts, and texts for tables, of one group of equal runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bench.comparisons.comparison import Contrast
from bench.records.groups import Group
from bench.records.metrics import IMPOSSIBLE_SHARE, METRICS, all_waits_s
from bench.records.record import EpochInfo, RunRecord
from bench.report.ratios import decimals
from bench.report.tables import options_text, proven_caches_text, work_text

POINT_METRICS = (
    "epoch_s",
    "over_ceiling",
    "samples_per_s",
    "wait_share",
    "wait_p50_ms",
    "wait_p90_ms",
    "wait_p99_ms",
    "first_batch_ms",
    "steady_s",
    "open_ms",
    "cpu_s",
    "peak_pss_mb",
    "vram_allocated_mb",
    "vram_delta_mb",
    "storage_read_mb",
    "read_amplification",
    "read_call_mb",
)
"""What each run is a point of in the main chart, with an interval where there are enough runs."""

WAIT_SHARES = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
"""Shares of the batches at which waits are kept: many more would look the same."""

BEYOND = 10
"""How many batches must have waited longer for a share of the tail to mean anything."""

LINE_POINTS = 400


def number(value: float | None, digits: int = 6) -> float | None:
    """Return a value to so many significant digits, None where it is none or not finite: JSON has no other."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def method(group: Group, label: str, family: str, contrast: Contrast | None, failed: int) -> dict[str, Any]:
    """Return what the page knows of a group, apart from its place among others.

    ``contrast`` is that with the best of the work; ``failed`` counts runs of the same spec without a result.
    """
    record = group.counted[-1]
    spec = record.spec
    return {
        "label": label,
        "family": family,
        "backend": spec.backend,
        "workers": spec.workers,
        "runs": len(group.counted),
        "failed": failed,
        "metrics": {key: found for key in METRICS if (found := metric_values(group, key))},
        "started": [_seconds(run) for run in group.counted],
        "epochs": [number(epoch.epoch_s) for epoch in record.measured()] if len(group.counted) == 1 else [],
        "parts": parts(group),
        "waits": waits(group),
        "against": against(contrast),
        "facts": facts(group),
    }


def metric_values(group: Group, key: str) -> dict[str, Any] | None:
    """Return median, range, interval, text and points (one a run) of a metric; None where the group lacks it."""
    summary = group.summary(key)
    if summary is None:
        return None
    if key == "over_ceiling" and summary.median < -IMPOSSIBLE_SHARE:
        # Faster than what cannot be beaten: a sign of noise, and no result.
        return {"v": None, "t": "n/a"}
    found: dict[str, Any] = {"v": number(summary.median), "t": METRICS[key].text(group.counted)}
    if summary.n > 1:
        found["r"] = [number(summary.low), number(summary.high)]
    if key in POINT_METRICS:
        found["p"] = [number(value) for value in group.values(key)]
        interval = group.interval(key)
        if interval is not None:
            found["i"] = [number(interval.low), number(interval.high)]
    return found


def parts(group: Group) -> dict[str, float | None] | None:
    """Return wait, copy and compute in seconds of the counted epoch whose time is nearest to the median epoch's.

    They are those of one real epoch because medians of parts need not add up to the median of their sum. Where
    samples were augmented, that is a part, too.
    """
    summary = group.summary("epoch_s")
    epochs: list[EpochInfo] = [epoch for record in group.counted for epoch in record.measured()]
    if summary is None or not epochs:
        return None
    typical = min(epochs, key=lambda epoch: abs(epoch.epoch_s - summary.median))
    found = {"wait": number(typical.wait_s), "copy": number(typical.copy_s), "compute": number(typical.compute_s)}
    return found if typical.augment_s is None else {**found, "augment": number(typical.augment_s)}


def waits(group: Group) -> dict[str, Any] | None:
    """Return the distribution of the waits for batches of all runs: milliseconds at shares of the batches.

    By nearest rank, so each is a wait that was measured. Of the tail only shares beyond which ten batches lie.
    """
    found = sorted(1e3 * wait for record in group.counted for wait in all_waits_s(record))
    if not found:
        return None
    n = len(found)
    shares = [share for share in WAIT_SHARES if share <= 0.5 or n * (1 - share) >= BEYOND - 1e-9]
    values = [found[max(0, math.ceil(share * n) - 1)] for share in shares]
    return {"n": n, "share": shares, "ms": [number(value, 4) for value in values], "max": number(found[-1], 4)}


def time_line(group: Group) -> dict[str, Any]:
    """Return the waits of all batches of the last run in milliseconds, in their order, and where epochs begin.

    Where there are more than 400, each point is the longest of several: stalls stay visible.
    """
    record = group.counted[-1]
    values = [1e3 * wait for epoch in record.epochs for wait in epoch.batch_wait_s]
    step = max(1, math.ceil(len(values) / LINE_POINTS))
    starts, seen = [], 0
    for epoch in record.epochs:
        starts.append([seen, epoch.warmup])
        seen += len(epoch.batch_wait_s)
    highest = [number(max(values[at : at + step]), 4) for at in range(0, len(values), step)]
    return {"step": step, "ms": highest, "epochs": starts}


def against(contrast: Contrast | None) -> dict[str, Any] | None:
    """Return the contrast with the best method as numbers."""
    if contrast is None or contrast.ratio is None:
        return None
    interval = contrast.interval
    return {
        "ratio": number(contrast.ratio, 5),
        "low": number(interval.low, 5) if interval else None,
        "high": number(interval.high, 5) if interval else None,
        "decimals": decimals(contrast.ratio, interval),
        "p": number(contrast.p_holm, 3),
        "blocks": contrast.n,
        "verdict": contrast.verdict,
        "reason": contrast.reason,
    }


def facts(group: Group) -> list[list[str]]:
    """Return what else is known of a method, as name and text: from its last run, but the page cache, from all."""
    record = group.counted[-1]
    found = [["options", options_text(record) or "none"], ["work", work_text(record)]]
    if record.spec.workers:
        found.append(["workers start by", record.spec.start_method])
    found.append(["page cache", proven_caches_text(group.records)])
    store = record.store
    if store is not None:
        lossy = f"lossy, {store.lossy.psnr_db:.1f} dB PSNR" if store.lossy else "bit for bit"
        checked = record.data.checked_samples if record.data else None
        after = f"; {checked:,} samples checked again after the last epoch" if checked else ""
        found.append(["verified", f"read back {lossy}{after}" if store.digest_ok or store.lossy else "NOT verified"])
    found += [["reader", ", ".join(f"{key}: {value}" for key, value in record.reader.items())]] if record.reader else []
    command = record.environment.get("command")
    if isinstance(command, list):
        found.append(["command", " ".join(map(str, command))])
    return [*found, ["last run", record.started_at[:19].replace("T", " ") + " UTC"]]


def accuracies(groups: Sequence[Group]) -> list[list[list[float | None]]]:
    """Return loss and accuracy by epoch of the last run of each group, warm-ups included."""
    return [[[number(epoch.loss), number(epoch.accuracy)] for epoch in group.counted[-1].epochs] for group in groups]


def _seconds(record: RunRecord) -> int | None:
    try:
        return int(datetime.fromisoformat(record.started_at).timestamp())
    except ValueError:
        return None
