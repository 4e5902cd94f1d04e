"""What this machine does in three fixed tasks: copying memory, decoding, and a plain loop.

Taken directly before and after each measured run, it tells how fast the machine was then, so that times of different
days can be held against each other. The tasks never change: a change of theirs would be a change of the unit.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache

TASKS = ("copy", "decode", "loop")

COPY_BYTES = 32 * 2**20
"""Larger than most caches of one core, so that memory is what is measured."""

ROUNDS = 9
_DECODED_BYTES = 2**21
_LOOP_STEPS = 200_000


@dataclass(frozen=True, slots=True)
class Calibration:
    """Seconds that each of the :data:`TASKS` took: the median of several times, and the fastest of them.

    The median tells how fast the machine was with all that went on, the fastest how fast when it was left alone.
    """

    copy_s: float
    decode_s: float
    loop_s: float
    fastest_copy_s: float
    fastest_decode_s: float
    fastest_loop_s: float

    def seconds(self, task: str, *, fastest: bool = False) -> float:
        """Return what one of the TASKS took."""
        return self.facts()[f"fastest_{task}_s" if fastest else f"{task}_s"]

    def facts(self) -> dict[str, float]:
        """Return all values as plain data."""
        return asdict(self)


def measure(rounds: int = ROUNDS) -> Calibration:
    """Do each task ``rounds`` times in turns, in this process and on one core; takes about 20 ms a round.

    The decoding is inflating (zlib), which is part of Python: an image library's next version would change the unit.
    """
    tasks: dict[str, Callable[[], object]] = {"copy": _copy, "decode": _decode, "loop": _loop}
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        # Once for nothing: memory is got from the system, and caches are filled.
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            found[name].append(time.perf_counter() - started)
    medians = [statistics.median(found[name]) for name in TASKS]
    return Calibration(*medians, *(min(found[name]) for name in TASKS))


def between(calibrations: Sequence[Calibration]) -> Calibration:
    """Return the speed between calibrations before and after a run: geometric means of medians, and the fastest.

    Raises ValueError for none.
    """
    if not calibrations:
        raise ValueError("no calibration has no mean")
    means = [
        math.exp(statistics.fmean(math.log(calibration.seconds(task)) for calibration in calibrations))
        for task in TASKS
    ]
    fastest = (min(calibration.seconds(task, fastest=True) for calibration in calibrations) for task in TASKS)
    return Calibration(*means, *fastest)


def units() -> dict[str, str]:
    """Return the versions of what does the tasks: where they differ, so does the unit."""
    import numpy as np

    return {
        "copy": f"NumPy {np.__version__}",
        "decode": f"zlib {zlib.ZLIB_RUNTIME_VERSION}",
        "loop": f"Python {sys.version_info.major}.{sys.version_info.minor}",
    }


def _copy() -> None:
    source, target = _buffers()
    target[:] = source


def _decode() -> int:
    return len(zlib.decompress(_encoded()))


def _loop() -> int:
    total = 0
    for step in range(_LOOP_STEPS):
        total += step & 7
    return total


@cache
def _buffers() -> tuple[memoryview, memoryview]:
    import numpy as np

    # Touched, and not zero: pages of zeros may be one and the same page.
    source, target = np.full(COPY_BYTES, 7, np.uint8), np.zeros(COPY_BYTES, np.uint8)
    return source.data, target.data


@cache
def _encoded() -> bytes:
    # A fixed sequence that deflates to about half, made by a linear congruence (Knuth, TAOCP 2, 3.2.1) and no library.
    state, found = 1, bytearray()
    for _ in range(_DECODED_BYTES // 256):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        word = state.to_bytes(4, "little")
        found += bytes(word[place % 4] ^ (place * word[0] >> 6 & 15) for place in range(256))
    return zlib.compress(bytes(found), 6)
