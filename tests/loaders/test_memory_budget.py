"""What readers keep stays within its bound, on stores ten times as large: counted by the kernel, in a fresh process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.contracts.backend import Backend
from bench.contracts.source import SampleBlock, Schema
from bench.loaders.chunks import CACHE_BYTES
from bench.loaders.hdf5 import Hdf5Backend, Hdf5Options
from bench.loaders.memmap import MemmapBackend, MemmapOptions
from bench.loaders.zarr_ import ZarrBackend, ZarrOptions

SAMPLE_BYTES = 64 << 10
COUNT = 10 * CACHE_BYTES // SAMPLE_BYTES
BATCH = 16
# The batches themselves, what decoding takes for a moment in two threads, and the heap.
SLACK_BYTES = 48 << 20

READ = f"""
import sys, pickle
import numpy as np

def anonymous_bytes():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10

reader = pickle.loads(bytes.fromhex(sys.argv[1]))
order = np.random.default_rng(0).permutation(len(reader))
if sys.argv[2] == "block":
    # 64 neighbours at a time, in random order.
    order = (order[order % 64 == 0][:, np.newaxis] + np.arange(64)).reshape(-1)
batches = order[: 60 * {BATCH}].reshape(-1, {BATCH})
reader.begin(order)
reader.__getitems__(batches[0][:1])
before = anonymous_bytes()
peak = 0
for batch in batches:
    x, y = reader.__getitems__(batch)
    assert (y.numpy() == batch % 7).all() and (x.numpy()[:, 0] == batch % 251).all()
    peak = max(peak, anonymous_bytes())
print(peak - before)
"""


def blocks() -> Iterator[SampleBlock]:
    for start in range(0, COUNT, 256):
        numbers = np.arange(start, min(start + 256, COUNT))
        # One value a sample: such data takes no time to compress, and as much memory as any when it is decoded.
        yield SampleBlock(np.repeat((numbers % 251).astype(np.uint8)[:, None], SAMPLE_BYTES, axis=1), numbers % 7)


CASES: list[tuple[str, Backend[Any], str]] = [
    ("zarr zstd mapped", ZarrBackend(ZarrOptions(chunk=16, codec="zstd", reader="mapped")), "full"),
    ("zarr zstd library", ZarrBackend(ZarrOptions(chunk=16, codec="zstd", reader="library")), "full"),
    ("zarr library", ZarrBackend(ZarrOptions(chunk=16, reader="library")), "full"),
    ("hdf5 gzip mapped", Hdf5Backend(Hdf5Options(chunk=16, compression="gzip", reader="mapped")), "full"),
    ("hdf5 gzip library", Hdf5Backend(Hdf5Options(chunk=16, compression="gzip", reader="library")), "full"),
    ("hdf5 library in blocks", Hdf5Backend(Hdf5Options(reader="library")), "block"),
    ("memmap", MemmapBackend(MemmapOptions()), "full"),
]


@pytest.mark.parametrize(("backend", "order"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_kept_stays_within_its_bound(backend: Backend[Any], order: str, tmp_path: Path) -> None:
    schema = Schema("budget", "train", COUNT, (SAMPLE_BYTES,), "uint8", tuple("abcdefg"), "none", "local")
    backend.write(blocks(), schema, tmp_path)
    reader = pickle.dumps(backend.open(tmp_path)).hex()
    done = subprocess.run([sys.executable, "-c", READ, reader, order], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < CACHE_BYTES + SLACK_BYTES
