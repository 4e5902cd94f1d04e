"""What puts a run's numbers in doubt: typed warnings, each with what to do about it."""

from __future__ import annotations

from collections.abc import Callable

from bench.record import RunRecord, WarningInfo
from bench.stats import summarise

SHORT_EPOCH_S = 1.0
UNSTABLE_SPREAD = 0.10
AMPLIFIED = 2.0


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


def _not_finite(record: RunRecord) -> str | None:
    if record.data is None or not record.data.not_finite:
        return None
    return (
        f"{record.data.not_finite:,} values of the data are infinite or undefined, so losses are, too: "
        "repair them, or measure loading alone with --model none."
    )


def _lossy(record: RunRecord) -> str | None:
    if record.store is None or record.store.lossy is None:
        return None
    psnr = record.store.lossy.psnr_db
    return f"The store is lossy (PSNR {psnr:.1f} dB): it does not deliver the same bytes as the other formats."


def _no_repeats(record: RunRecord) -> str | None:
    if record.status != "ok" or len(record.measured()) > 1:
        return None
    return "Only one epoch counts, so the spread is unknown: use --epochs 4 or more."


def _worker_start(record: RunRecord) -> str | None:
    if record.status != "ok" or not record.spec.workers or len(record.epochs) > 1:
        return None
    return "The only epoch includes the start of the workers: use --epochs 2 or more."


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
    return (
        f"Read calls moved {ratios.median:.1f} times the bytes that were delivered: the store is read in pieces larger "
        "than a sample. Smaller chunks make a shuffled epoch cheaper."
    )


def _cache(record: RunRecord) -> str | None:
    if record.status != "ok":
        return None
    return "The page cache was left as it was: what was not read from storage came from memory. Compare like with like."


_CHECKS: dict[str, Callable[[RunRecord], str | None]] = {
    "synthetic-data": _synthetic,
    "skipped-files": _skipped,
    "not-finite-values": _not_finite,
    "lossy-store": _lossy,
    "no-repeats": _no_repeats,
    "worker-start": _worker_start,
    "short-epoch": _short,
    "unstable": _unstable,
    "read-amplification": _amplification,
    "cache-not-controlled": _cache,
}
