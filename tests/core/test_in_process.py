"""What can be measured in the process of somebody's test suite, and what is refused there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import toy_plugins

from bench import registry
from bench.contracts.options import Options
from bench.contracts.reader import Indices
from bench.pytest_plugin import MakeBackend, MakeDataset
from bench.runs.in_process import DeliveredWrongError, Meter, Prepared, spec_of
from bench.specs.spec import RunSpec, SpecError


class Several(Options):
    sizes: tuple[int, ...] = (1,)
    names: list[str] | None = None
    label: str = ""


@pytest.mark.parametrize(
    ("backend", "options"),
    [("zarr", {"shard": None, "chunk": 64}), ("hdf5", {"chunk": None}), ("filesystem", {"quality": None})],
)
def test_options_of_a_registered_backend_may_be_none(backend: str, options: dict) -> None:
    chosen = spec_of(backend, options, "synthetic").options
    assert {name: chosen[name] for name in options} == options


def test_options_of_a_registered_backend_may_be_tuples_and_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toy_plugins.ToyBackend.options_type", Several)
    given = {"sizes": (2, 3), "names": ["b", "c=d"], "label": "[4]"}
    spec = spec_of("toy", given, "toys", batch_size=2)
    assert type(spec.open_backend()) is toy_plugins.ToyBackend
    assert spec.open_backend().options == Several(sizes=(2, 3), names=["b", "c=d"], label="[4]")


@pytest.mark.parametrize("backend", ["hdf5", "class"])
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"chunks": 4}, "Unknown hdf5 option 'chunks'. Did you mean chunk? Known: "),
        ({"chunk": 0}, "--option chunk=0: input should be greater than or equal to 1 (hdf5)."),
        ({"compression": "zip"}, "--option compression=zip: input should be "),
        ({"chunk": True}, "--option chunk=True: input should be a number (hdf5)."),
        ({"chunk": (1, 2)}, "--option chunk=(1, 2): input should be a valid integer (hdf5)."),
    ],
)
def test_wrong_options_are_one_line(backend: str, options: dict, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(backend if backend == "hdf5" else registry.backend_class("hdf5"), options, "synthetic")
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_a_field_that_changes_nothing_here_is_refused_in_one_line() -> None:
    # Told by hand what a reader and a loader in this process take: whatever else a run has or gets is refused.
    counts = {"source", "split", "limit", "batch_size", "shuffle", "block_samples", "buffer_blocks", "seed"}
    counts |= {"workers", "worker_kind", "start_method", "prefetch"}
    others = set(RunSpec.model_fields) - counts - {"backend", "dataset", "dataset_options", "options"}
    assert others >= {
        "cache",
        "drop_caches",
        "memory_limit_bytes",
        "model",
        "device",
        "epochs",
        "amp",
        "compile",
        "val",
    }
    for name in sorted(others):
        with pytest.raises(SpecError) as caught:
            spec_of("memmap", {}, "synthetic", **{name: RunSpec.model_fields[name].default})
        assert str(caught.value).startswith(f"{name} has no effect here: ")
        assert "Leave it out or use `bench run`." in str(caught.value)
        assert "\n" not in str(caught.value)


def test_fields_that_count_are_taken() -> None:
    work = {"source": "synthetic", "split": "test", "limit": 600, "batch_size": 50, "seed": 4, "shuffle": "block"}
    work |= {"block_samples": 20, "buffer_blocks": 3, "workers": 2, "start_method": "spawn", "prefetch": 5}
    for more in ({"worker_kind": "process"}, {"worker_kind": "thread", "start_method": "fork"}):
        spec = spec_of("memmap", {}, "fashion-mnist", **{**work, **more})
        assert spec.model_dump(include={*work, *more}) == {**work, **more}


@pytest.mark.parametrize("work", [{"prefetch": 5}, {"worker_kind": "thread"}, {"start_method": "spawn"}], ids=str)
def test_what_workers_do_is_refused_where_there_are_none(work: dict) -> None:
    with pytest.raises(SpecError, match="does nothing without --workers"):
        spec_of("memmap", {}, "synthetic", **work)


def test_a_misspelt_field_is_told_what_there_is() -> None:
    with pytest.raises(SpecError, match=r"^batchsize has no effect here.* What has: source, .*batch_size, "):
        spec_of("memmap", {}, "synthetic", batchsize=5)


def test_facts_tell_of_nothing_that_was_not_done(tmp_path: Path) -> None:
    prepared = Prepared(spec_of("memmap", {}, "synthetic", limit=64, batch_size=16), tmp_path)
    told = Meter().facts(prepared)["spec"]
    assert (told["backend"], told["limit"], told["batch_size"]) == ("memmap", 64, 16)
    assert not told.keys() & {"epochs", "cache", "model", "device", "amp", "lr"}


@pytest.mark.parametrize("variable", ["BENCH_DATA", "XDG_CACHE_HOME"])
def test_data_is_looked_for_where_bench_run_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    if variable == "XDG_CACHE_HOME" and sys.platform != "linux":
        pytest.skip("the cache folder of Linux")
    monkeypatch.delenv("BENCH_DATA", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    folder = (tmp_path if variable == "BENCH_DATA" else tmp_path / "dataset-bench") / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    # The published layout: a label byte and 3,072 pixels a record.
    records = np.random.default_rng(7).integers(0, 256, (24, 3073), np.uint8)
    records[:, 0] %= 10
    for number, part in enumerate(np.split(records[:20], 5), 1):
        (folder / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    (folder / "test_batch.bin").write_bytes(records[20:].tobytes())
    data = MakeDataset()("cifar10", limit=16)
    prepared = MakeBackend(tmp_path / "stores")("memmap").prepared(data, batch_size=8)
    assert Meter().facts(prepared)["origin"] == "local"
    assert np.load(prepared.store.path / "labels.npz")["y"].tolist() == records[:16, 0].tolist()
    prepared.build()
    assert Meter().facts(prepared)["origin"] == "local"


def test_facts_tell_of_a_stand_in(tmp_path: Path) -> None:
    prepared = Prepared(spec_of("memmap", {}, "cifar10", source="synthetic", limit=64, batch_size=16), tmp_path)
    assert Meter().facts(prepared)["origin"] == "synthetic"


class LateReader(toy_plugins.ToyReader):
    """Right when read in order, as the store is verified; else one value is wrong, of sample ``wrong``."""

    wrong = -1

    def read_into(self, indices: Indices, x, y) -> None:
        super().read_into(indices, x, y)
        if list(indices) != sorted(indices):
            x.numpy()[np.asarray(indices) == self.wrong] += 1


class Late(toy_plugins.ToyBackend):
    name = "late"
    reader = LateReader


def test_every_sample_of_an_epoch_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = Prepared(spec_of(Late, {}, "toys", batch_size=7, seed=3), tmp_path)
    count = len(toy_plugins.toy_arrays()[1])
    assert prepared.check() == count > 20 * 7
    # The order of the second epoch, by NumPy's own generator as the documents say.
    last = int(np.random.default_rng([3, 1]).permutation(count)[-1])
    monkeypatch.setattr(LateReader, "wrong", last)
    with pytest.raises(DeliveredWrongError):
        prepared.check()


def test_of_a_large_set_so_many_bytes_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = Prepared(spec_of("memmap", {}, "synthetic", limit=256, batch_size=16), tmp_path)
    # Photos of 3 x 32 x 32 bytes: up to six batches of 16 of them, and not quite.
    monkeypatch.setattr("bench.runs.in_process.CHECKED_BYTES", 6 * 16 * 3072 - 1)
    assert prepared.check() == 6 * 16
    monkeypatch.setattr("bench.runs.in_process.CHECKED_BYTES", 1)
    assert prepared.check() == 16
