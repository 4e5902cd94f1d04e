"""Which samples are trained on, which are held out, and how much classes count."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from bench.loading.order import Order
from bench.runs import suitability
from bench.specs import sampling
from bench.specs.spec import RunSpec, make_spec

CLASSES = tuple("abcdefgh")


def spec(**fields) -> RunSpec:
    return RunSpec(backend="toy", dataset="toys", batch_size=32, **fields)


@given(
    counts=st.lists(st.integers(2, 60), min_size=1, max_size=8),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_share_of_every_class_is_held_out_and_each_sample_is_somewhere(
    counts: list[int], share: float, seed: int
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    found = sampling.divide(labels, share, seed, CLASSES)
    assert sorted([*found.trained, *found.held_out]) == list(range(len(labels)))
    assert list(found.trained) == sorted(found.trained)
    assert list(found.held_out) == sorted(found.held_out)
    for kind, count in enumerate(counts):
        held_out = int((labels[found.held_out] == kind).sum())
        assert 1 <= held_out <= count - 1
        assert abs(held_out - share * count) <= 1 or held_out in {1, count - 1}
    if all(1 <= share * count <= count - 1 for count in counts):
        assert len(found.held_out) == round(share * len(labels))


def test_a_division_depends_on_the_seed_alone() -> None:
    labels = np.arange(400) % 4
    first, again, other = (sampling.divide(labels, 0.25, seed, CLASSES).held_out for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    # Drawn anew, a quarter of the samples would be the same.
    assert 10 <= len(np.intersect1d(first, other)) <= 45


def test_a_class_of_a_single_sample_cannot_be_divided() -> None:
    with pytest.raises(sampling.ClassError, match=r"--val 0\.1: class 'c' has a single sample here, which cannot be"):
        sampling.divide(np.array([0, 0, 1, 1, 2]), 0.1, 0, CLASSES)


def test_classes_on_one_side_alone_are_named() -> None:
    trained, evaluated = np.array([0, 0, 1, 3]), np.array([0, 2, 4])
    with pytest.raises(
        sampling.ClassError, match=r"toys test has samples of class 'c' and 1 more, of which there is n"
    ):
        sampling.require_trained(trained, evaluated, CLASSES, "toys test")
    sampling.require_trained(trained, np.array([1, 3]), CLASSES, "toys test")
    assert sampling.missing_classes(trained, evaluated, CLASSES) == ["b", "d"]


def test_class_weights_are_those_of_scikit_learn() -> None:
    labels = np.array([0] * 5 + [1] * 20 + [4] * 7)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 4]), y=labels)
    found = sampling.balanced_weights(labels, 6)
    assert found[[0, 1, 4]] == pytest.approx(expected)
    assert found[[2, 3, 5]].tolist() == [0, 0, 0]
    assert found[labels].mean() == pytest.approx(1)


def test_an_order_of_members_shuffles_them_alone() -> None:
    members = np.flatnonzero(np.arange(300) % 3)
    for fields in ({}, {"shuffle": "block", "block_samples": 16, "buffer_blocks": 2}, {"shuffle": "none"}):
        order = Order(spec(**fields), 300, members)
        assert len(order) == 200
        first, second = order.epoch(0), order.epoch(1)
        assert sorted(first) == sorted(second) == list(members)
        assert np.array_equal(first, second) == (fields == {"shuffle": "none"})
        assert np.array_equal(first, members[order.places(0)])
        batches = order.batches(0)
        assert [len(batch) for batch in batches] == [32] * 6 + [8]
        assert np.array_equal(np.concatenate(batches), first)
        assert np.array_equal(np.concatenate(order.batches(0, 2)), first[:64])


def test_a_balanced_sampler_draws_every_class_as_often() -> None:
    labels = np.random.default_rng(3).permutation(np.repeat([0, 1, 2], [20, 80, 500]))
    members = np.flatnonzero(np.arange(600) % 2)
    weights = sampling.balanced_weights(labels[members], 3)[labels[members]]
    order = Order(spec(balanced_sampler=True, seed=4), 600, members, weights)
    drawn = np.concatenate([order.epoch(epoch) for epoch in range(20)])
    assert len(drawn) == 20 * 300
    assert set(drawn) <= set(members)
    shares = np.bincount(labels[drawn]) / len(drawn)
    # The standard deviation of a share is 0.006.
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    same = Order(spec(balanced_sampler=True, seed=4), 600, members, weights)
    assert np.array_equal(same.epoch(7), order.epoch(7))
    assert not np.array_equal(order.epoch(7), order.epoch(8))
    assert not np.array_equal(Order(spec(seed=5), 600, members, weights).epoch(7), order.epoch(7))
    within = [drawn[labels[drawn] == kind] for kind in range(3)]
    # Samples of a class are drawn alike: 100 of each of the rare ones on average.
    times = np.bincount(within[0])[np.unique(within[0])]
    assert len(times) == int((labels[members] == 0).sum())
    assert times.min() > 0.7 * times.mean()


def test_what_is_left_to_train_on_is_known_before_the_run(tmp_path: Path) -> None:
    """Of ten classes one each is held out at least, so a share of 0.5 % of 160 leaves 150, and not 159."""
    labels = np.repeat(np.arange(10), 16)
    np.savez(tmp_path / "labels.npz", y=labels)
    known = SimpleNamespace(count=160, classes=tuple("abcdefghij"))
    store = SimpleNamespace(manifest=known, hashes_path=tmp_path / "hashes.npy")
    fields = {"backend": "memory", "dataset": "toys", "model": "resnet18-audio", "val": "0.005"}
    suitability.require_batch(make_spec(RunSpec, [], **fields, batch_size=150), store)
    with pytest.raises(suitability.BatchTooSmallError, match="--batch-size 149 leaves of 150 samples"):
        suitability.require_batch(make_spec(RunSpec, [], **fields, batch_size=149), store)
    with pytest.raises(suitability.BatchTooLargeError, match="160 samples, of which 10 are held out"):
        suitability.require_batch(make_spec(RunSpec, [], **fields, batch_size=151), store)


def test_a_share_is_kept_in_full() -> None:
    kept = make_spec(RunSpec, [], backend="memory", dataset="toys", val="0.9999999")
    assert kept.val_share == 0.9999999
    assert RunSpec.model_validate_json(kept.model_dump_json()) == kept
