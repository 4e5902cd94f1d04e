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


class PlaceError(BenchError):
    """A folder that nobody knows where to find."""


def places(data_dir: Path | None) -> Places:
    """Return the folder for data, and all folders that may hold raw data: the flag's, $BENCH_DATA, the cache.

    Raises PlatformError where nothing can be measured, as all that needs these folders is for that, and PlaceError
    where a folder lies in a home that is unknown.
    """
    if sys.platform != "linux":
        raise PlatformError(
            f"bench measures by the counters of Linux, so it runs there alone, not on {sys.platform}. Use a machine "
            "with Linux, a container, or WSL 2."
        )
    from platformdirs import user_cache_path

    from bench.runs.runner import Places

    configured = [Path(os.environ["BENCH_DATA"])] if os.environ.get("BENCH_DATA") else []
    search = [_absolute(path) for path in ([data_dir] if data_dir else []) + configured]
    try:
        search.append(user_cache_path("dataset-bench").expanduser().absolute())
    except RuntimeError as error:
        # A user who is in no list of users, as in a container; whoever names a folder needs no home.
        if not search:
            raise PlaceError("This user has no home folder: name one for data with --data-dir.") from error
    search = list(dict.fromkeys(search))
    return Places(search[0], tuple(search))


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise PlaceError(f"{path}: there is no such user. Write the path in full.") from error


def command_line() -> tuple[str, ...]:
    r"""Return the command as it was typed, its own name without the folder.

    Bytes that are no text, which a path may hold and no record can, are written as in ``\udcff``.
    """
    return ("bench", *(argument.encode(errors="backslashreplace").decode() for argument in sys.argv[1:]))
