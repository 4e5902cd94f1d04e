"""How fast every reader delivers batches, as a ratio to what memory allows in the same run.

The limit is ``torch.index_select`` from a uint8 tensor in RAM into a ready buffer, with the same batch size and order.
It is measured directly before and after each pass, and the ratio is that to the mean of both: what a shared machine did
a minute ago says little. Stores are warm, and what is delivered first is compared with the source, byte for byte. Only
an epoch from storage is compared with reading the files in order instead.

    python tests/benchmarks/loaders.py --data FOLDER [--only TEXT] [--out RECORD.json]
    python tests/benchmarks/loaders.py --show RECORD.json [--into README.md]
"""

# ruff: noqa: T201 - a script for a terminal
from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bare
import cold
import numpy as np
import torch
from cases import AHEAD, CASES, COLD, DATA, DATALOADER, WORKERS, Case, Work
from loader_tables import Row, summary, table, words_of
from torch.utils.data import DataLoader

from bench import console, loading
from bench.contracts.reader import BatchReader
from bench.loading import order
from bench.loading.ahead import ReadAhead
from bench.loading.sampler import IndexBatches
from bench.measure import environment, heap, probes
from bench.report import document, render
from bench.specs.spec import RunSpec, make_spec
from bench.stores import prepare
from bench.stores.store import Store

ROUNDS = 5
PASS_S = 0.5
"""How long a pass may take: of what is slower, only the first batches are loaded."""

CPU_S = 0.3
"""How long CPU time is counted at least, as the kernel counts it in steps of 10 ms."""

CHECKED_BATCHES = 20
NAMED = {"torch", "numpy", "h5py", "zarr", "numcodecs", "pillow", "torchcodec"}

Run = Callable[[int], Iterator[loading.Batch]]


class Source:
    """One data set: in RAM, for the limit, and as stores."""

    def __init__(self, data: str, work: Work, folder: Path, source: str) -> None:
        self.data, self.work = data, work
        self._folder, self._source = folder, source
        reader = self.open(Case("", "memory", "library"), self.spec(Case("", "memory", "library")))[1]
        self.x, self.y = reader.__getitems__(np.arange(len(reader)))
        self._flat = self.x.view(len(self.x), -1)
        self._buffer = torch.zeros((work.batch_size, self._flat.shape[1]), dtype=self.x.dtype)

    def spec(self, case: Case, **more: Any) -> RunSpec:
        """Return what a case asks for."""
        fields = {"dataset": self.work.dataset, "batch_size": self.work.batch_size, "limit": self.work.limit}
        fields |= {"source": self._source, "model": "none", "backend": case.backend, **more}
        return make_spec(RunSpec, case.options, dataset_options=self.work.options, **fields)

    def open(self, case: Case, spec: RunSpec) -> tuple[Store, BatchReader]:
        """Prepare a store if there is none, and open it."""
        store = prepare.prepare(spec, self._folder, (self._folder,), console.make_progress(), repair=True)
        return store, spec.open_backend().open(store.root)

    def limit_per_s(self, plan: list[torch.Tensor]) -> float:
        """Return the samples per second of an epoch at the limit.

        Always a whole epoch: a few batches would be over before torch's threads are awake, or lie in the processor's
        cache when they come again.
        """
        started = time.perf_counter()
        for indices in plan:
            out = self._buffer[: len(indices)]
            torch.index_select(self._flat, 0, indices, out=out)
            out[0, 0].item()
        return len(self.y) / (time.perf_counter() - started)

    def check(self, plan: list[torch.Tensor], run: Run) -> None:
        """Compare the first batches with the source, byte for byte."""
        for indices, (x, y) in zip(plan, run(len(plan)), strict=True):
            if not torch.equal(x, self.x[indices]) or not torch.equal(y, self.y[indices]):
                sys.exit(f"{self.data}: delivered other bytes than the source holds")


def pass_s(run: Run, batches: int) -> float:
    """Consume a pass; return seconds."""
    started = time.perf_counter()
    for x, _ in run(batches):
        x.view(-1)[0].item()
    return time.perf_counter() - started


def cpu_s(run: Run, batches: int, pace_s: float) -> float | None:
    """Return the CPU seconds of one pass, those of workers included; None where procfs does not tell."""
    repeats = math.ceil(CPU_S / pace_s)
    before = probes.snapshot_before()
    for _ in range(repeats):
        pass_s(run, batches)
    used = probes.used_between(before, probes.snapshot_after())
    return None if used is None else (used.cpu_user_s + used.cpu_system_s) / repeats


def measure(source: Source, case: Case, workers: str, shuffle: str) -> Row:
    """Measure a case between passes of the limit."""
    spec = source.spec(case, shuffle=shuffle, **WORKERS[workers])
    store, reader = source.open(case, spec)
    plan = [torch.from_numpy(indices) for indices in order.batch_indices(spec, len(source.y), 0)]
    loader = None if workers in {DATALOADER, AHEAD} else loading.make_loader(reader, spec)
    batches_of = IndexBatches(len(source.y), spec.batch_size)
    # Made once, as for a training: it keeps its memory from one epoch to the next.
    ahead = ReadAhead(reader, batches_of)

    def run(batches: int) -> Iterator[loading.Batch]:
        if loader is not None:
            return loader.epoch(0, batches)
        if workers == AHEAD:
            whole = DataLoader(ahead, batch_size=None)
        else:
            whole = DataLoader(reader, batch_size=None, sampler=batches_of)
        # The same order each time, which the check knows.
        batches_of.set_epoch(0)
        return itertools.islice(whole, batches)

    try:
        if loader is not None:
            loader.start()
        if not case.lossy:
            source.check(plan[:CHECKED_BATCHES], run)
        few = min(len(plan), 8)
        each_s = min(pass_s(run, few) for _ in range(2)) / few
        batches = min(len(plan), max(few, int(PASS_S / each_s)))
        taken, ratios, bare_ratios, seconds = plan[:batches], [], [], []
        samples = sum(map(len, taken))
        alone = _bare(source, case, spec, store, taken) if case.bare else None
        pass_s(run, batches)
        for _ in range(ROUNDS):
            before, own_s, after = source.limit_per_s(plan), pass_s(run, batches), source.limit_per_s(plan)
            ratios.append(samples / own_s / ((before + after) / 2))
            seconds.append(own_s)
            if alone is not None:
                bare_ratios.append(alone() / own_s)
        pace_s = statistics.median(seconds)
        used_s = cpu_s(run, batches, pace_s)
    finally:
        if loader is not None:
            loader.close()
    return Row(
        data=source.data,
        case=case.name,
        reader=case.reader,
        workers=workers,
        order=shuffle,
        samples_per_s=samples / pace_s,
        ratios=ratios,
        cpu_s=None if used_s is None else used_s / samples * len(source.y),
        goal=case.goals[workers, shuffle] if source.data == "CIFAR-10" else None,
        bare=case.bare,
        bare_ratios=bare_ratios or None,
    )


def measure_cold(source: Source, case: Case, workers: str) -> Row:
    """Measure a case out of storage, between passes of reading its files in order."""
    spec = source.spec(case, shuffle="full", **WORKERS[workers])
    root = source.open(case, spec)[0].root
    plan = [torch.from_numpy(indices) for indices in order.batch_indices(spec, len(source.y), 0)]

    def opened() -> Callable[[], float]:
        loader = loading.make_loader(spec.open_backend().open(root), spec)
        return lambda: pass_s(lambda batches: loader.epoch(0, batches), len(plan))

    ratios, bare_ratios, seconds = [], [], []
    for _ in range(ROUNDS):
        before, own_s, after = cold.sequential_s(root), cold.epoch_s(root, opened), cold.sequential_s(root)
        ratios.append(len(source.y) / own_s / source.limit_per_s(plan))
        bare_ratios.append((before + after) / 2 / own_s)
        seconds.append(own_s)
    pace = len(source.y) / statistics.median(seconds)
    row = Row(source.data, case.name, case.reader, workers, COLD, pace, ratios, None)
    row.bare, row.bare_ratios = "sequential read", bare_ratios
    return row


def _bare(source: Source, case: Case, spec: RunSpec, store: Store, plan: list[torch.Tensor]) -> Callable[[], float]:
    """Return what takes the seconds of reading or decoding alone, for what these batches need."""
    if case.bare in {"files", "images"}:
        names = {int(path.stem): path for path in store.root.glob("*/*.*")}
        paths = [names[index] for batch in plan for index in batch.tolist()]
        return lambda: (bare.files_s if case.bare == "files" else bare.images_s)(paths)
    assert case.bare is not None  # for the type checker
    length = int(spec.options["chunk"])
    numbers = [int(number) for batch in plan for number in np.unique(batch.numpy() // length)]
    chunk_bytes = length * source.x[0].numel() * source.x.element_size()
    if case.backend == "hdf5":
        chunks = bare.hdf5_chunks(store.root / "data.h5", numbers, case.bare)
    else:
        chunks = bare.zarr_chunks(store.root, numbers, ".0" * (source.x.ndim - 1))
    return lambda: bare.codec_s(str(case.bare), chunks, chunk_bytes)


def main() -> None:
    """Measure, or show a record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with raw data, one folder a set; else found or made up")
    parser.add_argument("--work", type=Path, help="folder for stores; else a temporary one")
    parser.add_argument("--only", action="append", help="only rows with this in data, store, reader or loading")
    parser.add_argument("--out", type=Path, help="write a record")
    parser.add_argument("--show", type=Path, help="measure nothing: show a record")
    parser.add_argument(
        "--summary", action="store_true", help="with --show: the naive and the best way to read each store"
    )
    parser.add_argument("--before", type=Path, help="with --show: an earlier record, to stand beside it")
    parser.add_argument("--into", type=Path, help="with --show: put the table into this document")
    chosen = parser.parse_args()
    if chosen.show is not None:
        record = json.loads(chosen.show.read_text())
        rows = [Row(**row) for row in record["rows"]]
        before = json.loads(chosen.before.read_text()) if chosen.before else {"rows": [], "notes": []}
        older = [note for note in before["notes"] if note not in record["notes"]]
        notes = record["notes"] + [f"Before these readers, {note[:1].lower()}{note[1:]}" for note in older]
        shown = (summary if chosen.summary else table)(rows, notes, [Row(**row) for row in before["rows"]])
        content = render.markdown(shown)
        if chosen.into is None:
            print(content)
        else:
            document.update(chosen.into, "bench loaders", content)
        return
    heap.keep_freed_memory()
    facts = {**environment.machine(), "libraries": environment.libraries()}
    versions = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items() if name in NAMED)
    notes = [
        f"Measured on: {facts['cpu']}, {facts['cpu_count']} cores, {facts['system']} {facts['kernel']}; {versions}."
    ]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for row in measured(chosen.data, chosen.work or Path(temporary), chosen.only or []):
            rows.append(row)
            print(f"{row.words}: {row.samples_per_s:,.0f}/s, {row.ratio:.3f} of the limit", flush=True)
            if chosen.out is not None:
                # After each row: what is interrupted has not been in vain.
                chosen.out.parent.mkdir(parents=True, exist_ok=True)
                record = {"environment": facts, "notes": notes, "rows": [asdict(row) for row in rows]}
                chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{render.markdown(table(rows, notes, []))}")


def measured(data: Path | None, folder: Path, only: list[str]) -> Iterator[Row]:
    """Measure all cases whose words hold all of ``only``."""
    for name, work in DATA.items():
        source = None
        for case in CASES:
            for workers, shuffle in case.goals:
                if all(word in words_of(name, case.name, case.reader, workers, shuffle) for word in only):
                    where = f"local:{data / work.dataset}" if data else "auto"
                    source = source or Source(name, work, folder, where)
                    if shuffle == COLD:
                        yield measure_cold(source, case, workers)
                    else:
                        yield measure(source, case, workers, shuffle)


if __name__ == "__main__":
    main()
