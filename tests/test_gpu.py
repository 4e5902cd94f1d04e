"""What only a GPU can show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.contracts.backend import BackendError
from bench.contracts.source import SampleBlock, Schema
from bench.loaders.cupy_ import CupyBackend, CupyOptions
from bench.loaders.cupy_device import CudaDevice
from bench.measure import gpu as gpu_sensors
from bench.measure.clock import CudaClock
from bench.records.record import RunRecord
from bench.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

RUN = ("run", "--dataset", "toys", "--source", "synthetic", "--data-dir", "data", "--batch-size", "32", "--json")
CUPY_RUNS = [("cupy", "--option", "mode=resident"), ("cupy", "--option", "mode=staged")]


@pytest.mark.parametrize(
    "workers", [(), ("--workers", "2"), ("--workers", "2", "--worker-kind", "thread")], ids=["0", "process", "thread"]
)
def test_a_run_on_the_gpu_accounts_for_its_time_and_memory(bench, workers: tuple[str, ...]) -> None:
    result = bench(*RUN, "--backend", "memmap", "--device", "cuda", *workers)
    assert result.returncode == 0, result.stderr
    record = RunRecord.model_validate_json(result.stdout)
    assert record.device == "cuda:0"
    assert record.gpu.torch_peak_allocated_bytes > 0
    assert record.gpu.torch_peak_reserved_bytes >= record.gpu.torch_peak_allocated_bytes
    for epoch in record.epochs:
        assert len(epoch.batch_wait_s) == 10
        assert epoch.wait_s + epoch.copy_s + epoch.compute_s == pytest.approx(epoch.epoch_s, rel=0.01)
    assert record.ideal.wait_s < record.ideal.epoch_s / 2
    # What NVML shows in a container may be nothing: then it has to be unknown, not zero.
    assert record.gpu.context_bytes is None or record.gpu.context_bytes > 50e6
    assert record.gpu.utilisation is None or 0 <= record.gpu.utilisation <= 1
    assert record.gpu.temperature_c is None or 10 < record.gpu.temperature_c < 110
    assert record.gpu.energy_j is None, "these epochs are far too short for the sensor"
    assert record.environment["libraries"]["nvidia-driver"] == gpu_sensors.driver_version()


def test_memory_of_the_device_grows_by_what_is_held(bench) -> None:
    """The growth that NVML sees is at least what torch reserved beyond the context and its first workspaces."""
    result = bench(*RUN, "--backend", "memmap", "--device", "cuda", "--model", "resnet18")
    gpu = RunRecord.model_validate_json(result.stdout).gpu
    if gpu.device_used_delta_bytes is None:
        pytest.skip("NVML does not show the memory in use here")
    assert gpu.device_used_delta_bytes > 0.5 * gpu.torch_peak_reserved_bytes


def test_waiting_is_the_time_in_which_the_gpu_has_nothing_to_do() -> None:
    device = torch.device("cuda", 0)

    def slow():
        for _ in range(5):
            time.sleep(0.05)
            yield torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)

    phases = Trainer(None, device, amp=False).epoch(slow(), CudaClock(), lambda samples: None).phases
    assert phases.wait_s == pytest.approx(0.25, rel=0.1)
    assert phases.epoch_s == pytest.approx(phases.wait_s + phases.copy_s + phases.compute_s, rel=0.01)


def test_augmenting_on_the_gpu_is_timed_apart_and_the_same_again(bench) -> None:
    losses = []
    for backend in ("memmap", "hdf5"):
        flags = ("--device", "cuda", "--deterministic", "--augment", "flip+crop+specaugment")
        result = bench(*RUN, "--backend", backend, *flags)
        assert result.returncode == 0, result.stderr
        record = RunRecord.model_validate_json(result.stdout)
        for epoch in (*record.epochs, record.ideal):
            parts_s = epoch.wait_s + epoch.copy_s + epoch.augment_s + epoch.compute_s
            assert parts_s == pytest.approx(epoch.epoch_s, rel=0.01)
            assert epoch.augment_s > 0
        losses.append([epoch.batch_loss for epoch in record.epochs])
    assert losses[0] == losses[1]


def test_amp_and_deterministic_run_on_the_gpu(bench) -> None:
    losses = []
    for _ in range(2):
        result = bench(*RUN, "--backend", "memmap", "--device", "cuda", "--amp", "--deterministic")
        assert result.returncode == 0, result.stderr
        losses.append([epoch.batch_loss for epoch in RunRecord.model_validate_json(result.stdout).epochs])
    assert losses[0] == losses[1]


def test_training_and_evaluation_are_the_same_however_batches_come_to_the_gpu(bench) -> None:
    pytest.importorskip("cupy")
    found = []
    for backend in (("memmap", "--workers", "2", "--worker-kind", "thread"), *CUPY_RUNS):
        result = bench(*RUN, "--device", "cuda", "--deterministic", "--val", "0.2", "--backend", *backend)
        assert result.returncode == 0, result.stderr
        record = RunRecord.model_validate_json(result.stdout)
        for epoch in record.epochs:
            assert epoch.wait_s + epoch.copy_s + epoch.compute_s == pytest.approx(epoch.epoch_s, rel=0.01)
        if "cupy" in backend:
            assert record.reader["ring_bytes"] > 0
        scores = [(info.loss, info.accuracy) for info in record.validation]
        found.append(([epoch.batch_loss for epoch in record.epochs], scores))
    assert len(found[0][1]) == 3
    assert found[1:] == found[:1] * len(CUPY_RUNS)


# The backend cupy

CUDA = torch.device("cuda", 0)
PHOTOS = 5_000


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    root = tmp_path_factory.mktemp("cupy")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (PHOTOS, 3, 32, 32), dtype=np.uint8)
    y = rng.integers(0, 10, PHOTOS)
    schema = Schema("photos", "train", PHOTOS, (3, 32, 32), "uint8", tuple("abcdefghij"), "none", "local")
    CupyBackend(CupyOptions()).write([SampleBlock(x, y)], schema, root)
    return root, x, y


@pytest.fixture(params=["resident", "mapped", "staged", "gds", "auto"])
def reader(request: pytest.FixtureRequest, photos: tuple[Path, np.ndarray, np.ndarray]) -> Iterator[Any]:
    pytest.importorskip("cupy")
    if request.param == "gds":
        pytest.importorskip("kvikio")
    found = CupyBackend(CupyOptions(mode=request.param)).open(photos[0])
    try:
        found.open_device(CUDA)
    except BackendError as error:
        if request.param != "mapped" or "cannot be registered" not in str(error):
            raise
        pytest.skip(str(error))
    yield found
    found.close_device()


def test_cupy_and_torch_share_memory_and_its_statistics() -> None:
    pytest.importorskip("cupy")
    before = torch.cuda.memory_allocated(CUDA)
    device = CudaDevice(CUDA)
    with device.on(device.current_stream()):
        array = device.empty((1000, 3072), np.uint8)
    assert torch.cuda.memory_allocated(CUDA) - before >= array.nbytes
    tensor = device.tensor(array)
    assert tensor.data_ptr() == array.data.ptr
    tensor.fill_(7)
    torch.cuda.synchronize()
    assert int(array.min()) == int(array.max()) == 7
    del array, tensor
    assert torch.cuda.memory_allocated(CUDA) == before


def test_every_mode_delivers_the_bytes_of_the_store(reader: Any, photos: tuple[Path, np.ndarray, np.ndarray]) -> None:
    _, x, y = photos
    for epoch in range(2):
        order = np.random.default_rng(epoch).permutation(PHOTOS)
        batches = [order[start : start + 256] for start in range(0, PHOTOS, 256)]
        for indices, (x_device, y_device) in zip(batches, reader.device_batches(iter(batches), CUDA), strict=True):
            assert x_device.device == CUDA
            assert x_device.is_contiguous()
            np.testing.assert_array_equal(x_device.cpu().numpy(), x[indices])
            np.testing.assert_array_equal(y_device.cpu().numpy(), y[indices])


def test_ten_thousand_batches_on_two_streams_are_whole(
    reader: Any, photos: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    _, x, y = photos
    count, batch = 10_000, 64
    weights = torch.randint(1, 1000, (batch, 3072), device=CUDA)
    truth_x = torch.from_numpy(x).to(CUDA).reshape(PHOTOS, -1)
    truth_y = torch.from_numpy(y).to(CUDA)
    order = np.random.default_rng(1).integers(0, PHOTOS, (count, batch))
    found, expected = torch.zeros(2, count, 2, dtype=torch.int64, device=CUDA)
    busy = torch.ones(1024, 1024, device=CUDA)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(CUDA), torch.cuda.Stream(CUDA)]
    batches = reader.device_batches(iter(order), CUDA)
    for number in range(count):
        with torch.cuda.stream(streams[number % 2]):
            x_device, y_device = next(batches)
            if number % 7 == 0:
                # The consumer falls behind: now a slot could be overwritten too early.
                torch.mm(busy, busy)
            found[number, 0] = (x_device.reshape(batch, -1) * weights).sum()
            found[number, 1] = (y_device * weights[:, 0]).sum()
    batches.close()
    torch.cuda.synchronize()
    for number in range(count):
        indices = torch.from_numpy(order[number]).to(CUDA)
        expected[number, 0] = (truth_x[indices] * weights).sum()
        expected[number, 1] = (truth_y[indices] * weights[:, 0]).sum()
    assert torch.equal(found, expected)


def test_facts_tell_what_was_opened(reader: Any) -> None:
    facts = reader.facts()
    size = PHOTOS * (3072 + 8)
    assert facts["set_bytes"] == size
    assert facts["load_s"] > 0
    assert facts["chosen"] == ("resident" if facts["mode"] == "auto" else facts["mode"])
    assert facts["resident_bytes"] == {"resident": size, "staged": 0}.get(facts["chosen"], 8 * PHOTOS)
    if facts["chosen"] == "gds":
        assert facts["copied"] == facts["kvikio"]["path"]
