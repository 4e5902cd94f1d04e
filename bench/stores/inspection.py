"""Looking into a data set: what each split holds, and a picture of some samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.source import Progress, SampleBlock, Schema, Split
from bench.specs.spec import DataSpec
from bench.stores import contact_sheet
from bench.stores.content import Content, Decoding
from bench.stores.prepare import disk_errors
from bench.stores.store import StoreError
from bench.stores.truth import truth_of

MAX_TILES = 96
MAX_PER_CLASS = 8
MAX_CLASSES = 200


@dataclass(frozen=True, slots=True)
class SplitContent:
    """One split of a data set."""

    schema: Schema
    content: Content
    decoding: Decoding


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a data set holds; ``sheet`` is the picture that was drawn, None where samples are no pictures."""

    dataset: str
    options: dict[str, Any]
    splits: list[SplitContent]
    sheet: Path | None
    sheet_split: Split


def inspect(spec: DataSpec, data_dir: Path, search: tuple[Path, ...], sheet: Path, progress: Progress) -> Inspection:
    """Read all splits of a data set, and draw samples of the first one into the PNG file ``sheet``.

    Raises:
        SourceError: the raw data is missing, damaged or unavailable.
        StoreError: the disk refuses the cache or the picture.
    """
    with disk_errors(data_dir):
        source = spec.open_source(search)
        source.prepare(data_dir, progress)
        present = [split for split in source.splits if source.data.has(split)]
        truths = [truth_of(source, spec.model_copy(update={"split": split}), data_dir, progress) for split in present]
        first = truths[0]
        drawn = None
        if contact_sheet.drawable(first.schema):
            with closing(first.samples(source)) as blocks:  # type: ignore[type-var]  # a generator
                tiles = _examples(blocks, first.content.class_counts)
            _draw(sheet, first.schema, tiles)
            drawn = sheet
    splits = [SplitContent(truth.schema, truth.content, truth.decoding) for truth in truths]
    return Inspection(spec.dataset, spec.dataset_options, splits, drawn, present[0])


def _draw(sheet: Path, schema: Schema, tiles: list[tuple[int, list[NDArray[Any]]]]) -> None:
    try:
        contact_sheet.draw(sheet, schema, tiles)
    except OSError as error:
        raise StoreError(f"{sheet} cannot be written: {error.strerror or error}. Choose another --sheet.") from error


def _examples(blocks: Iterator[SampleBlock], class_counts: tuple[int, ...]) -> list[tuple[int, list[NDArray[Any]]]]:
    """Return the first samples of each class, reading no more than is needed for them."""
    present = [label for label, count in enumerate(class_counts) if count][:MAX_CLASSES]
    each = max(1, min(MAX_PER_CLASS, MAX_TILES // len(present)))
    wanted = {label: min(each, class_counts[label]) for label in present}
    found: dict[int, list[NDArray[Any]]] = {label: [] for label in present}
    missing = sum(wanted.values())
    for x, y in blocks:
        for label in wanted.keys() & set(np.unique(y).tolist()):
            take = np.flatnonzero(y == label)[: wanted[label] - len(found[label])]
            found[label] += [x[i].copy() for i in take]
            missing -= len(take)
        if not missing:
            break
    return list(found.items())
