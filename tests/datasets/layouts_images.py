"""Small copies of the raw data of picture sets and arrays: arrays become files, in the order that gives them back.

The sources put files in an order of their own, sorted by class and name and then shuffled. So
the labels of a truth are those of that order, and each file gets the name that leads to its place.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.source import Split
from bench.datasets.tiny_imagenet_names import NAMES
from bench.datasets.trees import shuffled, stratified

Truth = dict[Split, tuple[NDArray[Any], NDArray[np.int64]]]

WNIDS = list(NAMES)
MASK_CLASSES = ("with_mask", "without_mask")
FOLDER_CLASSES = ("bird", "cat", "dog")


def save_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write ``(3, height, width)`` without loss, whatever the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(path, "PNG", compress_level=1)


def shuffled_labels(labels: list[int]) -> NDArray[np.int64]:
    return np.array(shuffled(sorted(labels)), np.int64)


def noise(count: int, shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def tiny_imagenet_truth() -> Truth:
    # Every class that wnids.txt names must have pictures; some have two.
    labels = shuffled_labels([k % 200 for k in range(220)])
    return {
        "train": (noise(220, (3, 64, 64), 1), labels),
        "val": (noise(7, (3, 64, 64), 2), np.array([5, 0, 199, 5, 17, 3, 3], np.int64)),
    }


def lay_out_tiny_imagenet(folder: Path, truth: Truth) -> Path:
    root = folder / "raw" / "tiny-imagenet-200"
    x, y = truth["train"]
    for image, label, place in zip(x, y, shuffled(range(len(y))), strict=True):
        save_png(root / "train" / WNIDS[label] / "images" / f"{WNIDS[label]}_{place:05}.JPEG", image)
    x, y = truth["val"]
    lines = []
    for image, label, place in zip(x, y, shuffled(range(len(y))), strict=True):
        save_png(root / "val" / "images" / f"val_{place:05}.JPEG", image)
        lines.append(f"val_{place:05}.JPEG\t{WNIDS[label]}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(WNIDS)))
    return folder / "raw"


def _mask_order(per_class: int) -> dict[Split, list[tuple[int, int]]]:
    by_class = {name: [(label, i) for i in range(per_class)] for label, name in enumerate(MASK_CLASSES)}
    train, test = stratified(by_class, 0.2)
    return {"train": shuffled(train), "test": shuffled(test)}


def masks_truth() -> Truth:
    order = _mask_order(5)
    blocks = {split: noise(len(places), (3, 16, 16), seed) for seed, (split, places) in enumerate(order.items())}
    return {
        split: (np.kron(blocks[split], np.ones((1, 32, 32), np.uint8)), np.array([label for label, _ in places]))
        for split, places in order.items()
    }


def lay_out_masks(folder: Path, truth: Truth) -> Path:
    count = sum(len(y) for _, y in truth.values())
    for split, places in _mask_order(count // 2).items():
        for image, label, (own, i) in zip(*truth[split], places, strict=True):
            save_png(folder / "raw" / "dataset" / MASK_CLASSES[label] / f"{own}-{i:05}.png", image)
    return folder / "raw"


def fashion_mnist_truth() -> Truth:
    return {
        "train": (noise(13, (1, 28, 28), 3), np.arange(13) % 10),
        "test": (noise(4, (1, 28, 28), 4), np.array([9, 0, 0, 3])),
    }


def lay_out_fashion_mnist(folder: Path, truth: Truth) -> Path:
    """Write the published layout, gzipped IDX files."""
    root = folder / "raw"
    root.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        x, y = truth[split]  # type: ignore[index]
        images = struct.pack(">IIII", 0x803, len(x), 28, 28) + x.tobytes()
        labels = struct.pack(">II", 0x801, len(y)) + y.astype(np.uint8).tobytes()
        (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
        (root / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))
    return root


def folder_truth() -> Truth:
    counts: dict[Split, int] = {"train": 9, "val": 4, "test": 5}
    return {
        split: (noise(n, (3, 11, 20), 5 + k), shuffled_labels([i % 3 for i in range(n)]))
        for k, (split, n) in enumerate(counts.items())
    }


def lay_out_folder(folder: Path, truth: Truth) -> Path:
    for split, (x, y) in truth.items():
        for image, label, place in zip(x, y, shuffled(range(len(y))), strict=True):
            save_png(folder / "raw" / split / FOLDER_CLASSES[label] / f"{place:05}.png", image)
    return folder / "raw"


def npy_truth() -> Truth:
    rng = np.random.default_rng(8)
    counts: dict[Split, int] = {"train": 12, "val": 3, "test": 5}
    return {split: (rng.normal(size=(n, 2, 3)).astype(np.float32), np.arange(n) % 4) for split, n in counts.items()}


def lay_out_npy(folder: Path, truth: Truth) -> Path:
    root = folder / "raw"
    root.mkdir(parents=True)
    for split, (x, y) in truth.items():
        np.save(root / f"x_{split}.npy", x)
        np.save(root / f"y_{split}.npy", y)
    return root
