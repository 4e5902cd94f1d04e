"""Parts of a record that say what the store was."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    # As in bench.records.record: the PSNR of a lossy store that lost nothing is infinite.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class Lossy(_Part):
    """How far a lossy store is from its source."""

    psnr_db: float


class StoreInfo(_Part):
    """The store that was read.

    ``size_bytes`` is the sum of its files' sizes, ``allocated_bytes`` what files and folders take of the disk, in whole
    blocks, as ``du`` counts them; None where the file system does not tell, and in older records. ``prepare_s`` is
    the time that writing and syncing it took, without what the source took to hand over its samples; in records of
    before ``allocated_bytes`` that is part of it. Peak and baseline are of the preparing process.
    """

    backend: str
    options: dict[str, Any]
    size_bytes: int
    allocated_bytes: int | None = None
    file_count: int
    prepare_s: float
    prepare_peak_rss_bytes: int
    prepare_baseline_rss_bytes: int
    digest_ok: bool
    lossy: Lossy | None

    @property
    def disk_bytes(self) -> int:
        """What it takes of the disk as far as that is known, else the size of its files."""
        return self.allocated_bytes or self.size_bytes
