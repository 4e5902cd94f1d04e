"""Peak PSS and its parts, against a plug-in that touches 300 MiB of one kind of memory for a moment.

What was there just before, the plug-in asks the kernel itself: the share of libraries that other programs use, too,
differs between equal runs by more than what is to be shown here.
"""

from __future__ import annotations

import pytest
from told import KINDS, Told, measured
from truth_plugins import TOUCHED_BYTES

EXACT = 0.03 * TOUCHED_BYTES
PARTS = {"anonymous": "anon_bytes", "file": "file_bytes", "shared": "shmem_bytes"}
PSS = {"anon_bytes": "Pss_Anon", "file_bytes": "Pss_File", "shmem_bytes": "Pss_Shmem", "peak_pss_bytes": "Pss"}
SHORT_MS = 1000
"""The sampler promises 400 ms and a sample's time: it polls every 200 ms, twice until growth has ended."""

LONG_MS = 3000
"""In addition, the sampler has to learn of a worker that was only just started."""


def assert_grown(told: Told, how: str) -> None:
    (before,) = [act["pss_before"] for act in told.acts if "pss_before" in act][:1]
    for part, name in PSS.items():
        touched = TOUCHED_BYTES if part in {PARTS[how], "peak_pss_bytes"} else 0
        assert getattr(told.record.memory, part) == pytest.approx(before[name] + touched, abs=EXACT), part


def touched(environment, temporary, how: str, ms: int, *more: str) -> Told:
    return measured(environment, temporary, "truth-touches", "--epochs", "1", *more, how=how, ms=ms)


# Others that map the same libraries, as every process with torch does, change the file-backed part.
pytestmark = pytest.mark.alone


@pytest.mark.parametrize("how", PARTS)
def test_a_short_peak_inside_an_epoch_is_in_the_right_part(bench_environment, tmp_path_factory, how: str) -> None:
    assert_grown(touched(bench_environment, tmp_path_factory, how, SHORT_MS), how)


def test_memory_of_a_worker_process_is_counted(bench_environment, tmp_path_factory) -> None:
    told = touched(bench_environment, tmp_path_factory, "anonymous", LONG_MS, *KINDS["fork"][:1], "1")
    assert_grown(told, "anonymous")
