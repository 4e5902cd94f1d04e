"""What happens to memory that is freed, and that Python collects garbage again where anything is measured."""

import gc
import multiprocessing
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lessons_here import job_of

from bench.measure import heap
from bench.runs.observer import _trial

BLOCK_BYTES = 16 * 2**20


def faults_of_reuse(link, keep: bool) -> None:
    kept = heap.keep_freed_memory() if keep else None
    use()
    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        use()
    link.send((kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))


def use() -> None:
    """Allocate several blocks and free them all, as a training step does with its activations."""
    blocks = [bytearray(b"x") * BLOCK_BYTES for _ in range(4)]
    blocks.clear()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_used_again_without_new_pages() -> None:
    context = multiprocessing.get_context("spawn")
    found = {}
    for keep in (False, True):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=faults_of_reuse, args=(send, keep))
        process.start()
        found[keep] = receive.recv()
        process.join()
    if found[True][0] is not True:
        pytest.skip("the C library here has no such setting")
    pages = BLOCK_BYTES // resource.getpagesize()
    assert found[False][1] > 5 * pages, "what this is about"
    assert found[True][1] < pages


@pytest.fixture
def collecting_afterwards() -> Iterator[None]:
    yield
    gc.enable()


@pytest.mark.usefixtures("collecting_afterwards")
def test_garbage_is_collected_from_the_first_measurement_on(
    tmp_path: Path, arrays: Path, trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, dataset=f"npy:{arrays}", epochs=1)
    collecting: dict[str, bool] = {}

    def measured(topic: str, value: Any) -> None:
        collecting.setdefault(topic, gc.isenabled())

    def instead(link: object, job: object, samples_done: object) -> None:
        collecting["begin"] = gc.isenabled()
        trial(job, measured)

    monkeypatch.setattr("bench.training.trial.run_trial", instead)
    _trial(None, job, None)
    assert not collecting.pop("begin"), "while torch is imported"
    assert [collecting[topic] for topic in ("memory", "cache", "epoch-end")] == [True] * 3
