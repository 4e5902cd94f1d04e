"""The whole way on real photographs: prepare, verify, train, from every backend."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench import registry
from bench.contracts.source import SilentProgress
from bench.prepare import prepare, verify
from bench.record import RunRecord
from bench.spec import StoreSpec, make_spec

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
    _, result = verify(spec, data_dir, (), SilentProgress())
    assert result.problem is None
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
            *("--limit", "1000", "--deterministic", "--epochs", "2", "--json", "--data-dir", "data"),
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


@pytest.mark.parametrize("backend", ON_THE_CPU)
@pytest.mark.parametrize("dataset", SETS)
def test_every_set_goes_through_every_backend(
    bench, real_data: Path, shared_data_dir: Path, dataset: str, backend: str
) -> None:
    folder, split, count, shape, dtype, per_class = SETS[dataset]
    flags = ("--backend", backend, "--dataset", dataset, "--source", f"local:{real_data / folder}", "--split", split)
    run = ("--epochs", "1", "--batch-size", "20", "--deterministic", "--device", "cpu", "--json")
    result = bench("run", *flags, *run, "--data-dir", str(shared_data_dir))
    assert result.returncode == 0, result.stderr
    record = RunRecord.model_validate(json.loads(result.stdout))
    assert (record.data.count, record.data.shape, record.data.dtype) == (count, shape, dtype)
    assert (record.data.origin, record.data.skipped_count) == ("local", 0)
    assert record.store.digest_ok
    assert record.data.checked_samples == min(count, 400)
    source = f"local:{real_data / folder}"
    spec = make_spec(StoreSpec, [], backend=backend, dataset=dataset, source=source, split=split)
    assert verify(spec, shared_data_dir, (), SilentProgress())[1].problem is None
    # Decoded once: all backends hold what the first one was given, and learn the same from it.
    (known,) = (shared_data_dir / "sources").glob(f"{dataset}-*/truth.json")
    facts = json.loads(known.read_text())
    assert record.data.digest == facts["digest"]
    counts = facts["content"]["class_counts"]
    assert counts == (per_class or [16 if target in ESC10_TARGETS else 0 for target in range(50)])
    losses = LOSSES.setdefault(dataset, record.epochs[0].batch_loss)
    assert record.epochs[0].batch_loss == losses


LOSSES: dict[str, list[float]] = {}


@pytest.mark.parametrize(("dataset", "count"), [("tiny-imagenet", 10_000), ("masks", 240), ("esc50", 160)])
def test_decoding_stays_within_its_memory(real_data: Path, tmp_path: Path, dataset: str, count: int) -> None:
    from bench.isolated import prepare as prepare_apart

    source = f"local:{real_data / dataset}"
    spec = make_spec(StoreSpec, [], backend="memmap", dataset=dataset, source=source)
    known = prepare_apart(spec, tmp_path, (), SilentProgress()).manifest
    assert known.count == count
    assert known.decoding.peak_pss_bytes - known.decoding.baseline_pss_bytes < MEMORY_LIMIT_BYTES
    assert known.prepare_peak_rss_bytes - known.prepare_baseline_rss_bytes < MEMORY_LIMIT_BYTES
