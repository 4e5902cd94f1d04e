"""What a run means, in a sentence or two."""

from __future__ import annotations

from bench.metrics import METRICS, significant
from bench.record import RunRecord
from bench.report.tables import run_label

NEGLIGIBLE_SHARE = 2.0


def verdict(record: RunRecord) -> str:
    """Return the sentence that says what a finished run means."""
    epoch, wait = METRICS["epoch_s"].of(record), METRICS["wait_share"].of(record)
    name = run_label(record)
    if record.status != "ok" or epoch is None or wait is None:
        reason = record.error.message if record.error else "no epoch was completed"
        return f"{name} gives no result: {reason}"
    if record.spec.model == "none":
        rate = METRICS["samples_per_s"].text(record)
        return (
            f"Loading alone: {name} delivers {rate} samples/s; training that takes fewer never has to wait for it, "
            "as long as loading runs beside the training."
        )
    share = wait.median
    if share < NEGLIGIBLE_SHARE:
        text = (
            f"Compute-bound: data loading took {significant(share, 2)} % of the epoch; "
            "a faster format cannot gain more than about that."
        )
    else:
        waited_s = epoch.median * share / 100
        text = (
            f"Data loading took {share:.0f} % of the epoch, {significant(waited_s, 3)} s of "
            f"{significant(epoch.median, 3)} s: about what a faster format could save. "
            "A run with --backend memory shows what would be left."
        )
    if record.spec.workers and record.device == "cpu":
        text += " The workers share the CPU with the training, so part of their cost is inside the computing time."
    return text


def meaning(record: RunRecord) -> str:
    """Return the verdict and, a line each, what puts it in doubt."""
    return "\n".join([verdict(record), *(f"Note ({w.kind}): {w.message}" for w in record.warnings)])
