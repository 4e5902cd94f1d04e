"""Names of backends, data sets and models: what exists, what each needs, where its code is.

Nothing is imported before it is asked for. Packages add their own through the
entry-point groups ``bench.backends`` and ``bench.datasets``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from bench.contracts.backend import Backend
from bench.contracts.errors import BenchError
from bench.contracts.source import DataSource

if TYPE_CHECKING:
    from torch import nn


class UnknownNameError(BenchError):
    """A name that nothing is registered under."""


class MissingLibraryError(BenchError):
    """A plug-in whose library is not installed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a plug-in lives and what it needs; ``needs`` maps a module to its pip name."""

    target: str
    summary: str
    needs: Mapping[str, str]

    def missing(self) -> list[str]:
        """Return the pip names of needed libraries that are not installed."""
        return [package for module, package in self.needs.items() if not _installed(module)]


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        # An import hook, or a stub without a spec, that blocks the module.
        return False


BACKENDS: dict[str, Entry] = {
    # Stores of it are prepared and verified without its libraries; a run without them is recorded as unsupported.
    "cupy": Entry("bench.loaders.cupy_:CupyBackend", "one NumPy file, gathered on the GPU: runs need CuPy, CUDA", {}),
    "filesystem": Entry(
        "bench.loaders.filesystem:FilesystemBackend", "one file per sample: PNG, JPEG or npy", {"PIL": "pillow"}
    ),
    "hdf5": Entry("bench.loaders.hdf5:Hdf5Backend", "one HDF5 file, contiguous or chunked", {"h5py": "h5py"}),
    "memmap": Entry("bench.loaders.memmap:MemmapBackend", "one NumPy file, memory-mapped", {}),
    "memory": Entry("bench.loaders.memory:MemoryBackend", "the whole set as one tensor in RAM: the ceiling", {}),
    "zarr": Entry("bench.loaders.zarr_:ZarrBackend", "Zarr v3 chunks or shards", {"zarr": "zarr"}),
}

AUDIO = {"librosa": "librosa", "soundfile": "soundfile"}
IMAGES = {"PIL": "pillow"}

DATASETS: dict[str, Entry] = {
    "audiofolder": Entry(
        "bench.datasets.audiofolder:AudioFolder", "your own: a folder of class folders of sounds", AUDIO
    ),
    "cifar10": Entry("bench.datasets.cifar10:Cifar10", "60,000 photos, 3x32x32 uint8, 10 classes", {}),
    "esc50": Entry("bench.datasets.esc50:Esc50", "2,000 sounds as 1x64x862 float32, 50 classes, 5 folds", AUDIO),
    "fashion-mnist": Entry(
        "bench.datasets.fashion_mnist:FashionMnist", "70,000 drawings of clothes, 1x28x28 uint8, 10 classes", {}
    ),
    "folder": Entry("bench.datasets.folder:Folder", "your own: a folder of class folders of images", IMAGES),
    "fsdkaggle2018": Entry(
        "bench.datasets.fsdkaggle2018:FsdKaggle2018", "11,073 sounds in pieces of 1x13x40 float32, 41 classes", AUDIO
    ),
    "gtzan": Entry("bench.datasets.gtzan:Gtzan", "1,000 tracks in pieces of 1x13x130 float32, 10 genres", AUDIO),
    "masks": Entry(
        "bench.datasets.masks:Masks", "4,095 photos of faces, 3x512x512 uint8, with or without mask", IMAGES
    ),
    "npy": Entry("bench.datasets.npy:Npy", "your own: x.npy and y.npy of any type and shape", {}),
    "tiny-imagenet": Entry(
        "bench.datasets.tiny_imagenet:TinyImagenet", "110,000 photos, 3x64x64 uint8, 200 classes", IMAGES
    ),
    "urbansound8k": Entry(
        "bench.datasets.urbansound8k:UrbanSound8k", "8,732 sounds as 1x128x128 float32, 10 classes, 10 folds", AUDIO
    ),
}

MODELS: dict[str, Entry] = {
    "cnn": Entry("bench.models.cnn:build", "small convolutional network, three stages", {"torch": "torch"}),
    "resnet18": Entry("bench.models.resnet:build_resnet18", "ResNet-18 of torchvision", {"torchvision": "torchvision"}),
    "resnet50": Entry("bench.models.resnet:build_resnet50", "ResNet-50 of torchvision", {"torchvision": "torchvision"}),
}


@cache
def _entries(kind: str) -> dict[str, Entry]:
    builtin = {"backend": BACKENDS, "data set": DATASETS, "model": MODELS}[kind]
    groups = {"backend": "bench.backends", "data set": "bench.datasets"}
    found = dict(builtin)
    if kind in groups:
        for point in entry_points(group=groups[kind]):
            # A built-in name always means the built-in: results must not change with what is installed.
            found.setdefault(point.name, Entry(point.value, f"from {point.value.partition(':')[0]}", {}))
    return dict(sorted(found.items()))


def backends() -> dict[str, Entry]:
    """Return all known backends by name, sorted."""
    return _entries("backend")


def datasets() -> dict[str, Entry]:
    """Return all known data sets by name, sorted."""
    return _entries("data set")


def models() -> dict[str, Entry]:
    """Return all known models by name, sorted."""
    return _entries("model")


def backend_class(name: str) -> type[Backend[Any]]:
    """Return a backend's class. Raises UnknownNameError or MissingLibraryError."""
    found: type[Backend[Any]] = _load("backend", name, backends())
    return found


def dataset_class(name: str) -> type[DataSource]:
    """Return a data set's class. Raises UnknownNameError or MissingLibraryError."""
    found: type[DataSource] = _load("data set", name, datasets())
    return found


def model_builder(name: str) -> Callable[[tuple[int, ...], int], nn.Module]:
    """Return ``build(shape, classes)``. Raises UnknownNameError or MissingLibraryError."""
    build: Callable[[tuple[int, ...], int], nn.Module] = _load("model", name, models())
    return build


def require_model(name: str) -> None:
    """Check that a model could be built, without importing torch."""
    _usable("model", name, models())


def _usable(kind: str, name: str, entries: Mapping[str, Entry]) -> Entry:
    entry = entries.get(name)
    if entry is None:
        extra = ["none"] if kind == "model" else []
        raise UnknownNameError(unknown(kind, name, [*entries, *extra]))
    missing = entry.missing()
    if missing:
        raise MissingLibraryError(
            f"The {kind} {name} needs {' and '.join(missing)}, not installed here: pip install {' '.join(missing)}"
        )
    return entry


def _load(kind: str, name: str, entries: Mapping[str, Entry]) -> Any:
    entry = _usable(kind, name, entries)
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MissingLibraryError(f"The {kind} {name} cannot be loaded from {entry.target}: {error}") from error


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the one-line message for an unknown name: the nearest one, and the list."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"Unknown {kind} {name!r}.{guess} Known: {', '.join(names) if names else 'none'}."
