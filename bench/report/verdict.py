"""What a run means, in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.bottleneck import NEGLIGIBLE_SHARE, computing_ratio, only_waits, share_of_epoch
from bench.records.metrics import IMPOSSIBLE_SHARE, METRICS, significant
from bench.records.record import RunRecord
from bench.report.tables import cache_text, run_label


def verdict(records: Sequence[RunRecord]) -> str:
    """Return the sentences that say what a finished run, or several equal ones, mean."""
    record = records[-1]
    epoch, wait = METRICS["epoch_s"].over(records), METRICS["wait_share"].over(records)
    name = run_label(record)
    if record.status != "ok" or epoch is None or wait is None:
        reason = record.error.message if record.error else "no epoch was completed"
        return f"{name} gives no result: {reason}"
    if record.spec.model == "none":
        return (
            f"Loading alone: {name} delivers {METRICS['samples_per_s'].text(records)} samples/s; training that takes "
            "fewer never has to wait for it, as long as loading runs beside the training."
        )
    over, ideal = METRICS["over_ceiling"].over(records), METRICS["ideal_s"].over(records)
    augmenting = METRICS["augment_share"].over(records)
    waited = f"Waiting for data took {significant(wait.median, 2)} % of the epoch"
    computing = computing_ratio(records) if only_waits(record) else None
    if over is None or ideal is None:
        saved_s = epoch.median * wait.median / 100
        text = (
            f"{waited}, {significant(saved_s, 3)} s of {significant(epoch.median, 3)} s: about what a faster format "
            "could save. The ceiling was not measured, so this is no hard limit."
        )
    elif computing is not None and abs(computing - 1) > IMPOSSIBLE_SHARE / 100:
        text = (
            f"{waited} from {name}: storage cannot gain you more than that. The same computing took "
            f"{significant(computing, 3)} times as long as in the ceiling's run, so the machine changed its speed "
            f"between the two, and their difference ({significant(epoch.median, 3)} s per epoch, from memory "
            f"{significant(ideal.median, 3)} s) says nothing about storage."
        )
    elif over.median < -IMPOSSIBLE_SHARE:
        text = (
            f"No verdict: an epoch from {name} took {significant(epoch.median, 3)} s, and from memory, which cannot be "
            f"slower, {significant(ideal.median, 3)} s. The machine is too noisy for this short a run. {waited}."
        )
    elif over.median < NEGLIGIBLE_SHARE and wait.median < NEGLIGIBLE_SHARE:
        text = (
            f"Compute-bound: the format does not matter here. Training from memory takes "
            f"{significant(ideal.median, 3)} s per epoch, and {name} {significant(epoch.median, 3)} s. {waited}."
        )
    else:
        text = (
            f"{name} costs {significant(over.median, 2)} % over the ceiling ({significant(epoch.median, 3)} s instead "
            f"of {significant(ideal.median, 3)} s per epoch from memory)"
        )
        share = share_of_epoch(over.median)
        if share <= wait.median:
            text += f". {waited}, and storage cannot gain you more than that."
        else:
            text += f": {significant(share, 2)} % of the epoch, and storage cannot gain you more than that. {waited}"
            text += f"; {_rest(record)}." if _computed_longer(records) else "."
    if augmenting is not None:
        text += f" Augmentation took {significant(augmenting.median, 2)} % of the epoch, which no format changes."
    if record.spec.workers and record.device == "cpu":
        text += " The workers share the CPU with the training, so part of their cost is inside the computing time."
    if record.cache.asked != "as-is":
        text += f" Page cache {cache_text(record)}."
    return text


def _computed_longer(records: Sequence[RunRecord]) -> bool:
    ratio = computing_ratio(records)
    return ratio is not None and ratio > 1 + IMPOSSIBLE_SHARE / 100


def _rest(record: RunRecord) -> str:
    computing = "augmenting and computing" if record.spec.augment else "computing"
    how = "took longer than in the ceiling's run" if only_waits(record) else "was slower beside the loading"
    return f"the rest is {computing}, which {how}"


def meaning(records: Sequence[RunRecord]) -> str:
    """Return the verdict and, a line each, what puts it in doubt."""
    notes = dict.fromkeys((warning.kind, warning.message) for record in records for warning in record.warnings)
    # With several runs the spread is known, whatever each of them says of itself.
    shown = [(kind, message) for kind, message in notes if len(records) == 1 or kind != "no-repeats"]
    return "\n".join([verdict(records), *(f"Note ({kind}): {message}" for kind, message in shown)])
