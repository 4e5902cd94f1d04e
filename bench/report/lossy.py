"""Which methods do not deliver the bytes that they were given, as those of JPEG files do not."""

from __future__ import annotations

from collections.abc import Iterable

from bench.records.record import RunRecord


def lossy_note(named: Iterable[tuple[str, RunRecord]], what: str = "from the other methods") -> str:
    """Return a sentence on the lossy ones of some methods, each with a run of it; nothing where there are none.

    ``what`` ends what is said of them: that their samples are not the same as those.
    """
    found = {
        name: record.store.lossy.psnr_db
        for name, record in named
        if record.store is not None and record.store.lossy is not None
    }
    if not found:
        return ""
    listed = ", ".join(f"{name} (PSNR {psnr_db:.1f} dB)" for name, psnr_db in found.items())
    return f"LOSSY, so not the same samples as {what}: {listed}."
