"""What the harness itself adds to an epoch of 200 batches of 5 ms.

    python tests/benchmarks/harness_cost.py [--pairs 12]

A: a bare loop over batches that each keep the CPU busy for 5 ms. B: the same batches through the loader, the trainer,
the clock and the counters, while the sampler watches, as in a run. A and B take turns in one process. What counts is
the median batch, which other programs seldom interrupt, and the CPU time of the sampler within B, as if it had always
taken the core of the training process away.
"""

# ruff: noqa: T201 - a script for a terminal
from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench import loading
from bench.contracts.reader import Indices, Reader
from bench.loading import order
from bench.measure import probes
from bench.measure.clock import make_clock
from bench.measure.sampler import Sampler
from bench.specs.spec import RunSpec, make_spec
from bench.training.trainer import Trainer

BATCHES = 200
BATCH_SIZE = 128
BATCH_S = 0.005
LIMIT = 0.01


class Busy(Reader):
    """A reader whose batches take a fixed time."""

    def __init__(self) -> None:
        super().__init__(BATCHES * BATCH_SIZE, (3, 32, 32), np.dtype(np.uint8))

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:  # nothing is read
        until = time.perf_counter() + BATCH_S
        while time.perf_counter() < until:
            pass


@dataclass(frozen=True, slots=True)
class Pair:
    """When each batch ended, both ways, and the share of a core that the sampler took during the second."""

    bare_at: list[float]
    measured_at: list[float]
    sampler_share: float

    @property
    def added_s(self) -> float:
        """What the harness added to the median batch."""
        return median_s(self.measured_at) - median_s(self.bare_at)

    @property
    def cost(self) -> float:
        """The share of an epoch that the harness takes."""
        return self.added_s / median_s(self.bare_at) + self.sampler_share

    @property
    def epochs_ratio(self) -> float:
        """The whole epochs, with all that disturbed them."""
        return (self.measured_at[-1] - self.measured_at[0]) / (self.bare_at[-1] - self.bare_at[0])


def median_s(ends_at: list[float]) -> float:
    """Return what the median batch took."""
    return statistics.median(end - begin for begin, end in itertools.pairwise(ends_at))


def bare(reader: Busy, spec: RunSpec) -> list[float]:
    """Run a plain loop over the batches."""
    x = torch.zeros(BATCH_SIZE, 3, 32, 32, dtype=torch.uint8)
    y = torch.zeros(BATCH_SIZE, dtype=torch.int64)
    ends_at = []
    for indices in order.batch_indices(spec, len(reader), 0):
        reader.read_into(indices, x, y)
        ends_at.append(time.perf_counter())
    return ends_at


def measured(reader: Busy, spec: RunSpec) -> tuple[list[float], float]:
    """Run a measured epoch; return when its batches ended, and the share of a core that the sampler took."""
    device = torch.device("cpu")
    trainer, clock = Trainer(None, device, amp=False), make_clock(device)
    loader = loading.make_loader(reader, spec)
    done = multiprocessing.get_context("spawn").RawValue("q", 0)

    ends_at = []

    def batch_done(samples: int) -> None:
        done.value += samples
        ends_at.append(time.perf_counter())

    with Sampler(os.getpid()) as sampler:
        # What the first answer takes to come is the sampler's start, which is before the epochs of a run.
        sampler.sample()
        pid = next(child.pid for child in multiprocessing.active_children() if child.name == "bench-sampler")
        cpu_before_s = on_cpu_s(pid)
        before = probes.snapshot_before()
        result = trainer.epoch(loader.epoch(0), clock, batch_done)
        probes.used_between(before, probes.snapshot_after())
        return ends_at, (on_cpu_s(pid) - cpu_before_s) / result.phases.epoch_s


def on_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process with one thread, exact to the nanosecond (proc/PID/schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def main() -> int:
    """Print the result as Markdown; return 1 if the cost is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    count = parser.parse_args().pairs
    spec = make_spec(
        RunSpec, [], dataset="cifar10", backend="memory", model="none", batch_size=BATCH_SIZE, device="cpu"
    )
    reader = Busy()
    bare(reader, spec)
    pairs = [Pair(bare(reader, spec), *measured(reader, spec)) for _ in range(count)]
    cost = statistics.median(pair.cost for pair in pairs)
    rows = {
        "bare batch, µs": [1e6 * median_s(pair.bare_at) for pair in pairs],
        "measured batch, µs": [1e6 * median_s(pair.measured_at) for pair in pairs],
        "added per batch, µs": [1e6 * pair.added_s for pair in pairs],
        "sampler, % of a core": [100 * pair.sampler_share for pair in pairs],
        "cost, % of the epoch": [100 * pair.cost for pair in pairs],
        "whole epochs, measured / bare": [pair.epochs_ratio for pair in pairs],
    }
    print(f"{BATCHES} batches of {1e3 * BATCH_S:g} ms, {count} pairs.\n")
    print("| | median | lowest | highest |\n|---|--:|--:|--:|")
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.4g} | {min(values):.4g} | {max(values):.4g} |")
    verdict = "below" if cost <= LIMIT else "ABOVE"
    print(f"\nThe harness costs {cost:.2%} of the epoch, {verdict} the limit of {LIMIT:.0%}.")
    return int(cost > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
