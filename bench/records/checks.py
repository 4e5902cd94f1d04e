"""What puts a run's numbers in doubt: typed warnings, each with what to do about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bench.measure.page_cache import COLD_AT_MOST, WARM_AT_LEAST
from bench.records.facets import used_options
from bench.records.metrics import IMPOSSIBLE_SHARE, METRICS
from bench.records.record import EpochInfo, RunRecord, WarningInfo
from bench.stats import summarise

SHORT_EPOCH_S = 1.0
UNSTABLE_SPREAD = 0.10
AMPLIFIED = 2.0
ONCE_EACH = 1.1
"""By which factor reading each chunk once in every worker may seem more than that: metadata is read, too."""

KEPT_SHARE = 0.5
KEPT_AT_LEAST_BYTES = 4e6
"""More than what importing a codec reads in the first epoch."""

CANARY_OFF = 0.05
STEAL_SHARE = 0.01
OTHERS_SHARE = 0.05
OWN_CPU_S = 0.5
"""What reading counters, the canaries and progress take beside an epoch, at most."""

PRESSURE_SHARE = 0.05
FOREIGN_READ_SHARE = 0.10
OWN_READ_BYTES = 64e6
"""What libraries that are imported on first use may read beside the store."""

SAMPLER_SHARE = 0.01
SAMPLER_ALLOWANCE_S = 0.5


def warnings_for(record: RunRecord) -> list[WarningInfo]:
    """Return all warnings for a record."""
    found = ((kind, check(record)) for kind, check in _CHECKS.items())
    return [WarningInfo(kind=kind, message=message) for kind, message in found if message is not None]


def _synthetic(record: RunRecord) -> str | None:
    if record.data is None or record.data.origin != "synthetic":
        return None
    return "The data is a synthetic stand-in: sizes and speed are like the real set's, accuracy means nothing."


def _skipped(record: RunRecord) -> str | None:
    if record.data is None or not record.data.skipped_count:
        return None
    files = f"{record.data.skipped_count} files" if record.data.skipped_count > 1 else "1 file"
    first = record.data.skipped[0]
    return (
        f"{files} could not be decoded and {'were' if record.data.skipped_count > 1 else 'was'} left out, "
        f"the first {first.file} ({first.reason}); the record lists all. Another machine may leave out others."
    )


def _fresh_layers(record: RunRecord) -> str | None:
    weights = record.environment.get("weights") or {}
    fresh = weights.get("fresh_layers")
    if not fresh:
        return None
    return (
        f"Not all weights are those of {record.spec.weights}: {' and '.join(fresh)} began at random, as the file has "
        "them for other channels, sizes or classes."
    )


def _not_finite(record: RunRecord) -> str | None:
    if record.data is None or not record.data.not_finite:
        return None
    return (
        f"{record.data.not_finite:,} values of the data are infinite or undefined, so losses are, too: "
        "repair them, or measure loading alone with --model none."
    )


def _diverged(record: RunRecord) -> str | None:
    lost = [epoch.epoch for epoch in record.epochs if epoch.loss is not None and not math.isfinite(epoch.loss)]
    if not lost or record.data is None or record.data.not_finite:
        return None
    return (
        f"The loss is no number from epoch {lost[0]} on: the training diverged, so its scores mean nothing. Use a "
        "smaller --lr. Times are as good as any."
    )


def _lossy(record: RunRecord) -> str | None:
    if record.store is None or record.store.lossy is None:
        return None
    psnr = record.store.lossy.psnr_db
    return f"The store is lossy (PSNR {psnr:.1f} dB): it does not deliver the same bytes as the other formats."


def _no_repeats(record: RunRecord) -> str | None:
    if record.status != "ok" or len(record.measured()) > 1:
        return None
    return (
        "Only one epoch counts, so the spread is unknown: use --epochs 4 or more, or --repeats for the spread between "
        "processes, which is the larger one."
    )


def _resumed(record: RunRecord) -> str | None:
    if record.training is None or not record.training.resumed_before:
        return None
    return (
        f"The run went on from a checkpoint before epoch {record.training.resumed_before[-1]}: peak memory, the GPU's "
        "sensors and what else the machine did are known of its last process alone. Compare these with whole runs only."
    )


def _short(record: RunRecord) -> str | None:
    times = summarise([epoch.epoch_s for epoch in record.measured()])
    if times is None or times.median >= SHORT_EPOCH_S:
        return None
    return f"An epoch took only {times.median:.2f} s, so small disturbances weigh much: use more samples or epochs."


def _unstable(record: RunRecord) -> str | None:
    times = summarise([epoch.epoch_s for epoch in record.measured()])
    if times is None or times.spread <= UNSTABLE_SPREAD:
        return None
    return f"Epoch times differ by ±{times.spread:.0%}: close other programs and use more epochs."


def _amplification(record: RunRecord) -> str | None:
    data = record.data
    if data is None:
        return None
    read = [(epoch.io.read_call_bytes, epoch.samples * data.sample_bytes) for epoch in record.measured()]
    ratios = summarise([called / delivered for called, delivered in read if called is not None and delivered])
    if ratios is None or ratios.median < AMPLIFIED:
        return None
    return f"Read calls moved {ratios.median:.1f} times the bytes that were delivered: {_pieces(record, ratios.median)}"


def _pieces(record: RunRecord, times: float) -> str:
    """Why more is read than delivered, and the remedy that fits the store, its reader and the workers."""
    options, spec = used_options(record), record.spec
    naive = options.get("reader") == "naive"
    if (options.get("chunk") or 1) == 1:
        remedy = " Another reader, library or mapped, reads less." if naive else ""
        return f"its reader reads pieces larger than a sample.{remedy}"
    why = f"the store is read in chunks of {options['chunk']} samples."
    if naive:
        return f"{why} Another reader, library or mapped, reads each once for several of its samples."
    # Beyond that, chunks are read several times by each worker, and would be by threads.
    if spec.worker_kind == "process" and 1 < spec.workers >= times / ONCE_EACH:
        return (
            f"{why} Each of the {spec.workers} worker processes keeps its own, so each chunk is read and decoded by "
            "every one of them: --worker-kind thread shares them."
        )
    order = ", or --shuffle block," if spec.shuffle == "full" else ""
    return f"{why} Smaller chunks{order} make an epoch cheaper."


def _kept(record: RunRecord) -> str | None:
    # Compiling reads far more than a store, all of it in the first epoch.
    if record.store is None or not record.epochs or not record.epochs[0].warmup or record.spec.compile:
        return None
    first, *later = (epoch.io.read_call_bytes for epoch in record.epochs)
    share = summarise([read / first for read in later if read is not None]) if first else None
    if share is None or not first or first < max(KEPT_AT_LEAST_BYTES, record.store.size_bytes / 2):
        return None
    if share.median > KEPT_SHARE:
        return None
    return (
        f"Epochs that count read {share.median:.0%} of what the first one read: something keeps samples from one epoch "
        "to the next, so times are those of memory, not of the store. Use more samples, or --cache cold, which opens "
        "the store anew each time."
    )


def _cache(record: RunRecord) -> str | None:
    cache = record.cache
    if record.status != "ok" or cache.achieved == "verified":
        return None
    if cache.asked != "as-is":
        reclaimed = record.environment.get("proactive_reclaim") and cache.asked == "warm"
        why = " The kernel here takes away memory that it believes unused (DAMON)." if reclaimed else ""
        return f"The cache was to be {cache.asked}, which is {cache.achieved}: {cache.proof}.{why}"
    found = cache.resident_before
    if found is not None and (found <= COLD_AT_MOST or found >= WARM_AT_LEAST):
        return None
    state = "nobody can tell how" if found is None else f"with {found:.0%} of the store in memory"
    return f"The page cache was left as it was, {state}: compare like with like, by --cache warm or --cache cold."


def _faster_than_ceiling(record: RunRecord) -> str | None:
    over = METRICS["over_ceiling"].of(record)
    if over is None or over.median >= -IMPOSSIBLE_SHARE:
        return None
    return (
        f"Epochs were {-over.median:.0f} % faster than the ceiling, which cannot be: something disturbed one of them. "
        "Close other programs, and use --repeats."
    )


def _canary(record: RunRecord) -> str | None:
    before_s, after_s = _disturbance(record).get("canary_s") or (None, None)
    if not before_s or not after_s or abs(after_s / before_s - 1) <= CANARY_OFF:
        return None
    return (
        f"The same arithmetic took {1e3 * before_s:.0f} ms before the epochs, {1e3 * after_s:.0f} ms after them: the "
        "CPU changed its speed, or others used it. Run again, on a quiet machine."
    )


def _steal(record: RunRecord) -> str | None:
    share = _disturbance(record).get("steal_share")
    if share is None or share <= STEAL_SHARE:
        return None
    return f"The hypervisor took {share:.1%} of the CPU time for others: run again, or on a machine of your own."


def _stopped(record: RunRecord) -> str | None:
    stopped_s = record.environment.get("stopped_s")
    if not stopped_s:
        return None
    return (
        f"bench stood still for {stopped_s:.1f} s, as by Ctrl-Z, by a scheduler, on a machine that slept or had too "
        "much to do: epochs may have taken that much longer. Run again."
    )


def _others(record: RunRecord) -> str | None:
    facts = _disturbance(record)
    busy_s, total_s = facts.get("cpu_busy_s"), facts.get("cpu_total_s")
    own = [(epoch.cpu_user_s, epoch.cpu_system_s) for epoch in _own_epochs(record)]
    if busy_s is None or not total_s or any(user_s is None or system_s is None for user_s, system_s in own):
        return None
    # The sampler is ours, too, and what is done at the edges of epochs.
    ours_s = sum((user_s or 0) + (system_s or 0) + OWN_CPU_S for user_s, system_s in own)
    share = (busy_s - ours_s) / total_s
    if share <= OTHERS_SHARE:
        return None
    return f"Other processes used {share:.0%} of the CPU time meanwhile: close them, and run again."


def _memory_pressure(record: RunRecord) -> str | None:
    facts = _disturbance(record)
    share, swapped = facts.get("memory_some_share"), facts.get("swapped_in_bytes")
    if (share or 0) <= PRESSURE_SHARE and not swapped:
        return None
    if record.spec.memory_limit_bytes is not None:
        return None
    swap = f", and {swapped / 1e6:.0f} MB came back from swap" if swapped else ""
    return f"Processes waited for memory {share or 0:.0%} of the time{swap}: free memory, or use smaller batches."


def _governor(record: RunRecord) -> str | None:
    governor, driver = (record.environment.get(name) for name in ("cpu_governor", "cpu_scaling_driver"))
    if "powersave" not in str(governor) or driver == "intel_pstate":
        return None
    return f"The CPU's frequency governor is {governor}: choose performance (cpupower frequency-set -g performance)."


def _network(record: RunRecord) -> str | None:
    storage = record.environment.get("storage") or {}
    if not storage.get("network"):
        return None
    return (
        f"The store lies on a network file system ({storage.get('file_system')}): what its server caches cannot be "
        "seen or controlled from here. Choose a --data-dir on a local disk to measure formats alone."
    )


def _foreign_reads(record: RunRecord) -> str | None:
    device = _disturbance(record).get("device_read_bytes")
    epochs = _own_epochs(record)
    own = [epoch.io.storage_read_bytes for epoch in epochs]
    if device is None or any(value is None for value in own) or record.data is None:
        return None
    foreign = device - sum(value for value in own if value is not None)
    delivered = record.data.sample_bytes * sum(epoch.samples for epoch in epochs)
    if foreign <= FOREIGN_READ_SHARE * delivered + OWN_READ_BYTES:
        return None
    return (
        f"The disk delivered {foreign / 1e6:,.0f} MB beyond what the epochs read: if that was another program, close "
        "it and run again."
    )


def _gpu_throttled(record: RunRecord) -> str | None:
    if record.gpu is None or not record.gpu.throttled:
        return None
    reasons = ", ".join(record.gpu.throttle_reasons or [])
    return f"The GPU's clocks were held down ({reasons}): let it cool, or raise its power limit, and run again."


def _gpu_shared(record: RunRecord) -> str | None:
    if record.gpu is None or not record.gpu.shared:
        return None
    return "Other processes used the GPU, too: its memory and utilisation are not this run's alone. End them."


def _sampler_cost(record: RunRecord) -> str | None:
    sampler = record.memory.sampler
    if sampler is None or sampler.cpu_s <= SAMPLER_ALLOWANCE_S + SAMPLER_SHARE * sampler.duration_s:
        return None
    return (
        f"Sampling memory took {sampler.cpu_s / sampler.duration_s:.1%} of a core: with very many processes or pages "
        "it may have slowed the run. Compare epoch times with other runs of the same size only."
    )


def _own_epochs(record: RunRecord) -> list[EpochInfo]:
    """Return the epochs of the process that watched the machine: the last one, where a run went on in another."""
    resumed = record.training.resumed_before if record.training else []
    return [epoch for epoch in record.epochs if not resumed or epoch.epoch >= resumed[-1]]


def _disturbance(record: RunRecord) -> dict[str, Any]:
    facts: dict[str, Any] = record.environment.get("disturbance") or {}
    return facts


_CHECKS: dict[str, Callable[[RunRecord], str | None]] = {
    "synthetic-data": _synthetic,
    "skipped-files": _skipped,
    "fresh-layers": _fresh_layers,
    "not-finite-values": _not_finite,
    "diverged": _diverged,
    "lossy-store": _lossy,
    "no-repeats": _no_repeats,
    "resumed": _resumed,
    "short-epoch": _short,
    "unstable": _unstable,
    "read-amplification": _amplification,
    "kept-samples": _kept,
    "cache-state": _cache,
    "faster-than-ceiling": _faster_than_ceiling,
    "cpu-speed": _canary,
    "cpu-steal": _steal,
    "stood-still": _stopped,
    "other-processes": _others,
    "memory-pressure": _memory_pressure,
    "cpu-governor": _governor,
    "network-storage": _network,
    "foreign-reads": _foreign_reads,
    "gpu-throttled": _gpu_throttled,
    "gpu-shared": _gpu_shared,
    "sampler-cost": _sampler_cost,
}
