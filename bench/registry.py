"""Names of backends, data sets and models: what exists, what each needs, where its code is.

Nothing is imported before it is asked for. Packages add their own through the
entry-point groups ``bench.backends`` and ``bench.datasets``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
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


class PluginError(BenchError):
    """A plug-in that cannot be loaded, or that is none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a plug-in lives and what it needs; ``needs`` maps a module to its pip name."""

    target: str
    summary: str
    needs: Mapping[str, str]
    package: tuple[str, str] | None = field(default=None, kw_only=True)
    """Name and version of the package that an outsider's plug-in comes with."""

    def missing(self) -> list[str]:
        """Return the pip names of needed libraries that are not installed."""
        return [package for module, package in self.needs.items() if not _installed(module)]


@dataclass(frozen=True, slots=True)
class ModelEntry(Entry):
    """A network, and what it can take, known without loading it.

    ``made_for`` are the shape and the number of classes of the data it is known from, ``smallest`` is the least
    (height, width), or (frequency, time), of a sample, and ``least_batch`` the fewest samples that it can train
    on at once. ``fitted`` names the layers that depend on the data in a network known from elsewhere, so that
    published weights may not fit them.
    """

    made_for: tuple[tuple[int, int, int], int]
    smallest: tuple[int, int] = (1, 1)
    least_batch: int = 1
    fitted: tuple[str, ...] = ()

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Say whether samples of (channels, height, width) are large enough."""
        return all(size >= least for size, least in zip(shape[1:], self.smallest, strict=True))


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

TORCH, TORCHVISION = {"torch": "torch"}, {"torchvision": "torchvision"}
PHOTOS, MASKS = ((3, 32, 32), 10), ((3, 512, 512), 2)
MFCC_PIECES, MFCC_TRACKS, LOG_MELS, MELS = (
    ((1, 13, 40), 41),
    ((1, 13, 130), 10),
    ((1, 64, 862), 50),
    ((1, 128, 128), 10),
)
RESNET_FITTED = ("conv1", "fc")

MODELS: dict[str, ModelEntry] = {
    "cnn": ModelEntry("bench.models.cnn:build", "small convolutional network, three stages", TORCH, PHOTOS),
    "convnet4": ModelEntry(
        "bench.models.fsdkaggle:build_convnet4", "four convolutions 3x3 (FSDKaggle2018)", TORCH, MFCC_PIECES, (8, 8)
    ),
    "densenet121": ModelEntry(
        "bench.models.torchvision_:build_densenet121",
        "DenseNet-121 of torchvision",
        TORCHVISION,
        PHOTOS,
        (8, 8),
        fitted=("features.conv0", "classifier"),
    ),
    "esc-baseline": ModelEntry(
        "bench.models.esc:build_baseline",
        "three convolutions 5x20, three linear layers (ESC-50)",
        TORCH,
        LOG_MELS,
        (16, 61),
    ),
    "esc-crnn-attention": ModelEntry(
        "bench.models.esc:build_crnn_attention",
        "convolution, two GRU layers, attention (ESC-50)",
        TORCH,
        LOG_MELS,
        (5, 20),
    ),
    "esc-lstm": ModelEntry("bench.models.esc:build_lstm", "LSTM over the frames (ESC-50)", TORCH, LOG_MELS),
    "esc-vgg": ModelEntry(
        "bench.models.esc:build_vgg",
        "three blocks of two convolutions 5x20 (ESC-50)",
        TORCH,
        LOG_MELS,
        (36, 246),
        least_batch=2,
    ),
    "esc-weak": ModelEntry(
        "bench.models.esc:build_weak", "six blocks of convolutions, for weak labels (ESC-50)", TORCH, LOG_MELS, (64, 64)
    ),
    "genre-cnn": ModelEntry(
        "bench.models.genre:build_cnn", "three convolutions over time, dense 8192 (GTZAN)", TORCH, MFCC_TRACKS, (1, 55)
    ),
    "genre-deep-separable": ModelEntry(
        "bench.models.genre:build_deep_separable",
        "six convolutions, five of them separable, L2 (GTZAN)",
        TORCH,
        MFCC_TRACKS,
        (1, 30),
    ),
    "genre-separable": ModelEntry(
        "bench.models.genre:build_separable",
        "genre-cnn with separable convolutions (GTZAN)",
        TORCH,
        MFCC_TRACKS,
        (1, 55),
    ),
    "inception": ModelEntry(
        "bench.models.torchvision_:build_inception",
        "Inception v3 of torchvision",
        TORCHVISION,
        MASKS,
        (75, 75),
        fitted=("Conv2d_1a_3x3.conv", "fc", "AuxLogits"),
    ),
    "resnet18": ModelEntry(
        "bench.models.resnet:build_resnet18", "ResNet-18 of torchvision", TORCHVISION, PHOTOS, fitted=RESNET_FITTED
    ),
    "resnet18-audio": ModelEntry(
        "bench.models.fsdkaggle:build_resnet18_audio",
        "ResNet-18 with dropout 0.1 (FSDKaggle2018)",
        TORCHVISION,
        MFCC_PIECES,
        fitted=RESNET_FITTED,
        least_batch=2,
    ),
    "resnet50": ModelEntry(
        "bench.models.resnet:build_resnet50", "ResNet-50 of torchvision", TORCHVISION, PHOTOS, fitted=RESNET_FITTED
    ),
    "resnet50-audio": ModelEntry(
        "bench.models.fsdkaggle:build_resnet50_audio",
        "ResNet-50 with dropout 0.1 (FSDKaggle2018)",
        TORCHVISION,
        MFCC_PIECES,
        fitted=RESNET_FITTED,
        least_batch=2,
    ),
    "sb-cnn": ModelEntry(
        "bench.models.urbansound:build_sb_cnn", "three convolutions 5x5 (UrbanSound8K)", TORCH, MELS, (100, 32)
    ),
    "sb-cnn-improved": ModelEntry(
        "bench.models.urbansound:build_sb_cnn_improved", "sb-cnn made smaller (UrbanSound8K)", TORCH, MELS, (112, 112)
    ),
    "vgg19": ModelEntry(
        "bench.models.torchvision_:build_vgg19",
        "VGG-19 of torchvision",
        TORCHVISION,
        LOG_MELS,
        (32, 32),
        fitted=("features.0", "classifier.6"),
    ),
}


@cache
def _entries(kind: str) -> dict[str, Entry]:
    builtin, group = {"backend": (BACKENDS, "bench.backends"), "data set": (DATASETS, "bench.datasets")}[kind]
    found = dict(builtin)
    for point in entry_points(group=group):
        # A built-in name always means the built-in: results must not change with what is installed.
        package = (point.dist.name, point.dist.version) if point.dist is not None else None
        summary = f"from {point.value.partition(':')[0]}"
        found.setdefault(point.name, Entry(point.value, summary, {}, package=package))
    return dict(sorted(found.items()))


def backends() -> dict[str, Entry]:
    """Return all known backends by name, sorted."""
    return _entries("backend")


def datasets() -> dict[str, Entry]:
    """Return all known data sets by name, sorted."""
    return _entries("data set")


def models() -> dict[str, ModelEntry]:
    """Return all known models by name, sorted."""
    return MODELS


def backend_class(name: str) -> type[Backend[Any]]:
    """Return a backend's class. Raises UnknownNameError, MissingLibraryError or PluginError."""
    found: type[Backend[Any]] = _plugin("backend", name, backends(), Backend)
    return found


def import_libraries(backend: str) -> None:
    """Import what a backend needs, so that what it does is not taken for the time that imports take.

    Of an outsider's nothing is known but its class, whose module imports the rest.
    """
    for module in backends()[backend].needs:
        importlib.import_module(module)
    backend_class(backend)


def packages(backend: str, dataset: str | None = None) -> dict[str, str]:
    """Return the versions of the packages, by name, that a backend and a data set come with, apart from ours."""
    used = (backends().get(backend), datasets().get(dataset or ""))
    return dict(entry.package for entry in used if entry is not None and entry.package is not None)


def dataset_class(name: str) -> type[DataSource]:
    """Return a data set's class. Raises UnknownNameError, MissingLibraryError or PluginError."""
    found: type[DataSource] = _plugin("data set", name, datasets(), DataSource)
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
        with redirect_stdout(sys.stderr):  # else it would come between records
            return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MissingLibraryError(f"The {kind} {name} cannot be loaded from {entry.target}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the code of others does when it is imported
        why = f"{type(error).__name__}: {error}"
        raise PluginError(f"The {kind} {name} cannot be loaded from {entry.target}: {why}") from error


def _plugin(kind: str, name: str, entries: Mapping[str, Entry], base: type) -> Any:
    """Return a class that keeps to its contract as far as that is seen without using it."""
    found, target = _load(kind, name, entries), entries[name].target
    if not (isinstance(found, type) and issubclass(found, base)):
        raise PluginError(f"The {kind} {name}, {target}, is no class derived from {base.__module__}.{base.__name__}.")
    lacks = {*getattr(found, "__abstractmethods__", ())}
    lacks |= {part for part in ("name", "options_type") if not hasattr(found, part)}
    if lacks:
        raise PluginError(f"The {kind} {name}, {target}, is incomplete: it lacks {', '.join(sorted(lacks))}.")
    plugin: Any = found
    if plugin.name != name:
        # Stores and records go by the name of the class.
        raise PluginError(f"The {kind} {name}, {target}, calls itself {plugin.name}: its entry point has to as well.")
    return plugin


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the one-line message for an unknown name: the nearest one, and the list."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"Unknown {kind} {name!r}.{guess} Known: {', '.join(names) if names else 'none'}."
