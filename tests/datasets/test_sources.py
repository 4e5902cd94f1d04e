"""Every registered data set under the conformance suite, and broken ones that must fail it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import layouts_audio as sounds
import layouts_images as images
import numpy as np
import pytest
from source_conformance import SourceCase, Truth, checks_for

from bench.contracts.source import RawData, SampleBlock, Schema, Split
from bench.datasets.audiofolder import AudioFolder
from bench.datasets.cifar10 import Cifar10
from bench.datasets.esc50 import Esc50
from bench.datasets.fashion_mnist import FashionMnist
from bench.datasets.folder import Folder
from bench.datasets.fsdkaggle2018 import FsdKaggle2018
from bench.datasets.gtzan import Gtzan
from bench.datasets.masks import Masks
from bench.datasets.npy import Npy
from bench.datasets.tiny_imagenet import TinyImagenet
from bench.datasets.urbansound8k import UrbanSound8k
from bench.registry import DATASETS


def cifar10_truth() -> Truth:
    rng = np.random.default_rng(5)
    counts: dict[Split, int] = {"train": 20, "test": 3}
    return {split: (rng.integers(0, 256, (n, 3, 32, 32), np.uint8), np.arange(n) % 10) for split, n in counts.items()}


def lay_out_cifar10(folder: Path, truth: Truth) -> Path:
    """Write the published binary layout: a label byte and 3,072 pixels a record, five training files of four."""
    place = folder / "raw"
    target = place / "cifar-10-batches-bin"
    target.mkdir(parents=True)
    names = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    for split, (x, y) in truth.items():
        records = np.concatenate([y.astype(np.uint8)[:, None], x.reshape(len(x), -1)], axis=1)
        for name, part in zip(names[split], np.array_split(records, len(names[split])), strict=True):
            (target / name).write_bytes(part.tobytes())
    return place


# Sums of many terms, in decibels up to hundreds: the last digits depend on the length of the whole.
SOUND = 1e-4

CASES = {
    "audiofolder": SourceCase(AudioFolder, sounds.audiofolder_truth, sounds.lay_out_audiofolder, {}, SOUND),
    "cifar10": SourceCase(Cifar10, cifar10_truth, lay_out_cifar10, {"train": 50_000, "test": 10_000}),
    "esc50": SourceCase(Esc50, sounds.esc50_truth, sounds.lay_out_esc50, {"train": 1_600, "test": 400}, SOUND),
    "fashion-mnist": SourceCase(
        FashionMnist, images.fashion_mnist_truth, images.lay_out_fashion_mnist, {"train": 60_000, "test": 10_000}
    ),
    "folder": SourceCase(Folder, images.folder_truth, images.lay_out_folder, {}),
    "fsdkaggle2018": SourceCase(
        FsdKaggle2018,
        sounds.fsdkaggle2018_truth,
        sounds.lay_out_fsdkaggle2018,
        {"train": 1, "val": 1, "test": 1},  # only decoding tells
        SOUND,
    ),
    "gtzan": SourceCase(
        Gtzan, sounds.gtzan_truth, sounds.lay_out_gtzan, {"train": 6_000, "val": 1_500, "test": 2_500}, SOUND
    ),
    "masks": SourceCase(Masks, images.masks_truth, images.lay_out_masks, {"train": 3_276, "test": 819}),
    "npy": SourceCase(Npy, images.npy_truth, images.lay_out_npy, {}),
    "tiny-imagenet": SourceCase(
        TinyImagenet, images.tiny_imagenet_truth, images.lay_out_tiny_imagenet, {"train": 100_000, "val": 10_000}
    ),
    "urbansound8k": SourceCase(
        UrbanSound8k,
        sounds.urbansound8k_truth,
        sounds.lay_out_urbansound8k,
        {"train": 6_971, "val": 888, "test": 873},
        SOUND,
    ),
}


def test_every_registered_data_set_has_a_case() -> None:
    assert set(CASES) == set(DATASETS)


ALL = [(name, check) for name, case in CASES.items() for check in checks_for(case.source)]


@pytest.mark.parametrize(("name", "check"), ALL, ids=[f"{name}-{check.__name__}" for name, check in ALL])
def test_conformance(name: str, check: Callable[[SourceCase, Path], None], tmp_path: Path) -> None:
    check(CASES[name], tmp_path)


class Spoilt(RawData):
    """Raw data with something changed on the way."""

    def __init__(self, data: RawData, fault: str) -> None:
        self._data = data
        self._fault = fault

    def fingerprint(self) -> str:
        return "constant" if self._fault == "fingerprint" else self._data.fingerprint()

    def schema(self, split: Split) -> Schema:
        schema = self._data.schema(split)
        if self._fault == "count":
            return Schema(**{**{name: getattr(schema, name) for name in Schema.__slots__}, "count": schema.count + 1})
        return schema

    def samples(self, split: Split) -> Iterator[SampleBlock]:
        for x, y in self._data.samples(split):
            changed_x, changed_y = x.copy(), y.copy()
            if self._fault == "byte":
                changed_x[-1, 0, 0, 0] ^= 1
            elif self._fault == "label":
                changed_y[:2] = changed_y[1::-1]
            elif self._fault == "layout":
                changed_x = np.asfortranarray(changed_x)
            elif self._fault == "order":
                order = np.random.default_rng().permutation(len(y))
                changed_x, changed_y = changed_x[order], changed_y[order]
            elif self._fault == "dropped":
                changed_x, changed_y = changed_x[1:], changed_y[1:]
            yield SampleBlock(changed_x, changed_y)


@pytest.mark.parametrize("fault", ["byte", "label", "layout", "order", "dropped", "count", "fingerprint", "imitates"])
def test_a_broken_data_set_fails_the_suite(fault: str, tmp_path: Path) -> None:
    class Broken(Cifar10):
        def locate(self, path: Path, *, official_only: bool) -> Any:
            data = super().locate(path, official_only=official_only)
            return None if data is None else Spoilt(data, fault)

        def imitate(self) -> Any:
            return super().locate(tmp_path / "imitated" / "raw", official_only=False)

    healthy = CASES["cifar10"]
    if fault == "imitates":
        lay_out_cifar10(tmp_path / "imitated", healthy.truth)
    case = replace(healthy, source=Broken)
    failed = []
    for check in checks_for(Broken):
        if fault != "imitates" and ("imitate" in check.__name__ or "stand_in" in check.__name__):
            continue  # these say nothing of the raw data
        try:
            check(case, tmp_path / check.__name__)
        except (AssertionError, pytest.fail.Exception):
            failed.append(check.__name__)
    assert failed
