"""Live proof of ``bench regress``: is a backend that takes 15 % longer flagged, and its unchanged neighbour not?

    python tests/benchmarks/regress_proof.py [--trials 20] [--blocks 8] [--slowdown 0.15] [--out .proof/regress]

It makes a small package with two backends that do the same work in every batch (SHA-256 of a fixed buffer), saves
baselines of both, and holds trials against them in turns. In each, one of the two, chosen by the trial's number, does
so much more of its work. What the command says of the one it should flag and of the one it should not is counted, every
trial's table is kept, and the figures are printed. An hour or so: three runs a block.
"""

# ruff: noqa: T201 - a script for a terminal
from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = '''
"""Two backends of equal work, one file a sample-store: rows in one file, and a fixed amount of hashing per batch."""
import hashlib
from pathlib import Path

import numpy as np
from bench.contracts.backend import Backend
from bench.contracts.options import Options
from bench.contracts.reader import Reader

BUFFER = bytes(range(256)) * 4096
EXTRA = Path(__file__).with_name("extra.txt")


class HashingReader(Reader):
    def __init__(self, root, name):
        self._x, self._y = np.load(root / "x.npy", mmap_mode="r"), np.load(root / "y.npy")
        words = EXTRA.read_text().split() if EXTRA.exists() else ["", "0"]
        self._work = (BUFFER * 2)[: int(len(BUFFER) * (1 + float(words[1]) * (words[0] == name)))]
        super().__init__(len(self._y), self._x.shape[1:], self._x.dtype)

    def read_into(self, indices, x, y):
        for _ in range(16):
            hashlib.sha256(self._work).digest()
        x.numpy()[:], y.numpy()[:] = self._x[indices], self._y[indices]


class Steady(Backend):
    name = "proof-one"
    options_type = Options

    def write(self, samples, schema, root):
        blocks = list(samples)
        np.save(root / "x.npy", np.concatenate([block.x for block in blocks]))
        np.save(root / "y.npy", np.concatenate([block.y for block in blocks]))

    def open(self, root):
        return HashingReader(root, self.name)


class Other(Steady):
    name = "proof-two"
'''
ENTRY_POINTS = "[bench.backends]\nproof-one = proof_backends:Steady\nproof-two = proof_backends:Other\n"
NAMES = ("proof-one", "proof-two")
TIMES = ("epoch", "fastest epoch", "CPU time")
TRIALS_PER_BASELINE = 10


def main() -> None:
    """Run the trials and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--slowdown", type=float, default=0.15)
    parser.add_argument("--out", type=Path, default=Path(".proof/regress"))
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    package = out / "package"
    (package / "proof_backends-1.0.dist-info").mkdir(parents=True, exist_ok=True)
    (package / "proof_backends.py").write_text(PACKAGE)
    (package / "proof_backends-1.0.dist-info/METADATA").write_text("Name: proof-backends\nVersion: 1.0\n")
    (package / "proof_backends-1.0.dist-info/entry_points.txt").write_text(ENTRY_POINTS)
    trials = []
    for number in range(arguments.trials):
        name = f"baseline-{number // TRIALS_PER_BASELINE}"
        if number % TRIALS_PER_BASELINE == 0:
            (package / "extra.txt").unlink(missing_ok=True)
            flags = [
                "--dataset",
                "cifar10",
                "--source",
                "synthetic",
                "--limit",
                "512",
                "--model",
                "none",
                "--batch-size",
                "16",
            ]
            flags += ["--epochs", "4", "--no-ceiling", "--blocks", str(arguments.blocks), "--replace"]
            done = bench(out, "--save", name, *(f"--backend={name}" for name in NAMES), *flags)
            if done.returncode:
                sys.exit(done.stderr)
        slowed = NAMES[number % 2]
        (package / "extra.txt").write_text(f"{slowed} {arguments.slowdown}")
        done = bench(out, name, "--order-seed", str(number), "--summary", str(out / f"trial-{number}.md"))
        trials.append(judged(number, slowed, done, (out / f"trial-{number}.md").read_text()))
        (out / "trials.json").write_text(json.dumps(trials, indent=1))
        print(trials[-1], flush=True)
    hits, false = sum(trial["flagged"] for trial in trials), sum(trial["falsely_flagged"] for trial in trials)
    print(f"{arguments.slowdown:.0%} slower: flagged in {hits} of {len(trials)}. Unchanged: flagged in {false}.")


def bench(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run ``bench regress`` with the package of the two backends."""
    command = [Path(sys.executable).with_name("bench"), "regress", *flags]
    command += ["--data-dir", str(out / "data"), "--results", str(out / "results")]
    path = os.pathsep.join(filter(None, [str(out / "package"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def judged(number: int, slowed: str, done: subprocess.CompletedProcess[str], text: str) -> dict[str, object]:
    """Return what the command said of the slowed backend's epochs, and of anything of the other one."""
    worse = re.findall(r"^- (proof-\w+): (.+) is (?:slower|more): (\S+) ", text, re.MULTILINE)
    return {
        "trial": number,
        "slowed": slowed,
        "exit_code": done.returncode,
        "flagged": any(cell == slowed and metric in TIMES for cell, metric, _ in worse),
        "falsely_flagged": any(cell != slowed or metric not in TIMES for cell, metric, _ in worse),
        "worse": worse,
        "load_1m": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
