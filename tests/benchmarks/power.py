"""How often a comparison claims a difference, by true difference, noise and number of blocks.

    python tests/benchmarks/power.py [--repeats 500] [--blocks 6 8 12] [--noise 0.01 0.03 0.1] [--series FILE]

Each repeat is a campaign of two cells and the control, whose epoch times are simulated in the order of its plan and
judged by ``bench.comparisons.comparison.compare``. A difference of 0 % gives the rate of false claims, others the
power.
"""

# ruff: noqa: T201 - a script for a terminal
from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.comparisons.campaign import Slot, plan
from bench.comparisons.comparison import Comparison, compare
from bench.records.record import CampaignInfo, RunRecord, read_record

CORE = Path(__file__).parent.parent / "core"
TEMPLATE = CORE / "records" / "version-1.json"
SERIES = CORE / "series" / "quiet.json"
BUSY_SERIES = CORE / "series" / "busy.json"
CELLS = ("a", "b")
DRIFT = 0.05
KINDS = ("independent", "drift", "AR(0.9)", "all three")


def log_noise(random: np.random.Generator, count: int, kind: str, noise: float) -> np.ndarray:
    """Logarithms of ``count`` run times in the order of the runs; ``noise`` is the deviation from run to run.

    The drift rises by 5 % over the campaign, AR(0.9) is stationary with the deviation ``noise``.
    """
    independent = random.normal(0, noise, count)
    drift = np.linspace(0, np.log1p(DRIFT), count)
    correlated = np.empty(count)
    correlated[0] = random.normal(0, noise)
    for step in range(1, count):
        correlated[step] = 0.9 * correlated[step - 1] + random.normal(0, noise * np.sqrt(1 - 0.9**2))
    sums = (independent, independent + drift, correlated, independent + drift + correlated)
    return dict(zip(KINDS, sums, strict=True))[kind]


def simulated(template: RunRecord, kind: str, noise: float, blocks: int, seed: int, slowdown: float) -> Comparison:
    """Return what is said of one campaign in which cell b takes ``1 + slowdown`` times as long as a."""
    slots = plan(CELLS, blocks, seed)
    times = np.exp(log_noise(np.random.default_rng(seed), len(slots), kind, noise))
    return judged(template, slots, [[time] for time in times], seed, slowdown)


def judged(
    template: RunRecord, slots: Sequence[Slot], epochs_s: Sequence[Sequence[float]], seed: int, slowdown: float
) -> Comparison:
    """Return what is said of runs with these epoch times, those of cell b slowed down."""
    records = []
    for slot, times_s in zip(slots, epochs_s, strict=True):
        slower = 1 + slowdown * (slot.cell == "b")
        epochs = [template.epochs[-1].model_copy(update={"epoch_s": time_s * slower}) for time_s in times_s]
        place = CampaignInfo(
            id="power", seed=seed, blocks=slots[-1].block + 1, block=slot.block, position=slot.position,
            cell=slot.cell, control=slot.control,
        )  # fmt: skip
        records.append(template.model_copy(update={"campaign": place, "epochs": epochs}))
    return compare(records)


def recorded(template: RunRecord, series: Path, blocks: int, slowdown: float) -> Iterator[Comparison]:
    """Yield what is said of one campaign after the other that a recorded series of equal runs has room for."""
    runs = json.loads(series.read_text())["runs_epoch_s"]
    size = blocks * (len(CELLS) + 1)
    for seed, start in enumerate(range(0, len(runs) - size + 1, size)):
        yield judged(template, plan(CELLS, blocks, seed), runs[start : start + size], seed, slowdown)


def verdicts(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Return the share of each verdict on cell b, and of warnings about the control."""
    said = [comparison.contrasts[0].verdict for comparison in comparisons]
    shares = {verdict: said.count(verdict) / len(said) for verdict in ("faster", "slower", "no difference shown")}
    return shares | {"warned": sum(bool(comparison.warnings) for comparison in comparisons) / len(said)}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--blocks", type=int, nargs="+", default=[6, 8, 12])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03, 0.1])
    parser.add_argument("--slowdown", type=float, nargs="+", default=[0, 0.02, 0.05, 0.1, 0.2])
    parser.add_argument("--series", type=Path, default=SERIES, help="recorded epoch times of equal runs")
    arguments = parser.parse_args()
    template = read_record(TEMPLATE)
    print("Share of campaigns in which cell b is called slower (faster), by how much slower it is.\n")
    print("| noise | blocks | campaigns | control warns |", *(f"{slowdown:.0%} |" for slowdown in arguments.slowdown))
    print("|---|--:|--:|--:|" + "--:|" * len(arguments.slowdown))
    for kind, noise, blocks in itertools.product(KINDS, arguments.noise, arguments.blocks):
        rows = [
            [simulated(template, kind, noise, blocks, seed, slowdown) for seed in range(arguments.repeats)]
            for slowdown in arguments.slowdown
        ]
        _print_row(f"{kind}, {noise:.0%}", blocks, rows)
    for blocks in arguments.blocks:
        rows = [list(recorded(template, arguments.series, blocks, slowdown)) for slowdown in arguments.slowdown]
        _print_row("recorded series", blocks, rows)


def _print_row(noise: str, blocks: int, rows: Sequence[Sequence[Comparison]]) -> None:
    shares = [verdicts(row) for row in rows]
    cells = (f"{share['slower']:.1%} ({share['faster']:.1%}) |" for share in shares)
    print(f"| {noise} | {blocks} | {len(rows[0])} | {shares[0]['warned']:.1%} |", *cells, flush=True)


if __name__ == "__main__":
    main()
