"""Records of ways of storing whose truth is known, and what is advised from them."""

from __future__ import annotations

from pathlib import Path

from bench.comparisons.advice import advise, choose_work
from bench.records.record import CampaignInfo, RunRecord, read_record

TEMPLATE = read_record(Path(__file__).parent / "records" / "version-1.json")
# Eight blocks, each slower than the one before: drift that pairs cancel.
BASE = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
JITTER = [1.0, 1.002, 0.998, 1.001, 0.999, 1.003, 0.997, 1.0]
QUIET = [0.98, 1.02, 0.99, 1.01, 0.985, 1.015, 1.005, 0.995]


def run(
    backend: str,
    epoch_s: float,
    *,
    block: int | None = None,
    control: bool = False,
    store_mb: float = 100,
    files: int = 1,
    ram_mb: float = 500,
    prepare_s: float = 10,
    ideal_s: float | None = None,
    read_mb: float = 0,
    calls: int = 0,
    wait: float = 0.5,
    **spec,
) -> RunRecord:
    """A run whose warm-up would spoil every statistic."""
    io = TEMPLATE.epochs[-1].io.model_copy(update={"storage_read_bytes": int(read_mb * 1e6), "read_calls": calls})
    epochs = [
        TEMPLATE.epochs[-1].model_copy(
            update={"epoch": n, "warmup": n == 0, "epoch_s": t, "wait_s": wait * t, "io": io}
        )
        for n, t in enumerate([1000.0, epoch_s])
    ]
    changed = TEMPLATE.spec.model_copy(update={"backend": backend, "options": {}, "limit": None, **spec})
    store = TEMPLATE.store.model_copy(
        update={"backend": backend, "options": {}, "size_bytes": int(store_mb * 1e6), "file_count": files}
    ).model_copy(update={"prepare_s": prepare_s})
    place = None
    if block is not None:
        place = CampaignInfo(id="c1", seed=3, blocks=8, block=block, position=0, cell=backend, control=control)
    cache = TEMPLATE.cache.model_copy(
        update={"asked": changed.cache, "achieved": "verified" if changed.cache == "cold" else None}
    )
    return TEMPLATE.model_copy(
        update={
            "spec": changed,
            "spec_id": changed.spec_id,
            "epochs": epochs,
            "store": store,
            "cache": cache,
            "campaign": place,
            "memory": TEMPLATE.memory.model_copy(update={"peak_pss_bytes": int(ram_mb * 1e6)}),
            "ideal": None if ideal_s is None else epochs[-1].model_copy(update={"epoch_s": ideal_s}),
            "started_at": f"2026-11-21T00:{block or 0:02}:00.000000+00:00",
        }
    )


def blocks(
    backend: str, ratio: float, *, count: int = 8, twin: bool = False, quiet: float = 1.0, **changes
) -> list[RunRecord]:
    """A run per block, ``ratio`` times the base, and with ``twin`` the control, whose noise is ``quiet`` times 2 %."""
    times = [base * ratio * jitter for base, jitter in zip(BASE, JITTER, strict=True)][:count]
    found = [run(backend, t, block=n, **changes) for n, t in enumerate(times)]
    if twin:
        again = zip(times, QUIET[:count], strict=True)
        found += [
            run(backend, t * (1 + quiet * (q - 1)), block=n, control=True, **changes) for n, (t, q) in enumerate(again)
        ]
    return found


def advice_of(records: list[RunRecord], aim: str = "speed", **options):
    work, others = choose_work(records)
    return advise(work, aim, others, **options)


def backends(groups) -> list[str]:
    return [group.first.spec.backend for group in groups]
