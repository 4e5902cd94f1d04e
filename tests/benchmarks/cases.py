"""What `make bench-loaders` measures: data sets, stores, readers, and the ratios that are to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

INLINE, THREADS, PROCESSES = "no workers", "2 threads", "2 processes"
DATALOADER, AHEAD = "DataLoader", "DataLoader, reading ahead"
WORKERS: dict[str, dict[str, Any]] = {
    INLINE: {},
    THREADS: {"workers": 2, "worker_kind": "thread"},
    PROCESSES: {"workers": 2, "worker_kind": "process"},
    DATALOADER: {},
    AHEAD: {},
}


@dataclass(frozen=True)
class Work:
    """A data set, as much of it as is loaded, and how much at a time."""

    dataset: str
    batch_size: int
    options: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None


DATA = {
    "CIFAR-10": Work("cifar10", 256),
    "Tiny ImageNet": Work("tiny-imagenet", 64),
    "512x512": Work("masks", 16, {"size": 512}),
}


@dataclass(frozen=True)
class Case:
    """A store and how it is read; ``goals`` are ratios to the limit on CIFAR-10, by workers and order."""

    name: str
    backend: str
    reader: str
    options: tuple[str, ...] = ()
    goals: dict[tuple[str, str], float | None] = field(default_factory=dict)
    bare: str | None = None
    """What it is compared with besides: bare reading, or the codec alone; the goal there is 0.80."""

    lossy: bool = False
    only: str | None = None
    """The one data set for which this makes sense."""


COLD = "full, cold"
"""A full shuffle out of a store that is not in memory; compared with reading its files in order."""

_FAST: dict[tuple[str, str], float | None] = {
    (INLINE, "full"): 0.50,
    (THREADS, "full"): 0.80,
    (PROCESSES, "full"): 0.30,
    (DATALOADER, "full"): 0.60,
    (AHEAD, "full"): 0.60,
}
_COLD: dict[tuple[str, str], float | None] = {(INLINE, COLD): None}
_BOTH_WORKERS: dict[tuple[str, str], float | None] = {(THREADS, "full"): None, (PROCESSES, "full"): None}
_NAIVE: dict[tuple[str, str], float | None] = {(INLINE, "full"): None}


def _mapped(name: str, backend: str, *options: str) -> Case:
    return Case(name, backend, "mapped", (*options, "reader=mapped"), {**_FAST, **_COLD})


def _naive(name: str, backend: str, *options: str) -> Case:
    return Case(name, backend, "naive", (*options, "reader=naive"), _NAIVE)


def _library(name: str, backend: str, options: tuple[str, ...], *, full: float, block: float) -> Case:
    orders = {"full": full, "block": block}
    goals = {(workers, order): goal for workers in (INLINE, PROCESSES) for order, goal in orders.items()}
    return Case(name, backend, "library", options, goals)


CASES = [
    Case("memory", "memory", "library", (), dict.fromkeys(_FAST)),
    _mapped("memmap", "memmap"),
    _mapped("hdf5 contiguous", "hdf5"),
    _mapped("hdf5 chunk 1", "hdf5", "chunk=1"),
    _mapped("hdf5 chunk 64", "hdf5", "chunk=64"),
    _mapped("zarr", "zarr"),
    _mapped("zarr shards", "zarr", "chunk=16", "shard=1024"),
    _library("hdf5 contiguous", "hdf5", (), full=0.03, block=0.20),
    _library("hdf5 chunk 64", "hdf5", ("chunk=64",), full=0.03, block=0.20),
    _library("zarr", "zarr", (), full=0.01, block=0.10),
    *(
        Case(
            f"{backend} {codec} chunk {chunk}",
            backend,
            "mapped",
            (*option, f"chunk={chunk}", "reader=mapped"),
            _BOTH_WORKERS,
            bare=codec,
        )
        for backend, codec, option in (
            ("hdf5", "gzip", ("compression=gzip",)),
            ("hdf5", "zstd", ("compression=zstd",)),
            ("zarr", "zstd", ("codec=zstd",)),
            ("zarr", "blosc", ("codec=blosc",)),
        )
        for chunk in (1, 16)
    ),
    Case(
        "files npy", "filesystem", "mapped", ("format=npy",), {**_BOTH_WORKERS, (PROCESSES, "full"): 0.03}, bare="files"
    ),
    Case("files png", "filesystem", "library", ("format=png",), _BOTH_WORKERS, bare="images"),
    Case("files jpeg", "filesystem", "library", ("format=jpeg",), _BOTH_WORKERS, bare="images", lossy=True),
    _naive("memory", "memory"),
    _naive("memmap", "memmap"),
    _naive("hdf5 contiguous", "hdf5"),
    _naive("hdf5 chunk 1", "hdf5", "chunk=1"),
    _naive("zarr", "zarr"),
    _naive("zarr shards", "zarr", "chunk=16", "shard=1024"),
    _naive("files npy", "filesystem", "format=npy"),
    _naive("files png", "filesystem", "format=png"),
]
