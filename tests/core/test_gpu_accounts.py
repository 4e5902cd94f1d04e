"""What a run on a GPU counts and says, with a CUDA that only notes what is asked of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lessons_here import Told

from bench.training import trial


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
