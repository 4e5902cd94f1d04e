"""The set-ups of five studies, as the commands that repeat them.

A study is what its authors fixed: data, networks, optimizer, epochs, splits, augmentation. What it leaves open is left
at the defaults of `bench run`, or stands in a note together with what had to be done differently.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import registry
from bench.contracts.errors import BenchError

Flags = tuple[tuple[str, str | None], ...]
"""Flags with their values, in order; a switch has none."""


class StudyError(BenchError):
    """A study that there is not, or that has no such network."""


@dataclass(frozen=True, slots=True)
class Part:
    """One set-up of a study: each of its networks is trained in the same way.

    That is a `bench run` for each network and backend, or, with ``matrix``, where storage and not what is learnt is the
    question, one `bench matrix`.
    """

    dataset: str
    models: tuple[str, ...]
    flags: Flags
    matrix: bool = False

    def commands(self, backends: Sequence[str], passed_on: Flags) -> list[tuple[str, ...]]:
        """Return the arguments of `bench`, a tuple for each command; flags that are passed on replace our own."""
        replaced = {flag for flag, _ in passed_on}
        flags = (*(pair for pair in self.flags if pair[0] not in replaced), *passed_on)
        which = [[("--backend", name) for name in backends], [("--model", name) for name in self.models]]
        if self.matrix:
            return [_words("matrix", (("--dataset", self.dataset), *which[0], *which[1], *flags))]
        return [
            _words("run", (("--dataset", self.dataset), backend, model, *flags))
            for model in which[1]
            for backend in which[0]
        ]


@dataclass(frozen=True, slots=True)
class Study:
    """What a study asks, its set-ups, and notes on what it leaves open or what differs here."""

    about: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    backends: tuple[str, ...] = ("memmap",)

    @property
    def models(self) -> tuple[str, ...]:
        """All of its networks."""
        return tuple(dict.fromkeys(model for part in self.parts for model in part.models))

    def commands(
        self, backends: Sequence[str] = (), models: Sequence[str] = (), passed_on: Flags = ()
    ) -> list[tuple[str, ...]]:
        """Return the commands, without the word `bench`, that repeat the study or those ``models`` of it.

        Raises StudyError for a model that it has not.
        """
        for model in models:
            if model not in self.models:
                raise StudyError(registry.unknown("network of this study", model, self.models))
        found: list[tuple[str, ...]] = []
        for part in self.parts:
            kept = tuple(model for model in part.models if not models or model in models)
            if kept:
                found += replace(part, models=kept).commands(backends or self.backends, passed_on)
        return found


def _words(command: str, flags: Flags) -> tuple[str, ...]:
    return (command, *(word for flag, value in flags for word in ((flag,) if value is None else (flag, value))))


def command_text(words: Sequence[str]) -> str:
    """Return a command as it is typed."""
    return shlex.join(("bench", *words))


def study(name: str) -> Study:
    """Return a study by its name. Raises StudyError."""
    if name not in STUDIES:
        raise StudyError(registry.unknown("study", name, STUDIES))
    return STUDIES[name]


_ESC_MODELS = ("esc-baseline", "esc-vgg", "esc-lstm", "esc-crnn-attention", "esc-weak", "vgg19")
_FSD_MODELS = ("convnet4", "resnet18-audio", "resnet50-audio")
_GENRE_MODELS = ("genre-cnn", "genre-separable", "genre-deep-separable")
_IMAGE_MODELS = ("cnn", "resnet18", "densenet121")

_ESC: Flags = (
    ("--optimizer", "adam"),
    ("--lr", "0.0003"),
    ("--weight-decay", "0.00001"),
    ("--batch-size", "128"),
    ("--epochs", "10"),
    ("--balanced-sampler", None),
    ("--val", "0.1"),
    ("--test", "test"),
)
_GENRES: Flags = (
    ("--optimizer", "adam"),
    ("--lr", "0.0001"),
    ("--batch-size", "64"),
    ("--epochs", "500"),
    ("--val", "val"),
    ("--test", "test"),
)
_FSD: Flags = (("--optimizer", "radam"), ("--class-weights", None), ("--val", "val"), ("--test", "test"))
_FSD_SUBSET: Flags = (*_FSD, ("--batch-size", "32"), ("--epochs", "7"))
_FOLDS: Flags = (
    ("--batch-size", "100"),
    ("--folds", "all"),
    ("--val", "val"),
    ("--test", "test"),
    ("--early-stopping", "15"),
)
_SB: Flags = (("--optimizer", "sgd"), ("--lr", "0.01"), ("--momentum", "0"), ("--epochs", "50"), *_FOLDS)

STUDIES: dict[str, Study] = {
    "esc50": Study(
        "ESC-50 (2022): six kinds of networks on log-mel spectrograms of environmental sounds",
        (Part("esc50", _ESC_MODELS, _ESC),),
        (
            "The study trains on 90 % of all clips; here it is 90 % of four folds, as the fifth is kept for testing.",
            "It also changes the waveforms, in one way at a time: --augment-copies of `bench run` adds such copies.",
        ),
    ),
    "formats": Study(
        "Dataset formats for PyTorch (2022): loading methods against data sets of small, middle and large images",
        (
            Part("cifar10", _IMAGE_MODELS, (("--batch-size", "128"), ("--test", "test")), matrix=True),
            Part("tiny-imagenet", _IMAGE_MODELS, (("--batch-size", "128"), ("--test", "val")), matrix=True),
            Part("masks", (*_IMAGE_MODELS, "inception"), (("--batch-size", "16"), ("--test", "test")), matrix=True),
        ),
        (
            "The study publishes no figures; sizes of batches, epochs and SGD (it also names RMSprop) are ours.",
            "Inception takes images from 75x75 on, so it is trained on masks alone.",
            "cupy runs on a GPU; elsewhere its cells are recorded as unsupported.",
        ),
        ("filesystem", "memmap", "cupy", "hdf5", "zarr"),
    ),
    "fsdkaggle2018": Study(
        "FSDKaggle2018 (RTU 2020): short sounds by MFCC, two subsets of ten classes and all 41",
        (
            Part("fsdkaggle2018", _FSD_MODELS, (("--subset", "music10"), *_FSD_SUBSET)),
            Part("fsdkaggle2018", _FSD_MODELS, (("--subset", "environment10"), *_FSD_SUBSET)),
            Part("fsdkaggle2018", _FSD_MODELS, (*_FSD, ("--batch-size", "256"), ("--epochs", "14"))),
        ),
        (
            "Classes are weighted by duration in the study; samples here are pieces of equal length, so by number.",
            "It gives no learning rate: that of torch.optim. Its two smaller subsets are not among ours.",
        ),
    ),
    "gtzan": Study(
        "GTZAN (2021): genres by MFCC, with plain and with depthwise-separable convolutions",
        (Part("gtzan", _GENRE_MODELS, _GENRES),),
        ("Here no track has segments in two splits. A split of segments, which the study may mean, gives more.",),
    ),
    "urbansound8k": Study(
        "UrbanSound8K: two small networks over ten folds, and one of them with changed copies of the sounds",
        (
            Part("urbansound8k", ("sb-cnn",), _SB),
            Part("urbansound8k", ("sb-cnn-improved",), (("--optimizer", "adam"), ("--epochs", "100"), *_FOLDS)),
            Part("urbansound8k", ("sb-cnn",), (("--augment-copies", "stretch+pitch+compress+noise"), *_SB)),
        ),
        (
            "The fold for validation is the one after that for testing; the study draws one of the others.",
            "The noise in copies is pink; the study adds that of a street.",
            "Batches of 100 are Salamon and Bello's: the study gives neither their size nor Adam's learning rate.",
        ),
    ),
}
