"""Records become tables: labels and formatted cells, in no particular syntax."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bench.metrics import METRICS, Metric
from bench.record import RunRecord

RUN_METRICS = (
    "epoch_s",
    "samples_per_s",
    "mb_per_s",
    "wait_share",
    "copy_share",
    "compute_share",
    "first_batch_ms",
    "open_ms",
    "cpu_s",
    "peak_pss_mb",
    "pss_growth_mb",
    "storage_read_mb",
    "read_call_mb",
    "store_mb",
    "files",
    "decode_s",
    "prepare_s",
    "loss",
    "accuracy",
)

COMPARED_METRICS = (
    "epoch_s",
    "samples_per_s",
    "wait_share",
    "first_batch_ms",
    "peak_pss_mb",
    "read_call_mb",
    "store_mb",
    "prepare_s",
    "accuracy",
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
    """Return a backend with its reader, and its other options where they are not the only ones possible."""
    reader = record.spec.options.get("reader")
    return record.spec.backend + (f"[{reader}]" if reader else "")


def data_label(record: RunRecord, shown: Collection[str] = ()) -> str:
    """Return the data set with where its bytes come from, and those of its options that are to be shown."""
    origin = record.data.origin if record.data else "unknown"
    chosen = "".join(f" {key}={value}" for key, value in record.spec.dataset_options.items() if key in shown)
    return f"{record.spec.dataset}{chosen} ({origin})"


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


def work_text(record: RunRecord) -> str:
    """Return what decides whether two runs did the same work, in short."""
    spec = record.spec
    workers = f"{spec.workers} {spec.worker_kind} workers" if spec.workers else "no workers"
    parts = [f"{record.data.count:,} samples" if record.data else "", f"batch {spec.batch_size}", workers]
    parts += [f"{len(record.measured())} epochs", record.device or spec.device]
    parts += [f"shuffle {spec.shuffle}"] if spec.shuffle != "full" else []
    parts += [name for name in ("amp", "deterministic") if getattr(spec, name)]
    return ", ".join(part for part in parts if part)


def run_table(record: RunRecord) -> Table:
    """Return everything that one run measured, a metric a row."""
    rows = []
    for key in RUN_METRICS:
        metric = METRICS[key]
        if metric.of(record) is not None:
            rows.append([metric.label, metric.text(record, spread=True), metric.unit])
        elif key != "decode_s" and (key not in {"loss", "accuracy"} or record.spec.model != "none"):
            rows.append([metric.label, "n/a", metric.unit])
    counted = len(record.measured())
    warmup = " after a warm-up" if counted < len(record.epochs) else ", without a warm-up"
    notes = [f"Median (lowest…highest) of {counted} {'epoch' if counted == 1 else 'epochs'}{warmup}."]
    if record.data is not None and record.store is not None:
        kind = "bit for bit" if record.store.digest_ok else "as a lossy store"
        checked = record.data.checked_samples
        delivered = f"; so were {checked:,} samples as delivered after the last epoch" if checked else ""
        notes.append(f"Samples: {sample_text(record)}.")
        notes.append(
            f"Verified: every sample was read back {kind} when the store was built (digest {record.data.digest[:16]}), "
            f"and its files have not been touched since{delivered}."
        )
    return Table(_title(record), ["", "value", "unit"], rows, notes)


def _title(record: RunRecord) -> str:
    spec = record.spec
    work = "loading alone" if spec.model == "none" else f"training {spec.model}"
    workers = f", {spec.workers} {spec.worker_kind} workers" if spec.workers else ", no workers"
    count = f"{record.data.count:,} samples" if record.data else "no samples"
    return f"{run_label(record)} on {data_label(record)}: {work}, {count}, batch {spec.batch_size}{workers}"


def comparison_table(records: Sequence[RunRecord]) -> Table:
    """Return one row per run, grouped by what was done, fastest first within a group."""
    ok = sorted((r for r in records if r.status == "ok"), key=_order)
    metrics = [METRICS[key] for key in COMPARED_METRICS]
    columns = ["data set", "model", "backend", "options", "run", *(f"{m.label}, {m.unit}" for m in metrics)]
    shown = differing_options(ok)
    rows = [
        [
            data_label(r, shown[r.spec.dataset]),
            r.spec.model,
            run_label(r),
            options_text(r),
            work_text(r),
            *(_cell(m, r) for m in metrics),
        ]
        for r in ok
    ]
    notes = [
        "Epoch times: median (lowest…highest) of the epochs after the warm-up, all of one process. The same run in "
        "another process differs by more than that, so small differences between rows mean nothing."
    ]
    samples = {f"{data_label(r, shown[r.spec.dataset])}: {sample_text(r)}" for r in ok}
    notes += [f"Samples: {'; '.join(sorted(samples))}."] if samples else []
    notes += [f"Measured on: {machine}." for machine in dict.fromkeys(_machine(record) for record in ok)]
    left_out = len(records) - len(ok)
    notes += [f"{left_out} {'run' if left_out == 1 else 'runs'} without a result left out."] if left_out else []
    return Table("Runs", columns, rows, notes, text_columns=5)


def _cell(metric: Metric, record: RunRecord) -> str:
    return metric.text(record, spread=metric.key == "epoch_s")


def runs_table(names: Sequence[str], records: Sequence[RunRecord]) -> Table:
    """Return a short line for each run, for finding one."""
    rows = [
        [name, data_label(r), r.spec.model, run_label(r), r.status, METRICS["epoch_s"].text(r)]
        for name, r in zip(names, records, strict=True)
    ]
    return Table("Runs", ["run", "data set", "model", "backend", "status", "epoch, s"], rows, text_columns=5)


def _order(record: RunRecord) -> tuple[str, str, int, float]:
    epoch = METRICS["epoch_s"].of(record)
    count = record.data.count if record.data else 0
    return data_label(record), record.spec.model, -count, epoch.median if epoch else float("inf")


def _machine(record: RunRecord) -> str:
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
