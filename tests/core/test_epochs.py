"""Every epoch reads the store anew: what a reader keeps within an epoch is no part of the next one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.runs.in_process import Prepared, spec_of

SAMPLES, SAMPLE_BYTES = 1200, 48 * 48
"""Less than what HDF5 and our readers keep within an epoch."""


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples that no codec makes smaller."""
    folder = tmp_path_factory.mktemp("noise")
    np.save(folder / "x.npy", np.random.default_rng(5).integers(0, 256, (SAMPLES, 1, 48, 48)).astype(np.uint8))
    np.save(folder / "y.npy", np.arange(SAMPLES) % 7)
    return folder


def read_by_calls() -> int:
    """Bytes that this process has read by system calls, as the kernel counts them."""
    return int(re.search(r"^rchar: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="needs procfs")
@pytest.mark.parametrize("shuffle", ["full", "block"])
@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("zarr", {"chunk": 16}),
        ("zarr", {"chunk": 16, "codec": "zstd"}),
        ("zarr", {"chunk": 16, "codec": "blosc"}),
        ("zarr", {"chunk": 16, "shard": 64}),
        ("zarr", {"chunk": 16, "reader": "naive"}),
        ("hdf5", {}),
        ("hdf5", {"chunk": 16}),
        ("hdf5", {"chunk": 16, "compression": "gzip"}),
        ("hdf5", {"chunk": 16, "reader": "naive"}),
        ("hdf5", {"chunk": 16, "compression": "gzip", "reader": "naive"}),
        ("filesystem", {"format": "png"}),
        ("filesystem", {"format": "npy"}),
        ("filesystem", {"format": "npy", "reader": "naive"}),
    ],
    ids=str,
)
def test_every_epoch_reads_the_store(
    noise: Path, tmp_path: Path, backend: str, options: dict[str, object], shuffle: str
) -> None:
    prepared = Prepared(spec_of(backend, options, f"npy:{noise}", shuffle=shuffle, batch_size=64), tmp_path)
    prepared.start()
    try:
        prepared.epoch()
        for _ in range(2):
            before = read_by_calls()
            assert prepared.epoch() == SAMPLES
            assert read_by_calls() - before > 0.9 * SAMPLES * SAMPLE_BYTES
    finally:
        prepared.close()
