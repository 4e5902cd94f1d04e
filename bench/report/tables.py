"""Records become tables: labels and formatted cells, in no particular syntax."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bench.records.groups import equal_runs
from bench.records.metrics import IMPOSSIBLE_SHARE, METRICS, Metric, all_waits_s
from bench.records.record import RunRecord
from bench.report.learning import learning_notes
from bench.report.protocol import memory_limit_text, protocol_parts, samples_text
from bench.specs import augmentation
from bench.specs.spec import NO_MODEL, PREFETCH_BATCHES
from bench.stats import needed_count

RUN_METRICS = tuple(key for key in METRICS if key != "cpu_s")
"""What is shown of a run: everything; CPU time in its two parts."""

COMPARED_METRICS = (
    "epoch_s",
    "over_ceiling",
    "samples_per_s",
    "wait_share",
    "augment_share",
    "first_batch_ms",
    "cpu_s",
    "peak_pss_mb",
    "storage_read_mb",
    "read_call_mb",
    "store_mb",
    "prepare_s",
    "accuracy",
    "test_accuracy",
    "test_macro_f1",
)


@dataclass(frozen=True, slots=True)
class Table:
    """A heading per column, text cells, and notes below. The first ``text_columns`` are words, the rest numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    text_columns: int = 1


def run_label(record: RunRecord) -> str:
    """Return a backend with its reader and, unless that is full, the shuffle: fit for a sentence of its own."""
    order = shuffle_text(record)
    return _backend_label(record) + (f" ({order})" if order else "")


def _backend_label(record: RunRecord) -> str:
    options = record.spec.options if record.store is None else record.store.options
    reader = options.get("reader")
    return record.spec.backend + (f"[{reader}]" if reader else "")


def shuffle_text(record: RunRecord) -> str:
    """Return the order of samples in short; nothing for a full shuffle."""
    spec = record.spec
    if spec.balanced_sampler:
        return "balanced sampling"
    if spec.shuffle == "block":
        return f"block shuffle {spec.block_samples} x {spec.buffer_blocks}"
    return "no shuffle" if spec.shuffle == "none" else ""


def data_label(record: RunRecord, shown: Collection[str] = ()) -> str:
    """Return the data set with where its bytes come from, its options that are to be shown, and a shuffle not full."""
    origin = record.data.origin if record.data else "unknown"
    chosen = "".join(f" {key}={value}" for key, value in record.spec.dataset_options.items() if key in shown)
    order = shuffle_text(record)
    return f"{record.spec.dataset}{chosen} ({origin})" + (f", {order}" if order else "")


def sample_text(record: RunRecord) -> str:
    """Return what a sample is: dtype, shape, and how it was made."""
    if record.data is None:
        return "unknown"
    shape = "x".join(map(str, record.data.shape)) or "single values"
    options = "".join(
        f", {key}={value}" for key, value in record.spec.dataset_options.items() if value not in (None, False)
    )
    return f"{record.data.dtype} {shape}{options}"


def differing_options(records: Sequence[RunRecord]) -> dict[str, set[str]]:
    """Return, for each data set, the options that do not have the same value in all of its records."""
    values: dict[tuple[str, str], set[str]] = {}
    for record in records:
        for key, value in record.spec.dataset_options.items():
            values.setdefault((record.spec.dataset, key), set()).add(str(value))
    differing: dict[str, set[str]] = {record.spec.dataset: set() for record in records}
    for (dataset, key), found in values.items():
        if len(found) > 1:
            differing[dataset].add(key)
    return differing


def options_text(record: RunRecord) -> str:
    """Return the options of a backend, without the reader, as KEY=VALUE words."""
    options = record.store.options if record.store else record.spec.options
    shown = {k: v for k, v in options.items() if k != "reader" and v is not None}
    return " ".join(f"{key}={value}" for key, value in shown.items())


def work_text(record: RunRecord, *, in_full: bool = False) -> str:
    """Return what decides, beside data and order, whether two runs did the same work, in short.

    ``in_full`` names optimizer, learning rate and seed even where they are the usual ones.
    """
    return ", ".join(work_parts(record, in_full=in_full))


def work_parts(record: RunRecord, *, in_full: bool = False) -> list[str]:
    """Return the parts of ``work_text``."""
    spec = record.spec
    parts = [samples_text(record), f"batch {spec.batch_size}", _workers_text(record), _epochs_text(record)]
    parts += [record.device or spec.device, memory_limit_text(record), *protocol_parts(record, in_full=in_full)]
    switches = ("amp", "compile", "channels_last", "deterministic")
    parts += [name.replace("_", " ") for name in switches if getattr(spec, name)]
    parts += [f"augmented by {augmentation.text(spec.augment)}"] if spec.augment else []
    parts += [f"seed {spec.seed}"] if in_full else []
    return [part for part in parts if part]


def _workers_text(record: RunRecord) -> str:
    spec = record.spec
    if not spec.workers:
        return "no workers"
    ahead = "" if spec.prefetch == PREFETCH_BATCHES else f" (prefetch {spec.prefetch})"
    return f"{spec.workers} {spec.worker_kind} workers{ahead}"


def cache_text(record: RunRecord) -> str:
    """Return the state of the page cache that was asked for, and whether it was shown to be there."""
    asked, achieved = record.cache.asked, record.cache.achieved
    if asked != "as-is":
        return f"{asked}: {_ACHIEVED[achieved]}"
    found = record.cache.resident_before
    return asked if found is None else f"{asked} ({found:.0%} in memory)"


def caches_text(records: Sequence[RunRecord]) -> str:
    """Return the state of the page cache of several runs; where each found it otherwise, how much was in memory."""
    as_is = [record for record in records if record.cache.asked == "as-is"]
    shares = [found for record in as_is if (found := record.cache.resident_before) is not None]
    low, high = f"{min(shares, default=0):.0%}", f"{max(shares, default=0):.0%}"
    if low == high and len(shares) == len(as_is):
        return "; ".join(dict.fromkeys(cache_text(record) for record in records))
    unknown = len(as_is) - len(shares)
    span = f"{low if low == high else f'{low[:-1]}…{high}'} in memory" if shares else ""
    span += f", unknown of {unknown} {'run' if unknown == 1 else 'runs'}" if shares and unknown else ""
    told = {id(record): f"as-is ({span})" if span else "as-is" for record in as_is}
    return "; ".join(dict.fromkeys(told.get(id(record)) or cache_text(record) for record in records))


def proven_caches_text(records: Sequence[RunRecord]) -> str:
    """Return the state of the page cache of equal runs, and what was seen of it in the last of them."""
    cache = records[-1].cache
    # Runs that took it as it was may each have seen something else.
    known = cache.proof and (len(records) == 1 or cache.asked != "as-is")
    return caches_text(records) + (f" ({cache.proof})" if known else "")


_ACHIEVED = {
    "verified": "verified",
    "not-achieved": "NOT achieved",
    "unverifiable": "unverifiable",
    "impossible": "impossible",
    None: "unknown",
}


def _epochs_text(record: RunRecord) -> str:
    counted = len(record.measured())
    warmup = " after a warm-up" if counted < len(record.epochs) else ", no warm-up"
    return f"{counted} {'epoch' if counted == 1 else 'epochs'}{warmup}"


def run_table(records: Sequence[RunRecord]) -> Table:
    """Return everything that one run, or several equal runs, measured, a metric a row."""
    record = records[-1]
    rows = []
    for key in RUN_METRICS:
        metric = METRICS[key]
        if metric.over(records) is not None:
            rows.append([metric.label, metric.text(records, spread=True), metric.unit])
        elif _expected(key, record):
            rows.append([metric.label, "n/a", metric.unit])
    notes = [_spread_text(records)]
    waits, needed = len(all_waits_s(record)), needed_count(99)
    if waits < needed:
        notes.append(
            f"Waits of {waits:,} batches: the median takes {needed_count(50)} of them, the 90th percentile "
            f"{needed_count(90)}, the 99th {needed:,}; use more epochs for those."
        )
    notes.append(f"Page cache: {proven_caches_text(records)}.")
    if record.data is not None and record.store is not None:
        kind = "bit for bit" if record.store.digest_ok else "as a lossy store"
        checked = record.data.checked_samples
        delivered = f"; so were {checked:,} samples as delivered after the last epoch" if checked else ""
        notes.append(f"Samples: {sample_text(record)}.")
        notes.append(
            f"Verified: every sample was read back {kind} when the store was built (digest {record.data.digest[:16]}), "
            f"and no file of it had changed when this run began{delivered}."
        )
    return Table(_title(record), ["", "value", "unit"], rows, [*notes, *learning_notes(record)])


def _expected(key: str, record: RunRecord) -> bool:
    """Whether a quantity that is not there is worth a line that says so."""
    if METRICS[key].of in _OF_GPU:
        return record.gpu is not None
    if key in {"loss", "accuracy", "ideal_s", "over_ceiling"}:
        return record.spec.model != NO_MODEL
    return key not in _SELDOM


_SELDOM = {
    "decode_s",
    "worker_start_ms",
    "displacement",
    "class_mixing",
    "augment_share",
    "augment_s",
    "evaluate_s",
    "limited_peak_mb",
    *(key for key in METRICS if key.startswith(("val_", "test_"))),
}
_OF_GPU = {METRICS[key].of for key in RUN_METRICS if key.startswith(("vram_", "gpu_"))}


def _spread_text(records: Sequence[RunRecord]) -> str:
    record = records[-1]
    counted = len(record.measured())
    warmup = " after a warm-up" if counted < len(record.epochs) else ", without a warm-up"
    epochs = f"{counted} {'epoch' if counted == 1 else 'epochs'}{warmup}"
    if len(records) == 1:
        return f"Median (lowest…highest) of {epochs}."
    return f"Median (lowest…highest) of {len(records)} runs in fresh processes, each the median of {epochs}."


def _title(record: RunRecord) -> str:
    spec = record.spec
    work = "loading alone" if spec.model == "none" else f"training {spec.model}"
    count = samples_text(record) or "no samples"
    what = f"{work}, {count}, batch {spec.batch_size}, {_workers_text(record)}"
    return f"{_backend_label(record)} on {data_label(record)}: {what}"


def comparison_table(records: Sequence[RunRecord]) -> Table:
    """Return one row per run or group of equal runs, by what was done, fastest first within that."""
    ok = [r for r in records if r.status == "ok"]
    groups = sorted((group.counted for group in equal_runs(ok)), key=_order)
    firsts = [group[0] for group in groups]
    metrics = [METRICS[key] for key in COMPARED_METRICS if any(METRICS[key].over(group) for group in groups)]
    columns = ["data set", "model", "backend", "options", "cache", "run", *(f"{m.label}, {m.unit}" for m in metrics)]
    shown = differing_options(firsts)
    rows = [
        [
            data_label(group[0], shown[group[0].spec.dataset]),
            group[0].spec.model,
            _backend_label(group[0]),
            options_text(group[0]),
            caches_text(group),
            _runs_text(group),
            *(_cell(m, group) for m in metrics),
        ]
        for group in groups
    ]
    notes = [
        "Epoch times: median (lowest…highest) of the epochs that count, all of one process; of the processes' "
        "medians where a row has several runs. Over the ceiling: n/a where it was not measured, or where epochs seemed "
        "faster than it, which no format can be. The same run in another process differs by more than epochs of one "
        "process do, so small differences between rows of one run mean nothing: `bench compare` tests them."
    ]
    samples = {f"{data_label(r, shown[r.spec.dataset])}: {sample_text(r)}" for r in firsts}
    notes += [f"Samples: {'; '.join(sorted(samples))}."] if samples else []
    notes += [f"Measured on: {machine}." for machine in dict.fromkeys(machine_text(record) for record in firsts)]
    left_out = len(records) - len(ok)
    notes += [f"{left_out} {'run' if left_out == 1 else 'runs'} without a result left out."] if left_out else []
    return Table("Runs", columns, rows, notes, text_columns=6)


def _runs_text(group: Sequence[RunRecord]) -> str:
    return work_text(group[0]) + (f", {len(group)} runs" if len(group) > 1 else "")


def _cell(metric: Metric, group: Sequence[RunRecord]) -> str:
    over = metric.over(group) if metric.key == "over_ceiling" else None
    if over is not None and over.median < -IMPOSSIBLE_SHARE:
        return "n/a"
    return metric.text(group, spread=metric.key == "epoch_s")


def runs_table(names: Sequence[str], records: Sequence[RunRecord]) -> Table:
    """Return a short line for each run, for finding one."""
    rows = [
        [name, data_label(r), r.spec.model, _backend_label(r), cache_text(r), r.status, METRICS["epoch_s"].text([r])]
        for name, r in zip(names, records, strict=True)
    ]
    columns = ["run", "data set", "model", "backend", "cache", "status", "epoch, s"]
    return Table("Runs", columns, rows, text_columns=6)


def _order(group: Sequence[RunRecord]) -> tuple[str, str, int, str, float]:
    record, epoch = group[0], METRICS["epoch_s"].over(group)
    count = record.data.count if record.data else 0
    seconds = epoch.median if epoch else float("inf")
    return data_label(record), record.spec.model, -count, record.cache.asked, seconds


def machine_text(record: RunRecord) -> str:
    """Return what a run ran on, in a line."""
    environment = record.environment
    libraries = environment.get("libraries") or {}
    versions = ", ".join(
        f"{name} {libraries[name]}" for name in ("torch", "numpy", "h5py", "zarr") if name in libraries
    )
    return (
        f"{environment.get('cpu') or 'unknown CPU'}, {environment.get('cpu_count')} cores, "
        f"{(environment.get('memory_bytes') or 0) / 2**30:.0f} GiB RAM, {environment.get('gpu') or 'no GPU'}, "
        f"{environment.get('system')} {environment.get('kernel')}, {environment.get('store_file_system')}, "
        f"Python {environment.get('python')}, {versions}"
    )
