"""Series of runs whose truth is known, for tests of what is said of two days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.comparisons.campaign import plan
from bench.measure.calibration import Calibration
from bench.records.record import CampaignInfo, MemoryInfo, RunRecord, read_record
from bench.regressions.baseline import Measured

TEMPLATE: RunRecord = read_record(Path(__file__).parent / "records" / "version-2.json")
SECONDS = (0.005, 0.008, 0.006)


def run(
    epochs_s: Sequence[float],
    *,
    cell: str = "a",
    block: int = 0,
    control: bool = False,
    speed: float | Sequence[float] = 1.0,
    model: str = "none",
    own_bytes: int = 300_000_000,
    calls: int | None = 100,
    call_bytes: int = 5_000_000,
    wait_share: float = 1.0,
    cpu_share: float | None = None,
    **changes: object,
) -> Measured:
    """A run with these epochs; ``speed`` is by which factor each task of the calibration takes longer."""
    io = TEMPLATE.epochs[-1].io.model_copy(update={"read_calls": calls, "read_call_bytes": call_bytes})
    epochs = [
        TEMPLATE.epochs[-1].model_copy(
            update={
                "epoch": number,
                "warmup": False,
                "epoch_s": epoch_s,
                "wait_s": wait_share * epoch_s,
                "io": io,
                "cpu_user_s": None if cpu_share is None else cpu_share * epoch_s,
                "cpu_system_s": None if cpu_share is None else 0.0,
            }
        )
        for number, epoch_s in enumerate(epochs_s)
    ]
    place = CampaignInfo(id="c", seed=0, blocks=8, block=block, position=0, cell=cell, control=control)
    spec = TEMPLATE.spec.model_copy(update={"model": model})
    record = TEMPLATE.model_copy(
        update={
            "campaign": place,
            "epochs": epochs,
            "spec": spec,
            "status": "ok",
            "memory": MemoryInfo(anon_bytes=own_bytes, shmem_bytes=0),
            **changes,
        }
    )
    factors = [speed] * 3 if isinstance(speed, float) else list(speed)
    seconds = [s * factor for s, factor in zip(SECONDS, factors, strict=True)]
    return Measured(record, Calibration(*seconds, *seconds))


def series(
    times_s: Sequence[Sequence[float]],
    speeds: Sequence[float],
    *,
    slower: Mapping[str, float] | None = None,
    seed: int = 0,
    cells: Sequence[str] = ("a", "b"),
    **changes: object,
) -> list[Measured]:
    """Runs in randomised blocks with a control, one after the other in these times; cells may be slowed down."""
    slots = plan(cells, len(times_s) // (len(cells) + 1), seed)
    found = []
    for slot, epochs_s, speed in zip(slots, times_s, speeds, strict=False):
        factor = (slower or {}).get(slot.cell, 1.0)
        epochs = [factor * epoch_s for epoch_s in epochs_s]
        found.append(run(epochs, cell=slot.cell, block=slot.block, control=slot.control, speed=speed, **changes))
    return found


def simulated(
    random: np.random.Generator, runs: int, *, day: float = 1.0, own: float = 0.03, shared: float = 0.03
) -> tuple[list[list[float]], list[float]]:
    """Epoch times of a day and the machine's speed around each run.

    ``day`` is how slow the machine is, ``own`` the deviation of runs that nothing else shows, ``shared`` that of the
    machine's speed from run to run, which the calibration shows with a deviation of 1 % of its own.
    """
    machine = day * np.exp(random.normal(0, shared, runs))
    times = machine * np.exp(random.normal(0, own, runs))
    epochs = [[t * float(np.exp(abs(random.normal(0, 0.02)))) for _ in range(3)] for t in times]
    return epochs, [float(speed * np.exp(random.normal(0, 0.01))) for speed in machine]
