"""The order of samples: which permutations it can be, and how far from a uniform one."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import toy_plugins
from hypothesis import given
from hypothesis import strategies as st
from running import RUN
from scipy.stats import chi2_contingency

from bench.contracts.backend import BackendError
from bench.contracts.reader import Reader
from bench.loading import order
from bench.records.record import RunRecord
from bench.specs.spec import RunSpec
from bench.stores import digest

X, Y = toy_plugins.toy_arrays()
SIZES = st.integers(1, 40)


def spec(**fields) -> RunSpec:
    return RunSpec(backend="toy", dataset="toys", **fields)


def blocks(count: int, samples: int, buffer: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return order.epoch_order(
        spec(shuffle="block", block_samples=samples, buffer_blocks=buffer, seed=seed), count, epoch
    )


@given(count=st.integers(1, 400), samples=SIZES, buffer=SIZES, seed=st.integers(0, 99))
def test_every_sample_comes_once_and_whole_blocks_share_a_buffer(
    count: int, samples: int, buffer: int, seed: int
) -> None:
    found = blocks(count, samples, buffer, seed).tolist()
    assert sorted(found) == list(range(count))
    while found:
        # The first blocks to appear are those of the buffer: all of them do before any other.
        together = list(dict.fromkeys(index // samples for index in found))[:buffer]
        held = [index for index in range(count) if index // samples in together]
        assert sorted(found[: len(held)]) == held
        found = found[len(held) :]


@pytest.mark.parametrize(("samples", "buffer"), [(2, 2), (3, 2), (3, 9), (1, 4), (9, 1), (10**15, 10**15)])
def test_a_buffer_of_everything_is_a_uniform_shuffle(samples: int, buffer: int) -> None:
    """Also where the last block is shorter: each of the 24 orders of 4 samples comes equally often."""
    times = Counter(tuple(blocks(4, samples, buffer, seed).tolist()) for seed in range(4800))
    assert len(times) == 24
    chi_squared = sum((found - 200) ** 2 / 200 for found in times.values())
    assert chi_squared < 53, "23 degrees of freedom exceed this once in 2,600 times"


def test_blocks_come_in_random_order_and_samples_of_a_buffer_too() -> None:
    found = blocks(6400, 64, 4)
    firsts = found.reshape(25, 256)[:, 0] // 64
    assert order.mean_displacement(np.argsort(np.argsort(firsts))) > 0.6
    assert len({tuple(sorted(set(part // 64))) for part in found.reshape(25, 256)}) == 25
    for part in found.reshape(25, 256):
        assert 0.8 < order.mean_displacement(np.argsort(np.argsort(part))) < 1.2


def test_seeds_and_epochs_differ_and_an_order_can_be_had_again() -> None:
    found = {blocks(300, 16, 4, seed, epoch).tobytes() for seed in (0, 1) for epoch in (0, 1)}
    assert len(found) == 4
    assert blocks(300, 16, 4, 1, 1).tobytes() in found


def test_displacement_is_relative_to_the_mean_over_all_permutations() -> None:
    every = [order.mean_displacement(np.array(p)) for p in itertools.permutations(range(6))]
    assert np.mean(every) == pytest.approx(1)
    assert order.mean_displacement(np.arange(9)) == 0
    assert order.mean_displacement(np.arange(1000)[::-1]) == pytest.approx(1.5, rel=1e-5)
    assert order.mean_displacement(np.arange(1)) is None


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5])
def test_mixing_is_relative_to_the_mean_over_all_permutations(batch_size: int) -> None:
    labels = np.array([7, 7, 7, 0, 2, 2])
    every = [order.class_mixing(np.array(p), labels, batch_size) for p in itertools.permutations(range(6))]
    assert np.mean(every) == pytest.approx(1)


@given(st.integers(0, 99), st.integers(2, 70))
def test_mixing_is_pearsons_chi_squared_over_its_mean(seed: int, batch_size: int) -> None:
    random = np.random.default_rng(seed)
    labels, found = random.integers(0, 4, 140), random.permutation(140)
    batches = [labels[found[start : start + batch_size]] for start in range(0, 140, batch_size)]
    table = np.array([np.bincount(batch, minlength=4) for batch in batches])
    expected = 140 / 139 * (len(batches) - 1) * 3
    mixing = order.class_mixing(found, labels, batch_size)
    assert mixing == pytest.approx(chi2_contingency(table, correction=False).statistic / expected)


def test_mixing_tells_a_uniform_shuffle_from_blocks_and_from_none() -> None:
    labels = np.repeat(np.arange(10), 1000)
    count, batch_size = len(labels), 100
    assert order.class_mixing(np.arange(count), labels, batch_size) == pytest.approx((count - 1) / 99)

    def mean(**fields) -> float:
        orders = [order.epoch_order(spec(seed=seed, **fields), count, 0) for seed in range(20)]
        return float(np.mean([order.class_mixing(found, labels, batch_size) for found in orders]))

    # 20 shuffles of 99 x 9 degrees of freedom: the mean lies within 0.011 of 1 by one standard deviation.
    assert mean(shuffle="full") == pytest.approx(1, abs=0.05)
    assert mean(shuffle="block", block_samples=100, buffer_blocks=100) == pytest.approx(1, abs=0.05)
    # The classes of a buffer are those of 10 blocks, so they vary as those of 10 samples do, beside those of a batch.
    assert mean(shuffle="block", block_samples=100, buffer_blocks=10) == pytest.approx(1 + 100 / 10 * 0.9, rel=0.1)
    assert mean(shuffle="block", block_samples=100, buffer_blocks=1) == pytest.approx(101, rel=0.01)


def test_where_nothing_can_be_mixed_there_is_no_mixing() -> None:
    assert order.class_mixing(np.arange(6), np.zeros(6, np.int64), 2) is None
    assert order.class_mixing(np.arange(6), np.arange(6), 6) is None


class ToyReader(Reader):
    def __init__(self) -> None:
        super().__init__(len(Y), X.shape[1:], X.dtype)
        self.read = 0
        self.changed = X

    def read_into(self, indices, x, y) -> None:
        self.read += len(indices)
        x.numpy()[:] = self.changed[indices]
        y.numpy()[:] = Y[indices]


@pytest.fixture
def hashes_path(tmp_path: Path) -> Path:
    path = tmp_path / "hashes.npy"
    np.save(path, digest.sample_hashes(np.arange(len(Y)), X, Y))
    return path


def labels_by(reader: Reader, hashes_path: Path) -> list[int]:
    heard: list[int] = []
    found = order.stored_labels(reader, hashes_path, 64, heard.append)
    assert sum(heard) == reader.read
    return found.tolist()


def test_labels_are_read_once_for_a_store(hashes_path: Path) -> None:
    first, second = ToyReader(), ToyReader()
    assert labels_by(first, hashes_path) == labels_by(second, hashes_path) == Y.tolist()
    assert (first.read, second.read) == (len(Y), 0)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "shorter", "text", "another"])
def test_labels_that_are_not_intact_are_read_again(hashes_path: Path, damage: str) -> None:
    labels_by(ToyReader(), hashes_path)
    path = hashes_path.with_name("labels.npz")
    content = path.read_bytes()
    if damage == "shorter":
        np.savez(path, y=Y[:-1])
    elif damage == "another":
        np.savez(path, z=Y)
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"truncated": content[:middle], "flipped": flipped, "text": b"labels"}[damage])
    reader = ToyReader()
    assert labels_by(reader, hashes_path) == Y.tolist()
    assert reader.read == len(Y)
    assert labels_by(ToyReader(), hashes_path) == Y.tolist()
    assert np.array_equal(np.load(path)["y"], Y)


def test_labels_that_cannot_be_kept_are_there_all_the_same(hashes_path: Path) -> None:
    hashes_path.with_name("labels.npz").mkdir()
    assert labels_by(ToyReader(), hashes_path) == Y.tolist()
    assert sorted(path.name for path in hashes_path.parent.iterdir()) == ["hashes.npy", "labels.npz"]


def test_a_sample_that_is_not_the_stores_is_named(hashes_path: Path) -> None:
    reader = ToyReader()
    reader.changed = X.copy()
    reader.changed[123, 0, 0, 0] ^= 1
    with pytest.raises(BackendError, match="Sample 123 is not what the store was built with"):
        order.stored_labels(reader, hashes_path, 64, lambda count: None)
    assert not hashes_path.with_name("labels.npz").exists()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for several runs: the first one builds it, and its labels are those that the others read."""
    return tmp_path_factory.mktemp("order")


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ((), {}),
        (("--shuffle", "none"), {"shuffle": "none"}),
        (("--shuffle", "block"), {"shuffle": "block", "block_samples": 256, "buffer_blocks": 16}),
        (
            ("--shuffle", "block", "--block-samples", "20", "--buffer-blocks", "2"),
            {"shuffle": "block", "block_samples": 20, "buffer_blocks": 2},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_run_records_its_order_and_how_well_it_shuffled(bench, data_dir: Path, flags, fields: dict) -> None:
    command = (*RUN, "--backend", "memmap", "--model", "none", "--epochs", "1", "--json", *flags)
    record = RunRecord.model_validate_json(bench(*command, "--data-dir", str(data_dir)).stdout)
    expected = order.epoch_order(spec(**fields), len(Y), 0)
    assert record.status == "ok"
    assert record.order.kind == record.spec.shuffle == fields.get("shuffle", "full")
    assert (record.order.block_samples, record.order.buffer_blocks) == (
        fields.get("block_samples"),
        fields.get("buffer_blocks"),
    )
    assert record.order.mean_displacement == order.mean_displacement(expected)
    assert record.order.class_mixing == order.class_mixing(expected, Y, 32)
    (kept,) = data_dir.glob("stores/toys/memmap-*/labels.npz")
    assert np.array_equal(np.load(kept)["y"], Y)
