"""What a run on a GPU counts and says, with a CUDA that only notes what is asked of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lessons_here import Told, job_of

from bench.training import trial
from bench.training.trainer import DeviceMemoryError, Trainer

FULL = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which 10.25 MiB is "
    "free. Including non-PyTorch memory, this process has 79.08 GiB memory in use. If reserved but unallocated memory "
    "is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


def test_memory_in_use_is_read_before_anything_creates_a_context_and_again_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[Any] = []
    for name in ("set_device", "synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda _, name=name: done.append(name))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="01-23"))
    monkeypatch.setattr(torch.nn, "Conv2d", lambda *_: SimpleNamespace(to=lambda _: lambda _: done.append("convolve")))
    trial._begin_gpu(torch.device("cpu"), Told(lambda topic, value: done.append((topic, value))))  # type: ignore[arg-type]
    assert done == [
        *(("gpu-watch", "01-23"), "set_device", "convolve", "synchronize"),
        *(("gpu-context", None), "reset_peak_memory_stats"),
    ]


def test_a_gpu_without_room_is_one_line_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError(FULL)

    monkeypatch.setattr(Trainer, "step", step)
    told = Told()
    trial.run_trial(told, job_of(tmp_path, dataset="toys", source="synthetic"), SimpleNamespace(value=0))  # type: ignore[arg-type]
    torch.use_deterministic_algorithms(False)
    (failure,) = told.all("failed")
    assert isinstance(failure.error, DeviceMemoryError)
    assert failure.message == (
        "--device auto: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of "
        "which 10.25 MiB is free. Use a smaller --batch-size, a smaller network or --amp."
    )
