"""Samples changed at random: values against torchvision and masks made by hand, seeds, refusals, time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from running import RUN
from torch import Tensor
from torchvision.transforms import functional as vision
from typer.testing import CliRunner

from bench import loading, registry
from bench.cli import app
from bench.contracts.errors import BenchError
from bench.contracts.source import SilentProgress
from bench.measure import clock as clocks
from bench.measure.clock import CudaClock, HostClock
from bench.records.comparability import differences
from bench.records.facets import FACETS
from bench.records.flat import flatten
from bench.records.record import RunRecord, read_record
from bench.report.reruns import work_flags
from bench.report.tables import work_text
from bench.specs.augmentation import AUGMENTATIONS, AugmentationError, Augmenter
from bench.specs.spec import RunSpec, StoreSpec, make_spec
from bench.stores.prepare import prepare
from bench.training.trainer import Trainer

CPU = torch.device("cpu")


def augmented(name: str, x: Tensor, seed: int = 0, epoch: int = 0, number: int = 0) -> Tensor:
    return Augmenter((name,), seed, tuple(x.shape[1:]), CPU)(x, epoch, number)


def photos(count: int, *shape: int) -> Tensor:
    """Bytes of which no two windows are the same, and none is 0, which is what crops are filled up with."""
    return torch.randint(1, 256, (count, *shape), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def spectrograms(count: int, *shape: int) -> Tensor:
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(6))


# ---------------------------------------------------------------- values


def test_half_of_all_samples_are_flipped_as_torchvision_flips_them() -> None:
    x = photos(400, 3, 9, 12)
    y = augmented("flip", x)
    flipped = [torch.equal(after, vision.hflip(before)) for before, after in zip(x, y, strict=True)]
    kept = [torch.equal(after, before) for before, after in zip(x, y, strict=True)]
    assert [a or b for a, b in zip(flipped, kept, strict=True)] == [True] * 400
    assert 160 <= sum(flipped) <= 240  # 4 deviations
    assert y.dtype == torch.uint8


@pytest.mark.parametrize(
    ("shape", "down", "right"),
    [((3, 32, 32), 4, 4), ((1, 28, 28), 3, 3), ((2, 16, 40), 2, 5), ((1, 4, 4), 1, 1)],
    ids=str,
)
def test_crops_are_windows_of_the_padded_sample_as_torchvision_cuts_them(
    shape: tuple[int, int, int], down: int, right: int
) -> None:
    x = photos(60, *shape)
    found = []
    for before, after in zip(x, augmented("crop", x), strict=True):
        padded = vision.pad(before, [right, down])
        places = [(top, left) for top in range(2 * down + 1) for left in range(2 * right + 1)]
        found += [place for place in places if torch.equal(vision.crop(padded, *place, *shape[1:]), after)]
    assert len(found) == 60, "each crop is one window"
    assert {top for top, _ in found} == set(range(2 * down + 1))
    assert {left for _, left in found} == set(range(2 * right + 1))


@pytest.mark.parametrize(
    ("shape", "widest_band", "longest_span"),
    [((1, 80, 862), 27, 70), ((1, 128, 128), 43, 25), ((1, 13, 40), 4, 8), ((2, 1, 1), 0, 0)],
    ids=str,
)
def test_masks_are_two_bands_and_two_spans_filled_with_the_mean_of_the_sample(
    shape: tuple[int, int, int], widest_band: int, longest_span: int
) -> None:
    x = spectrograms(100, *shape)
    y = augmented("specaugment", x)
    bands, spans = [], []
    for before, after in zip(x.numpy(), y.numpy(), strict=True):
        changed = before != after
        rows, frames = changed.all((0, 2)), changed.all((0, 1))
        by_hand = before.copy()
        by_hand[:, rows, :] = by_hand[:, :, frames] = before.mean(dtype=np.float64)
        np.testing.assert_allclose(after, by_hand, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after[~changed], before[~changed])
        bands.append(rows)
        spans.append(frames)
    for masks, widest in ((np.array(bands), widest_band), (np.array(spans), longest_span)):
        runs = (np.diff(masks.astype(int), axis=1, prepend=0) == 1).sum(1)
        assert runs.max() <= 2
        assert masks.sum(1).max() <= 2 * widest
        assert len(set(masks.sum(1))) > widest // 3, "widths differ"


def test_masks_are_as_wide_and_as_often_as_park_et_al_draw_them() -> None:
    """The mean number of masked frames, in closed form: each of two masks covers a place with its own chance."""
    y = augmented("specaugment", spectrograms(4000, 1, 20, 40))
    spans = (y == y[:, :, :1, :]).all(2).squeeze(1).numpy()
    # By simulation, one mask at a time, with NumPy's generator.
    random = np.random.default_rng(1)
    expected = np.zeros((20_000, 40), bool)
    for mask in expected:
        for _ in range(2):
            width = random.integers(0, 8, endpoint=True)
            start = random.integers(0, 40 - width, endpoint=True)
            mask[start : start + width] = True
    assert spans.mean() == pytest.approx(expected.mean(), rel=0.04)
    np.testing.assert_allclose(spans.mean(0), expected.mean(0), atol=0.04)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "int64", "float16", "float32", "float64"])
def test_any_type_of_sample_stays_what_it_is(name: str, dtype: str) -> None:
    x = (torch.rand(3, 2, 16, 16) * 9).to(getattr(torch, dtype))
    before = x.clone()
    y = augmented(name, x)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert torch.equal(x, before), "the batch belongs to the loader"


# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_values_are_a_function_of_seed_epoch_and_number(name: str) -> None:
    x = photos(64, 1, 32, 32).float()
    state = torch.get_rng_state()
    first = augmented(name, x, 7, 2, 3)
    used = Augmenter((name,), 7, (1, 32, 32), CPU)
    for number in range(3):
        used(x, 2, number)
    assert torch.equal(used(x, 2, 3), first), "what came before does not matter"
    others = [augmented(name, x, *place) for place in ((8, 2, 3), (7, 3, 3), (7, 2, 4), (7, 3, 2))]
    assert not any(torch.equal(first, other) for other in others)
    assert torch.equal(torch.get_rng_state(), state), "nothing else that is random changes"


def test_several_are_applied_in_one_order_however_they_are_named() -> None:
    x = photos(16, 3, 16, 16)
    names = make_spec(RunSpec, [], backend="hdf5", dataset="toys", augment="crop+flip").augment
    assert names == ("flip", "crop")
    both = Augmenter(names, 0, (3, 16, 16), CPU)(x, 0, 0)
    generator = torch.Generator()
    generator.manual_seed(int(np.random.SeedSequence([0, 0, 0]).generate_state(1, np.uint64)[0]))
    one_by_one = AUGMENTATIONS["crop"].change(AUGMENTATIONS["flip"].change(x, generator), generator)
    assert torch.equal(both, one_by_one)


def losses(folder: Path, backend: str, **fields: object) -> list[float]:
    spec = make_spec(RunSpec, [], backend=backend, dataset="toys", source="synthetic", batch_size=64, seed=3, **fields)
    built = prepare(
        StoreSpec(**{name: getattr(spec, name) for name in StoreSpec.model_fields}), folder, (), SilentProgress()
    )
    loader = loading.make_loader(spec.open_backend().open(built.root), spec)
    torch.manual_seed(spec.seed)
    model = registry.model_builder("cnn")(built.manifest.shape, 3)
    augment = Augmenter(spec.augment, spec.seed, built.manifest.shape, CPU) if spec.augment else None
    trainer = Trainer(model, CPU, amp=False, augment=augment)
    try:
        results = [trainer.epoch(loader.epoch(e), HostClock(), lambda _: None, e) for e in range(2)]
    finally:
        loader.close()
    return [loss for result in results for loss in result.batch_loss or []]


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_losses_are_the_same_from_every_backend_and_with_any_workers(tmp_path: Path) -> None:
    every = "+".join(AUGMENTATIONS)
    reference = losses(tmp_path, "hdf5", augment=every)
    assert len(reference) == 10
    assert losses(tmp_path, "zarr", augment=every) == reference
    assert losses(tmp_path, "memmap", augment=every, workers=2, worker_kind="thread") == reference
    assert losses(tmp_path, "hdf5", augment=every, workers=2) == reference
    assert losses(tmp_path, "hdf5") != reference


# ---------------------------------------------------------------- time


class FakeTime:
    def __init__(self) -> None:
        self.now_ns = 10**12

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def pass_ms(self, ms: int) -> None:
        self.now_ns += ms * 1_000_000


def test_the_time_is_told_apart_and_all_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTime()
    monkeypatch.setattr(clocks, "time", fake)
    asked: list[tuple[int, int]] = []

    def change(x: Tensor, epoch: int, number: int) -> Tensor:
        fake.pass_ms(20)
        asked.append((epoch, number))
        return x

    def batches():
        for _ in range(3):
            fake.pass_ms(5)
            yield torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)

    def trained(augment: Callable[[Tensor, int, int], Tensor] | None):
        trainer = Trainer(None, CPU, amp=False, augment=augment)
        return trainer.epoch(batches(), HostClock(), lambda _: fake.pass_ms(1), 4).phases

    phases = trained(change)
    assert asked == [(4, 0), (4, 1), (4, 2)]
    assert (phases.wait_s, phases.copy_s, phases.augment_s, phases.compute_s) == pytest.approx((0.015, 0, 0.06, 0.003))
    assert phases.epoch_s == pytest.approx(0.078)
    assert trained(None).augment_s is None


@pytest.mark.parametrize("augmenting", [True, False])
def test_the_clock_of_cuda_tells_it_apart_as_well(monkeypatch: pytest.MonkeyPatch, augmenting: bool) -> None:
    """Three batches whose phases last 5, 2, (7) and 11 ms of the stream's time, then 3 ms until the end is known."""
    fake = FakeTime()

    class Event:
        def __init__(self, **_: object) -> None:
            self.at_ns = 0

        def record(self) -> None:
            self.at_ns = fake.now_ns

        def elapsed_time(self, other: Event) -> float:
            return (other.at_ns - self.at_ns) / 1e6

    monkeypatch.setattr(clocks, "time", fake)
    monkeypatch.setattr(clocks.torch.cuda, "Event", Event)
    monkeypatch.setattr(clocks.torch.cuda, "synchronize", lambda: None)
    clock = CudaClock()
    for _ in range(2):
        clock.start()
        for _ in range(3):
            for took_ms, seam in ((5, clock.waited), (2, clock.copied), (7, clock.augmented), (11, clock.computed)):
                if augmenting or seam != clock.augmented:
                    fake.pass_ms(took_ms)
                    seam()
        fake.pass_ms(3)
        phases = clock.stop()
    assert phases.batch_wait_s == pytest.approx([0.005] * 3)
    assert (phases.wait_s, phases.copy_s, phases.compute_s) == pytest.approx((0.018, 0.006, 0.033))
    assert phases.augment_s == (pytest.approx(0.021) if augmenting else None)
    assert phases.epoch_s == pytest.approx(0.057 + 0.021 * augmenting)


def test_a_run_tells_what_it_cost_and_checks_what_was_delivered_as_ever(bench, tmp_path: Path) -> None:
    result = bench(*RUN, "--backend", "memmap", "--epochs", "2", "--augment", "crop+flip", "--json")
    assert result.returncode == 0, result.stderr
    record = RunRecord.model_validate_json(result.stdout)
    assert record.spec.augment == ("flip", "crop")
    assert json.loads(result.stdout)["spec"]["augment"] == ["flip", "crop"]
    for info in (*record.epochs, record.ideal):
        parts_s = info.wait_s + info.copy_s + info.augment_s + info.compute_s
        assert parts_s == pytest.approx(info.epoch_s, rel=0.01)
        assert info.augment_s > 0
    assert record.data.checked_samples == 300
    shown = bench("show", str(next((tmp_path / "results").glob("*.json")))).stdout
    assert "changing samples at random" in shown
    assert "% of the epoch, which no format changes." in shown


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"augment": "flop"}, "--augment 'flop': 'flop' is no augmentation; choose from flip, crop, specaugment, sev"),
        ({"augment": "flip+"}, "'' is no augmentation"),
        ({"augment": "flip+flip"}, "each augmentation can be named once."),
        ({"augment": "none+flip"}, "'none' is no augmentation"),
        ({"augment": "flip", "model": "none"}, "--augment goes with a network: --model none"),
        (
            {"augment": "flip", "dataset": "esc50"},
            "--augment flip does not go with esc50, which has sounds: on a spectrogram it would turn time round. "
            "For sounds there is: specaugment.",
        ),
        ({"augment": "specaugment+crop", "dataset": "gtzan"}, "--augment crop does not go with gtzan"),
        ({"augment": "specaugment", "dataset": "cifar10"}, "For images there is: flip+crop."),
    ],
)
def test_nonsense_is_one_line(fields: dict[str, str], said: str) -> None:
    with pytest.raises(BenchError) as caught:
        make_spec(RunSpec, [], **{"backend": "hdf5", "dataset": "toys", **fields})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(), (7,), (8, 8), (3, 8, 8, 8)], ids=str)
def test_samples_without_rows_and_columns_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AugmentationError, match=r"--augment flip\+crop needs samples of channels x height x width"):
        Augmenter(("flip", "crop"), 0, shape, CPU)


def test_it_is_part_of_a_run_and_leaves_others_their_identity() -> None:
    plain = RunSpec(backend="hdf5", dataset="toys", options={"reader": "library"})
    # Written down before there was any augmentation.
    assert plain.spec_id == RunSpec.model_validate({**plain.model_dump(), "augment": "none"}).spec_id
    assert plain.spec_id == "393cbea41327574b"
    changed = RunSpec.model_validate({**plain.model_dump(), "augment": "flip"})
    assert changed.spec_id != plain.spec_id
    assert RunSpec.model_validate_json(changed.model_dump_json()) == changed


def test_a_matrix_takes_each_choice_as_one_value() -> None:
    result = CliRunner().invoke(
        app,
        "matrix --backend hdf5 --dataset cifar10 --source synthetic --dry-run "
        "--augment none --augment flip --augment flip+crop",
    )
    assert result.exit_code == 0, result.output
    assert "hdf5[library] flip+crop" in result.output
    assert "3 cells" in result.output


def test_everywhere_it_is_written_as_it_is_asked_for() -> None:
    plain = read_record(Path(__file__).parent / "records" / "version-2.json")
    spec = RunSpec.model_validate({**plain.spec.model_dump(), "augment": "crop+flip"})
    changed = plain.model_copy(update={"spec": spec})
    assert [FACETS["augment"].of(record) for record in (plain, changed)] == ["none", "flip+crop"]
    assert "augment (none or flip+crop)" in [str(found) for found in differences([plain, changed])]
    flags = work_flags(spec)
    assert flags[flags.index("--augment") + 1] == "flip+crop"
    assert "--augment" not in work_flags(plain.spec)
    assert {row.get("spec_augment") for row in flatten([("a", plain), ("b", changed)]).rows} == {None, "flip+crop"}
    assert work_text(changed).endswith("augmented by flip+crop")
