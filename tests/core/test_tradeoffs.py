"""Pareto sets, balance and noise, held against definitions and figures worked out by hand."""

import itertools

import pytest
from advising import backends, blocks, run

from bench.comparisons.tradeoffs import PARETO_METRICS, Noise, balance, noise, pareto
from bench.records.groups import Group, equal_runs, same_work


def groups_of(*values: tuple[float, float, float, float]) -> list[Group]:
    names = [f"b{n}" for n in range(len(values))]
    return [
        Group((run(name, t, store_mb=store, ram_mb=ram, prepare_s=prepare),))
        for name, (t, store, ram, prepare) in zip(names, values, strict=True)
    ]


EXACT = dict.fromkeys(PARETO_METRICS, Noise(0.0, "exact"))


def test_the_pareto_set_without_noise_is_that_of_the_definition() -> None:
    values = [tuple(float(v) for v in combination) for combination in itertools.product((1, 2, 3), repeat=4)]
    values = [v for n, v in enumerate(values) if n % 5 == 0]
    found = pareto(groups_of(*values), EXACT)
    expected = [v for v in values if not any(o != v and all(a <= b for a, b in zip(o, v, strict=True)) for o in values)]
    assert backends(found) == [f"b{values.index(v)}" for v in expected]


def test_a_value_within_the_noise_neither_saves_nor_condemns() -> None:
    floors = EXACT | {"epoch_s": Noise(0.05, "by the control")}
    small, large = (1.04, 10, 1, 1), (1.0, 20, 1, 1)
    assert backends(pareto(groups_of(small, large), floors)) == ["b0"], "4 % faster is nothing, twice as large is"
    assert backends(pareto(groups_of(small, large), EXACT)) == ["b0", "b1"]


def test_a_second_of_preparation_counts_for_nothing_and_an_hour_does() -> None:
    floors = EXACT | {"prepare_s": noise([], "prepare_s")}
    assert backends(pareto(groups_of((1, 10, 1, 0.9), (1, 20, 1, 0.1)), floors)) == ["b0"]
    assert backends(pareto(groups_of((1, 10, 1, 3600), (1, 20, 1, 0.1)), floors)) == ["b0", "b1"]


def test_a_circle_of_preferences_is_kept_as_a_whole() -> None:
    floors = dict.fromkeys(PARETO_METRICS, Noise(0.1, "rule"))
    circle = [(1.0, 1.16, 1.08, 1), (1.08, 1.0, 1.16, 1), (1.16, 1.08, 1.0, 1)]
    assert backends(pareto(groups_of(*circle), floors)) == ["b0", "b1", "b2"]


def test_what_is_balanced_is_a_product_of_factors_worked_out_by_hand() -> None:
    groups = groups_of((1.0, 200, 500, 10), (2.0, 100, 500, 0), (1.0, 100, 2000, 10))
    # Ten epochs with preparation take 20, 20 and 20 s, so stores and RAM decide: 2 * 1, 1 * 1, 1 * 4.
    assert list(balance(groups, 10).values()) == pytest.approx([2, 1, 4])
    # One epoch: 11, 2 and 11 s.
    assert list(balance(groups, 1).values()) == pytest.approx([11, 1, 22])


def test_the_noise_is_that_of_the_control_else_the_spread_else_a_guess_that_is_named() -> None:
    (work,) = same_work(equal_runs([*blocks("hdf5", 1.0, twin=True), *blocks("zarr", 1.5)]))
    known = noise(work.groups, "epoch_s")
    assert known.source == "by the control"
    assert known.share == pytest.approx(0.02, abs=0.005)
    (work,) = same_work(equal_runs([run("hdf5", t) for t in (1.0, 1.1, 1.05)]))
    assert noise(work.groups, "epoch_s") == Noise(pytest.approx(0.1), "by the spread of equal runs")
    (work,) = same_work(equal_runs([run("hdf5", 1.0)]))
    assert noise(work.groups, "epoch_s").source.startswith("assumed")
