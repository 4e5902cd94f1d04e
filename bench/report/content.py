"""What a data set holds, as tables."""

from __future__ import annotations

from bench.report.tables import Table
from bench.stores.inspection import Inspection

MAX_CLASSES = 500


def content_tables(found: Inspection) -> list[Table]:
    """Return one table about the splits, and one about the classes."""
    return [_splits(found), _classes(found)]


def _splits(found: Inspection) -> Table:
    rows = []
    for split in found.splits:
        schema, content = split.schema, split.content
        shape = "x".join(map(str, schema.shape)) or "single values"
        rows.append(
            [
                schema.split,
                f"{schema.count:,}",
                f"{sum(1 for count in content.class_counts if count)} of {len(schema.classes)}",
                shape,
                schema.dtype,
                "n/a" if content.low is None else f"{content.low:g} … {content.high:g}",
                "n/a" if content.mean is None else f"{content.mean:.4g} ± {content.std:.4g}",
                f"{schema.count * schema.sample_bytes / 1e6:,.1f}",
                f"{split.decoding.decode_s:.2f}",
            ]
        )
    columns = ["split", "samples", "classes", "shape", "dtype", "values", "mean ± std", "decoded, MB", "read in, s"]
    schema = found.splits[0].schema
    notes = [f"Origin: {schema.origin}. Licence: {schema.licence}."]
    chosen = ", ".join(f"{key}={value}" for key, value in found.options.items() if value not in (None, False))
    notes += [f"Options: {chosen}."] if chosen else []
    for split in found.splits:
        skipped, odd = split.decoding.skipped, split.content.not_finite
        notes += [f"Left out of {split.schema.split}: {file.file} ({file.reason})." for file in skipped]
        notes += [f"{odd:,} values of {split.schema.split} are infinite or undefined."] if odd else []
    return Table(found.dataset, columns, rows, notes)


def _classes(found: Inspection) -> Table:
    classes = found.splits[0].schema.classes
    columns = ["class", *(split.schema.split for split in found.splits)]
    rows = [
        [name, *(f"{split.content.class_counts[label]:,}" for split in found.splits)]
        for label, name in enumerate(classes[:MAX_CLASSES])
    ]
    more = len(classes) - len(rows)
    notes = [f"And {more:,} more classes."] if more else []
    return Table("Samples per class", columns, rows, notes)
