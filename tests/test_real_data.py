"""The whole way on real photographs: prepare, verify, train, from every backend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import loading, registry
from bench.contracts.source import SilentProgress
from bench.measure.clock import HostClock
from bench.records.record import RunRecord
from bench.specs.spec import RunSpec, StoreSpec, make_spec
from bench.stores.prepare import prepare, verify
from bench.training.trainer import Trainer

pytestmark = pytest.mark.real_data

MEMORY_LIMIT_BYTES = 600_000_000


ON_THE_CPU = sorted(set(registry.BACKENDS) - {"cupy"})
"""The backends that can train here: cupy needs a GPU, and its stores are tested like all others."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("backend", sorted(registry.BACKENDS))
def test_all_60000_photos_go_into_every_backend_and_come_back(
    real_data: Path, data_dir: Path, backend: str, split: str
) -> None:
    spec = make_spec(
        StoreSpec, [], backend=backend, dataset="cifar10", source=f"local:{real_data / 'cifar10'}", split=split
    )
    built = prepare(spec, data_dir, (), SilentProgress())
    known = built.manifest
    assert (known.count, known.origin) == ({"train": 50_000, "test": 10_000}[split], "local")
    assert known.store_digest == known.source_digest
    assert known.prepare_peak_rss_bytes - known.prepare_baseline_rss_bytes < MEMORY_LIMIT_BYTES
    if split == "test":
        # By the same code that has just read back what was written; so for a sixth of the photos only.
        assert verify(spec, data_dir, (), SilentProgress())[1].problem is None
    # Truth from outside: a sample of images straight from the pickles.
    import pickle

    batch = pickle.loads((real_data / "cifar10/cifar-10-batches-py" / FIRST[split]).read_bytes(), encoding="bytes")
    x, y = spec.open_backend().open(built.root).__getitems__(np.array([9_999, 0, 4_321]))
    assert np.array_equal(x.numpy(), batch[b"data"].reshape(-1, 3, 32, 32)[[9_999, 0, 4_321]])
    assert y.tolist() == [batch[b"labels"][i] for i in (9_999, 0, 4_321)]


FIRST = {"train": "data_batch_1", "test": "test_batch"}


def test_every_backend_trains_on_real_photos_with_equal_losses(bench, real_data: Path) -> None:
    losses = {}
    for backend in ON_THE_CPU:
        result = bench(
            *("run", "--backend", backend, "--dataset", "cifar10", "--source", f"local:{real_data / 'cifar10-exact'}"),
            *("--limit", "1000", "--deterministic", "--epochs", "2", "--no-ceiling", "--json", "--data-dir", "data"),
        )
        assert result.returncode == 0, result.stderr
        record = RunRecord.model_validate(json.loads(result.stdout))
        assert record.status == "ok"
        assert record.store.digest_ok
        assert record.data.checked_samples == 1000
        losses[backend] = [loss for epoch in record.epochs for loss in epoch.batch_loss]
    assert len(losses["memory"]) == 16
    assert {name: values for name, values in losses.items() if values != losses["memory"]} == {}


def test_damage_to_the_raw_data_is_named(bench, real_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "raw"
    shutil.copytree(real_data / "cifar10-exact", copy)
    batch = copy / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:1_000_000])
    result = bench("prepare", "--backend", "memmap", "--dataset", "cifar10", "--source", f"local:{copy}")
    assert result.returncode == 1
    assert "data_batch_3" in result.stderr
    assert "Traceback" not in result.stderr


def test_another_source_of_equal_sizes_and_times_is_not_taken_for_the_first(real_data: Path, tmp_path: Path) -> None:
    places = []
    for name in ("a", "b"):
        place = tmp_path / name
        shutil.copytree(real_data / "cifar10-exact", place)
        places.append(place)
    batches = places[1] / "cifar-10-batches-py"
    (batches / "data_batch_1").rename(batches / "swap")
    (batches / "data_batch_2").rename(batches / "data_batch_1")
    (batches / "swap").rename(batches / "data_batch_2")
    for file in tmp_path.rglob("*batch*"):
        os.utime(file, ns=(10**18, 10**18))
    specs = [make_spec(StoreSpec, [], backend="memmap", dataset="cifar10", source=f"local:{p}") for p in places]
    stores = [prepare(spec, tmp_path / "data", (), SilentProgress()) for spec in specs]
    assert stores[0].path != stores[1].path
    assert stores[0].manifest.source_digest != stores[1].manifest.source_digest


SETS = {
    # data set: (folder, split, samples, shape, dtype, samples per class)
    "tiny-imagenet": ("tiny-imagenet", "val", 2_000, (3, 64, 64), "uint8", [10] * 200),
    "masks": ("masks", "test", 60, (3, 512, 512), "uint8", [30, 30]),
    "esc50": ("esc50", "train", 160, (1, 64, 862), "float32", None),
}
ESC10_TARGETS = [0, 1, 10, 11, 12, 20, 21, 38, 40, 41]


@pytest.fixture(scope="module")
def shared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decoded")


@pytest.fixture(scope="module")
def recorded(bench_environment, real_data: Path, shared_data_dir: Path) -> Callable[[str], RunRecord]:
    """A run of the installed command for each set, from one backend."""

    @cache
    def run(dataset: str) -> RunRecord:
        folder, split = SETS[dataset][:2]
        flags = ("--backend", "zarr", "--dataset", dataset, "--source", f"local:{real_data / folder}", "--split", split)
        work = ("--epochs", "1", "--batch-size", "20", "--deterministic", "--device", "cpu", "--no-ceiling", "--json")
        places = ("--data-dir", str(shared_data_dir), "--results", str(shared_data_dir / "results"))
        command = [Path(sys.executable).with_name("bench"), "run", *flags, *work, *places]
        ended = subprocess.run(command, env=bench_environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return RunRecord.model_validate(json.loads(ended.stdout))

    return run


@pytest.mark.parametrize("dataset", SETS)
def test_every_set_is_trained_on_by_the_command(recorded, shared_data_dir: Path, dataset: str) -> None:
    _, _, count, shape, dtype, per_class = SETS[dataset]
    record = recorded(dataset)
    assert (record.data.count, record.data.shape, record.data.dtype) == (count, shape, dtype)
    assert (record.data.origin, record.data.skipped_count) == ("local", 0)
    assert record.store.digest_ok
    assert record.data.checked_samples == min(count, 400)
    counts = truth_of(shared_data_dir, dataset)["content"]["class_counts"]
    assert counts == (per_class or [16 if target in ESC10_TARGETS else 0 for target in range(50)])


def truth_of(data_dir: Path, dataset: str) -> dict[str, Any]:
    """Return what is kept of the decoded samples: decoded once, they are those of all backends."""
    (known,) = (data_dir / "sources").glob(f"{dataset}-*/truth.json")
    return json.loads(known.read_text())


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("backend", ON_THE_CPU)
@pytest.mark.parametrize("dataset", SETS)
def test_every_set_goes_through_every_backend_and_is_learnt_alike(
    recorded, real_data: Path, shared_data_dir: Path, dataset: str, backend: str
) -> None:
    record = recorded(dataset)
    folder, split = SETS[dataset][:2]
    place = {"dataset": dataset, "source": f"local:{real_data / folder}", "split": split}
    spec = make_spec(RunSpec, [], backend=backend, batch_size=20, **place)
    built = prepare(spec, shared_data_dir, (), SilentProgress())
    known = built.manifest
    decoded = truth_of(shared_data_dir, dataset)["digest"]
    assert known.store_digest == known.source_digest == record.data.digest == decoded
    assert verify(spec, shared_data_dir, (), SilentProgress())[1].problem is None
    # The second batch is seen by what has learnt from the first.
    loader = loading.make_loader(spec.open_backend().open(built.root), spec)
    torch.manual_seed(spec.seed)
    model = registry.model_builder("cnn")(known.shape, len(known.classes))
    scale = None if known.content.mean is None else (known.content.mean, known.content.std)
    trainer = Trainer(model, torch.device("cpu"), amp=False, scale=scale)
    try:
        losses = trainer.epoch(loader.epoch(0, batches=2), HostClock(), lambda samples: None).batch_loss
    finally:
        loader.close()
    assert losses == record.epochs[0].batch_loss[:2]


@pytest.mark.parametrize(("dataset", "count"), [("tiny-imagenet", 10_000), ("masks", 240), ("esc50", 160)])
def test_decoding_stays_within_its_memory(real_data: Path, tmp_path: Path, dataset: str, count: int) -> None:
    from bench.stores.isolated import prepare as prepare_apart

    source = f"local:{real_data / dataset}"
    spec = make_spec(StoreSpec, [], backend="memmap", dataset=dataset, source=source)
    known = prepare_apart(spec, tmp_path, (), SilentProgress()).manifest
    assert known.count == count
    assert known.decoding.peak_pss_bytes - known.decoding.baseline_pss_bytes < MEMORY_LIMIT_BYTES
    assert known.prepare_peak_rss_bytes - known.prepare_baseline_rss_bytes < MEMORY_LIMIT_BYTES
