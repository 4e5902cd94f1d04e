"""The timed epoch, its clock, and equal losses from every backend."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_plugins

from bench import loading, registry
from bench.contracts.backend import BackendError
from bench.contracts.reader import Reader
from bench.contracts.source import SilentProgress
from bench.measure import clock as clocks
from bench.measure.clock import HostClock
from bench.specs.spec import RunSpec, StoreSpec, make_spec
from bench.stores.prepare import prepare
from bench.training import trial
from bench.training.trainer import DeviceError, Recipe, Trainer, normalised, resolve_device

CPU = torch.device("cpu")


def test_a_network_is_compiled_for_each_batch_size_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: asked.append(options) or model)
    Trainer(registry.model_builder("cnn")((3, 8, 8), 3), CPU, amp=False, compiled=True)
    assert asked == [{"dynamic": False}]


class FakeTime:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def pass_ms(self, ms: int) -> None:
        self.now_ns += ms * 1_000_000


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(clocks, "time", fake)
    return fake


def test_phases_are_attributed_exactly_and_add_up(fake_time: FakeTime) -> None:
    clock = HostClock()
    clock.start()
    for wait_ms, copy_ms, compute_ms in ((50, 1, 10), (5, 2, 20), (7, 3, 30)):
        fake_time.pass_ms(wait_ms)
        clock.waited()
        fake_time.pass_ms(copy_ms)
        clock.copied()
        fake_time.pass_ms(compute_ms)
        clock.computed()
    fake_time.pass_ms(4)
    phases = clock.stop()
    assert phases.batch_wait_s == pytest.approx([0.050, 0.005, 0.007])
    assert phases.first_batch_s == pytest.approx(0.050)
    assert (phases.wait_s, phases.copy_s, phases.compute_s) == pytest.approx((0.066, 0.006, 0.060))
    assert phases.epoch_s == pytest.approx(0.132)


def test_a_clock_starts_each_epoch_from_zero(fake_time: FakeTime) -> None:
    clock = HostClock()
    for _ in range(2):
        clock.start()
        fake_time.pass_ms(3)
        clock.waited()
        clock.copied()
        clock.computed()
        phases = clock.stop()
    assert phases.epoch_s == phases.wait_s == pytest.approx(0.003)


def test_waiting_begins_before_the_loader_is_asked_for_an_iterator(fake_time: FakeTime) -> None:
    def batches():
        fake_time.pass_ms(40)  # starting workers
        yield torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)

    result = Trainer(None, CPU, amp=False).epoch(batches(), HostClock(), lambda samples: None)
    assert result.phases.wait_s == pytest.approx(0.040)
    assert (result.samples, result.loss, result.accuracy, result.batch_loss) == (2, None, None, None)


def test_loss_and_accuracy_equal_a_plain_training_loop() -> None:
    x, y = (torch.from_numpy(array) for array in toy_plugins.toy_arrays())
    batches = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 300, 64)]
    torch.manual_seed(0)
    result = Trainer(registry.model_builder("cnn")((3, 8, 8), 3), CPU, amp=False).epoch(
        iter(batches), HostClock(), lambda samples: None
    )

    torch.manual_seed(0)
    model = registry.model_builder("cnn")((3, 8, 8), 3).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses, right = [], 0
    for batch_x, batch_y in batches:
        optimizer.zero_grad()
        scores = model((batch_x.float() - 127.5) / 127.5)
        loss = torch.nn.functional.cross_entropy(scores, batch_y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        right += int((scores.argmax(1) == batch_y).sum())
    assert result.batch_loss == losses
    assert result.accuracy == right / 300
    sizes = [len(batch_y) for _, batch_y in batches]
    assert result.loss == pytest.approx(np.average(losses, weights=sizes))


@pytest.mark.parametrize(
    ("fields", "make"),
    [
        ({"optimizer": "sgd"}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
        ({"lr": 0.1, "momentum": 0, "weight_decay": 0.01}, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01)),
        ({"optimizer": "adam"}, torch.optim.Adam),
        ({"optimizer": "radam", "weight_decay": 0.1}, lambda p: torch.optim.RAdam(p, weight_decay=0.1)),
        ({"optimizer": "rmsprop"}, torch.optim.RMSprop),
        ({"optimizer": "rmsprop", "momentum": 0.5}, lambda p: torch.optim.RMSprop(p, momentum=0.5)),
    ],
    ids=["sgd", "sgd-options", "adam", "radam", "rmsprop", "rmsprop-momentum"],
)
def test_an_optimizer_is_the_one_of_torch_with_these_options(fields: dict, make) -> None:
    spec = make_spec(RunSpec, [], backend="memory", dataset="toys", **fields)
    parameters = torch.nn.Linear(2, 2)
    found, expected = Recipe.of(spec).optimizer_of(parameters), make(parameters.parameters())
    assert type(found) is type(expected)
    (group,), (told,) = found.param_groups, expected.param_groups
    assert list(map(id, group.pop("params"))) == list(map(id, told.pop("params")))
    assert group == told


def test_normalisation_maps_bytes_to_minus_one_to_one_and_standardises_other_values() -> None:
    assert normalised(torch.tensor([0, 255], dtype=torch.uint8), None).tolist() == [-1.0, 1.0]
    floats = torch.tensor([-3.5, 200.0])
    assert normalised(floats, None).tolist() == [-3.5, 200.0]
    assert normalised(floats, (98.25, 50.875)).tolist() == [-2.0, 2.0]
    assert normalised(floats, (200.0, 0.0)).tolist() == [-203.5, 0.0]
    assert floats.tolist() == [-3.5, 200.0], "the batch belongs to the loader"
    whole = torch.tensor([2, 6], dtype=torch.int16)
    assert normalised(whole, (4.0, 2.0)).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("name", ["cnn", "resnet18", "resnet50"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 64, 100), (3, 8, 8), (2, 96, 96)], ids=str)
def test_models_for_images_take_any(name: str, shape: tuple[int, ...]) -> None:
    model = registry.model_builder(name)(shape, 7).eval()
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_the_small_stem_is_for_small_images_only() -> None:
    build = registry.model_builder("resnet18")
    assert build((3, 64, 64), 10).conv1.kernel_size == (3, 3)
    assert isinstance(build((3, 64, 64), 10).maxpool, torch.nn.Identity)
    assert build((3, 65, 65), 10).conv1.kernel_size == (7, 7)
    assert sum(p.numel() for p in build((3, 32, 32), 10).parameters()) == 11_173_962


def test_cnn_has_the_documented_size() -> None:
    parameters = sum(p.numel() for p in registry.model_builder("cnn")((3, 32, 32), 10).parameters())
    assert f"{parameters:,} parameters" in registry.model_builder("cnn").__doc__


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_an_error_with_a_way_out() -> None:
    assert resolve_device("auto") == CPU
    with pytest.raises(
        DeviceError, match=r"--device cuda:0: no CUDA device is available here(: .*)?\. Use --device cpu"
    ):
        resolve_device("cuda:0")


OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version (Triggered internally at CUDAFunctions.cpp:119.)"
)


def test_a_driver_that_does_not_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def available() -> bool:
        warnings.warn(OLD_DRIVER, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", available)
    reason = "The NVIDIA driver on your system is too old (found version 11040)"
    with pytest.raises(DeviceError) as caught:
        resolve_device("cuda")
    expected = f"--device cuda: no CUDA device is available here: {reason}. Use --device cpu or auto."
    assert str(caught.value) == expected
    notes: list[str] = []
    assert resolve_device("auto", notes.append) == CPU
    assert notes == [f"Training on the CPU, as torch cannot use CUDA here: {reason}."]


def test_a_torch_without_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match=r"is available here: this torch was built without CUDA\. Use"):
        resolve_device("cuda")
    notes: list[str] = []
    assert resolve_device("auto", notes.append) == CPU
    assert notes == []


WAYS = [
    {},
    {"workers": 2, "worker_kind": "thread"},
    {"workers": 2, "worker_kind": "process"},
]
STORES = [
    ("memory",),
    ("memmap",),
    ("memmap", "reader=library"),
    ("memmap", "reader=naive"),
    ("cupy",),
    ("filesystem",),
    ("filesystem", "format=npy"),
    ("hdf5",),
    ("hdf5", "chunk=7", "compression=gzip"),
    ("hdf5", "reader=mapped"),
    ("hdf5", "chunk=7", "compression=gzip", "reader=mapped"),
    ("hdf5", "reader=naive"),
    ("zarr",),
    ("zarr", "chunk=4", "shard=16", "codec=zstd"),
    ("zarr", "reader=mapped"),
    ("zarr", "chunk=4", "shard=16", "codec=zstd", "reader=mapped"),
    ("zarr", "reader=naive"),
]


def losses(spec: RunSpec, folder: Path) -> list[float]:
    store_fields = {name: getattr(spec, name) for name in StoreSpec.model_fields}
    built = prepare(StoreSpec(**store_fields), folder, (), SilentProgress())
    loader = loading.make_loader(spec.open_backend().open(built.root), spec)
    torch.manual_seed(spec.seed)
    trainer = Trainer(registry.model_builder("cnn")(built.manifest.shape, 3), CPU, amp=False)
    try:
        results = [trainer.epoch(loader.epoch(e), HostClock(), lambda samples: None) for e in range(2)]
    finally:
        loader.close()
    return list(itertools.chain.from_iterable(result.batch_loss for result in results))


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_every_backend_reader_and_loader_gives_bit_identical_losses(tmp_path: Path) -> None:
    """Every registered backend takes part: a new one is added to STORES or this test fails."""
    assert {store[0] for store in STORES} == set(registry.BACKENDS)
    found = {}
    for (backend, *options), way in [(store, WAYS[0]) for store in STORES] + [
        ((name,), way) for name in registry.BACKENDS for way in WAYS[1:]
    ]:
        spec = make_spec(
            RunSpec, options, backend=backend, dataset="toys", source="synthetic", batch_size=64, seed=3, **way
        )
        found[(backend, *options, *way.values())] = losses(spec, tmp_path)
    reference = found[("memory",)]
    assert len(reference) == 10
    assert len(set(reference)) > 5
    assert {name: values for name, values in found.items() if values != reference} == {}


class TellingReader(Reader):
    def __init__(self, fact: object) -> None:
        super().__init__(1, (1,), np.dtype(np.uint8))
        self._fact = fact

    def read_into(self, indices, x, y) -> None:
        pass

    def facts(self) -> dict[str, object]:
        return {"chunks": self._fact}


def test_facts_that_no_record_can_hold_are_refused_when_the_store_is_opened() -> None:
    assert trial._facts_of(TellingReader(3)) == {"chunks": 3}
    with pytest.raises(BackendError, match=r"facts\(\) of the reader .* int64 is not JSON serializable"):
        trial._facts_of(TellingReader(np.int64(3)))
