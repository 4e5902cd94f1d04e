"""What only a GPU can show."""

from __future__ import annotations

import time

import pytest
import torch

from bench.measure.clock import CudaClock
from bench.record import RunRecord
from bench.training import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

RUN = ("run", "--dataset", "toys", "--source", "synthetic", "--data-dir", "data", "--batch-size", "32", "--json")


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


def test_amp_and_deterministic_run_on_the_gpu(bench) -> None:
    losses = []
    for _ in range(2):
        result = bench(*RUN, "--backend", "memmap", "--device", "cuda", "--amp", "--deterministic")
        assert result.returncode == 0, result.stderr
        losses.append([epoch.batch_loss for epoch in RunRecord.model_validate_json(result.stdout).epochs])
    assert losses[0] == losses[1]
