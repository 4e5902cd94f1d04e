"""A grid of samples with the names of their classes, as a PNG file: to see whether the data is what it should be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.source import Schema

if TYPE_CHECKING:
    from PIL.Image import Image

_TILE = 96
_MAX_ASPECT = 2.5
_GAP = 6
_LABEL = 14
_SHEET_WIDTH = 1200
# Anchors of the colour map "viridis" (Smith and van der Walt, matplotlib), from low to high.
_COLOURS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def drawable(schema: Schema) -> bool:
    """Say whether samples can be drawn: planes, or channels of planes, of at least one value."""
    return len(schema.shape) in (2, 3) and 0 not in schema.shape


def draw(path: Path, schema: Schema, examples: list[tuple[int, list[NDArray[Any]]]]) -> None:
    """Draw samples, class by class, into a PNG file that is complete as soon as it is there.

    Bytes of 1 or 3 channels are shown as they are. The first channel of anything else is shown
    in false colours, dark to bright over the range of all samples drawn, low rows (low
    frequencies) at the bottom. Raises OSError when the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = schema.dtype == "uint8" and len(schema.shape) == 3 and schema.shape[0] in (1, 3)
    drawn = [sample for _, samples in examples for sample in samples]
    low, high = (0.0, 255.0) if picture else _range(drawn)
    width, height = _tile_size(schema.shape)
    columns = max(1, min(len(drawn), (_SHEET_WIDTH - _GAP) // (width + _GAP)))
    most = max(len(samples) for _, samples in examples)
    # A class a row where a row has room for all its samples, otherwise one after the other.
    by_class = 1 < most <= columns
    rows = len(examples) if by_class else -(-len(drawn) // columns)
    columns = most if by_class else columns
    size = (_GAP + columns * (width + _GAP), _GAP + rows * (height + _LABEL + _GAP))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    number = 0
    for row_of_class, (label, samples) in enumerate(examples):
        for position, sample in enumerate(samples):
            row, column = (row_of_class, position) if by_class else divmod(number, columns)
            number += 1
            x, y = _GAP + column * (width + _GAP), _GAP + row * (height + _LABEL + _GAP)
            tile = _tile(sample, low, high, picture=picture)
            smooth = Image.Resampling.BOX if tile.width > width else Image.Resampling.NEAREST
            sheet.paste(tile.resize((width, height), smooth), (x, y))
            pen.text((x, y + height), _fitting(schema.classes[label], pen, font, width), "black", font)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        sheet.save(part, "PNG")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _tile_size(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape[-2:]
    aspect = min(_MAX_ASPECT, max(1 / _MAX_ASPECT, width / height))
    return (round(_TILE * aspect), _TILE) if aspect >= 1 else (_TILE, round(_TILE / aspect))


def _range(samples: list[NDArray[Any]]) -> tuple[float, float]:
    values = np.concatenate([sample.reshape(-1).astype(np.float64) for sample in samples])
    finite = values[np.isfinite(values)]
    # Without the extremes, which would leave everything else in one colour.
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 0.0)
    return float(low), float(high)


def _tile(sample: NDArray[Any], low: float, high: float, *, picture: bool) -> Image:
    from PIL import Image

    if picture:
        plane = sample[0] if len(sample) == 1 else sample.transpose(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(plane)).convert("RGB")
    plane = (sample[0] if sample.ndim == 3 else sample).astype(np.float64)
    level = np.nan_to_num((plane[::-1] - low) / ((high - low) or 1.0), nan=0.0).clip(0.0, 1.0)
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level, places, [colour[i] for colour in _COLOURS]) for i in range(3)]
    return Image.fromarray(np.rint(np.stack(channels, axis=-1)).astype(np.uint8))


def _fitting(text: str, pen: Any, font: Any, width: int) -> str:
    shown = text
    while shown and pen.textlength(shown, font) > width:
        shown = shown[:-1]
    return shown if shown == text else f"{shown[:-1]}…"
