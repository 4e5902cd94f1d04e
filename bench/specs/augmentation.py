"""Samples changed at random before each training step: on the device, after the copy, timed apart from both.

Everything is drawn from a generator of its own, on the device of the batch, which is seeded anew for every batch with
(seed, epoch, number of the batch). So a run gets the same values from every backend, with any workers, and when it
goes on from a checkpoint; and nothing else that is drawn at random changes by it. Another kind of device draws other
values, as it does for dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.contracts.errors import BenchError
from bench.contracts.source import Content

if TYPE_CHECKING:
    from torch import Generator, Tensor, device

NOTHING = "none"

FLIPPED_SHARE = 0.5
PAD_DIVISOR = 8
"""A crop moves by up to an eighth of the side: 4 of 32 pixels, as He et al. (2016) have it."""

FREQUENCY_MASKS = TIME_MASKS = 2
FREQUENCY_SHARE = 27 / 80
LONGEST_TIME_MASK = 70
LARGEST_TIME_SHARE = 0.2
"""Policy SS (Switchboard strong) of Park et al. (2019), whose spectrograms have 80 rows."""


class AugmentationError(BenchError):
    """An augmentation that does not exist, or does not go with the samples."""


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirror each sample left to right with probability 0.5."""
    import torch

    chosen = torch.rand(len(x), generator=generator, device=x.device) < FLIPPED_SHARE
    columns = torch.arange(x.shape[-1], device=x.device)
    taken = torch.where(chosen[:, None], columns.flip(0), columns)
    # Half the time of mirroring all and choosing afterwards.
    return x.gather(3, taken[:, None, None, :].expand(x.shape))


def crop(x: Tensor, generator: Generator) -> Tensor:
    """Surround each sample with zeros (black), an eighth of its side wide, and cut its size out anywhere.

    An eighth is rounded down, but is at least one pixel.
    """
    import torch

    height, width = x.shape[-2:]
    down, right = max(1, height // PAD_DIVISOR), max(1, width // PAD_DIVISOR)
    tops, lefts = (torch.randint(2 * pad + 1, (len(x),), generator=generator, device=x.device) for pad in (down, right))
    padded = torch.nn.functional.pad(x, (right, right, down, down))
    # A view of all windows: (n, channels, tops, lefts, height, width).
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, tops, lefts]


def specaugment(x: Tensor, generator: Generator) -> Tensor:
    """Mask two bands of frequencies and two spans of frames of each sample with its mean (SpecAugment).

    As policy SS of Park et al. (2019), without their warping of time: a band has up to 27 of 80 rows, whatever the
    number of rows; a span up to 70 frames, and up to a fifth of them. Width and place are uniform.
    """
    rows, frames = x.shape[-2:]
    longest = min(LONGEST_TIME_MASK, int(LARGEST_TIME_SHARE * frames))
    bands = _masks(x, FREQUENCY_MASKS, rows, int(FREQUENCY_SHARE * rows), generator)
    spans = _masks(x, TIME_MASKS, frames, longest, generator)
    mean = x.float().mean((1, 2, 3), keepdim=True).to(x.dtype)
    return mean.where(bands[:, None, :, None] | spans[:, None, None, :], x)


def _masks(x: Tensor, count: int, size: int, widest: int, generator: Generator) -> Tensor:
    """Return which of ``size`` places ``count`` masks cover, ``(n, size)``; each has 0 to ``widest`` of them."""
    import torch

    # Double, so that no product is rounded up to what it must stay below.
    drawn = torch.rand((2, len(x), count), generator=generator, device=x.device, dtype=torch.float64)
    widths = (drawn[0] * (widest + 1)).floor()
    starts = (drawn[1] * (size - widths + 1)).floor()
    places = torch.arange(size, device=x.device)
    covered = (places >= starts[..., None]) & (places < (starts + widths)[..., None])
    return covered.any(1)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A change of a batch ``(n, channels, height, width)`` into a new one, and what samples it is meant for."""

    change: Callable[[Tensor, Generator], Tensor]
    content: Content
    refusal: str
    """Why it does not go with samples of the other content."""


AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": Augmentation(flip, "images", "on a spectrogram it would turn time round"),
    "crop": Augmentation(crop, "images", "on a spectrogram it would shift pitches, and fill up with 0 dB"),
    "specaugment": Augmentation(specaugment, "sounds", "it masks frequencies and times, which images do not have"),
}
"""All augmentations, in the order in which they are applied."""


def chosen(value: Any) -> tuple[str, ...]:
    """Return the augmentations that ``flip+crop`` stands for, in the order of the table; none for ``none``.

    Raises ValueError for anything unknown or given twice.
    """
    names: Sequence[str] = value.split("+") if isinstance(value, str) else tuple(value or ())
    if list(names) == [NOTHING]:
        return ()
    for name in names:
        if name not in AUGMENTATIONS:
            known = ", ".join(AUGMENTATIONS)
            raise ValueError(f"{name!r} is no augmentation; choose from {known}, several as flip+crop, or {NOTHING}")
    if len(set(names)) < len(names):
        raise ValueError("each augmentation can be named once")
    return tuple(name for name in AUGMENTATIONS if name in names)


def text(names: Iterable[str]) -> str:
    """Return how a choice is written: ``flip+crop``, or nothing."""
    return "+".join(names)


def require_content(names: Iterable[str], dataset: str, content: Content | None) -> None:
    """Raise AugmentationError where an augmentation makes no sense on samples of that content; None may be anything."""
    for name in names:
        augmentation = AUGMENTATIONS[name]
        if content is not None and augmentation.content != content:
            fitting = text(other for other, one in AUGMENTATIONS.items() if one.content == content)
            raise AugmentationError(
                f"--augment {name} does not go with {dataset}, which has {content}: {augmentation.refusal}. "
                f"For {content} there is: {fitting}."
            )


class Augmenter:
    """Applies augmentations to batches on a device."""

    def __init__(self, names: Sequence[str], seed: int, shape: tuple[int, ...], place: device) -> None:
        """Prepare for samples of a ``shape``. Raises AugmentationError where they have no rows and columns."""
        import torch

        if len(shape) != 3:
            found = "x".join(map(str, shape)) or "single values"
            raise AugmentationError(
                f"--augment {text(names)} needs samples of channels x height x width; these are {found}. Leave it out."
            )
        self._changes = [AUGMENTATIONS[name].change for name in names]
        self._seed = seed
        self._generator = torch.Generator(place)

    def __call__(self, x: Tensor, epoch: int, number: int) -> Tensor:
        """Return batch ``number`` of an epoch, changed; what was given stays as it is."""
        entropy = np.random.SeedSequence([self._seed, epoch, number])
        self._generator.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
        for change in self._changes:
            x = change(x, self._generator)
        return x
