"""What comes from outside the flags: folders from the environment, and the command line as it was typed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contracts.errors import BenchError

if TYPE_CHECKING:
    from bench.runs.runner import Places


class PlatformError(BenchError):
    """A system on which nothing can be measured."""


def places(data_dir: Path | None) -> Places:
    """Return the folder for data, and all folders that may hold raw data: the flag's, $BENCH_DATA, the cache.

    Raises PlatformError where nothing can be measured: all that needs these folders is for that.
    """
    if sys.platform != "linux":
        raise PlatformError(
            f"bench measures by the counters of Linux, so it runs there alone, not on {sys.platform}. Use a machine "
            "with Linux, a container, or WSL 2."
        )
    from platformdirs import user_cache_path

    from bench.runs.runner import Places

    configured = [Path(os.environ["BENCH_DATA"])] if os.environ.get("BENCH_DATA") else []
    candidates = [*([data_dir] if data_dir else []), *configured, user_cache_path("dataset-bench")]
    search = tuple(dict.fromkeys(path.expanduser().absolute() for path in candidates))
    return Places(search[0], search)


def command_line() -> tuple[str, ...]:
    """Return the command as it was typed, its own name without the folder."""
    return ("bench", *sys.argv[1:])
