"""Which metrics runs can be compared by, and by chance of which repeating them tells."""

from __future__ import annotations

from bench.contracts.errors import BenchError
from bench.records.metrics import METRICS, Metric

BY_SEED = tuple(key for key in METRICS if key in ("loss", "accuracy") or key.startswith(("val_", "test_")))
"""What a network learnt: equal runs have equal scores, but for the last bits, as they follow from the seed."""

SAME_IN_ALL_RUNS = ("store_mb", "files", "prepare_s", "decode_s", *BY_SEED)
"""Metrics that are measured once per store, or follow from the seed: repeating the run does not repeat them."""

INSTEAD = {
    "over_ceiling": "epoch_s",
    "pss_growth_mb": "peak_pss_mb",
    "vram_delta_mb": "vram_reserved_mb",
    "gpu_temperature_c": "gpu_sm_mhz",
}
"""What to compare instead of a difference: the zero of that is arbitrary or noise, so its ratios say nothing."""


class ComparisonError(BenchError):
    """Runs from which no comparison follows."""


def comparable_metric(key: str) -> Metric:
    """Return the metric of a name. Raises ComparisonError where runs have no ratio in it, or differ by no chance."""
    if key in INSTEAD:
        raise ComparisonError(f"{key} is a difference, of which ratios say nothing. Compare {INSTEAD[key]} instead.")
    unfit = {*SAME_IN_ALL_RUNS, *INSTEAD}
    comparable = [k for k, m in METRICS.items() if m.better != "neither" and k not in unfit]
    if key in comparable:
        return METRICS[key]
    known = f"Choose from: {', '.join(comparable)}."
    if key in METRICS:
        raise ComparisonError(f"{key} is not measured anew in each run, or has no better direction. {known}")
    raise ComparisonError(f"There is no metric {key!r}. {known}")
