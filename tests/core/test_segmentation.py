"""Steps in values whose truth is known, and how often noise alone shows one."""

import numpy as np
import pytest

from bench.regressions import segmentation
from bench.regressions.segmentation import Division, divisions


@pytest.fixture(autouse=True)
def _fewer_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "ORDERS", 499)


def noise(random: np.random.Generator, count: int, correlation: float, deviation: float = 0.1) -> np.ndarray:
    """Factors around 1, each as alike to the one before as is said."""
    logs = random.normal(0, deviation, count)
    for n in range(1, count):
        logs[n] = correlation * logs[n - 1] + (1 - correlation**2) ** 0.5 * logs[n]
    return np.exp(logs)


def steps(values: np.ndarray, seed: int = 0) -> list[Division]:
    return divisions([values.tolist()], seed=seed)[0]


@pytest.mark.parametrize(("correlation", "most"), [(0.0, 16), (0.5, 32)])
@pytest.mark.parametrize("count", [12, 30])
def test_noise_seldom_makes_a_step_even_where_it_lasts(correlation: float, most: int, count: int) -> None:
    random = np.random.default_rng(1)
    found = sum(bool(steps(noise(random, count, correlation), seed)) for seed in range(200))
    # Of 200, 5 % and 11 %: more than this have a probability of 0.02. Without the correction it is 80 at 0.5.
    assert found <= most


def test_a_clear_step_is_shown_all_the_same() -> None:
    random = np.random.default_rng(1)
    level = np.repeat([1.0, 1.2], 12)
    found = sum(bool(steps(level * noise(random, 24, 0.0), seed)) for seed in range(100))
    assert found >= 75


def test_several_steps_do_not_pass_for_noise_that_lasts() -> None:
    random = np.random.default_rng(1)
    level = np.repeat([1.0, 1.5, 0.8], 10)
    found = [[step.index for step in steps(level * noise(random, 30, 0.0, 0.03), seed)] for seed in range(20)]
    assert sum(places == [10, 20] for places in found) >= 18


def test_a_step_is_as_large_as_it_has_to_be_between_its_final_neighbours() -> None:
    random = np.random.default_rng(3)
    found = 0
    for seed in range(200):
        level = np.concatenate(
            [np.full(n, factor) for n, factor in zip((10, 8, 10), random.uniform(0.9, 1.2, 3), strict=True)]
        )
        values = level * noise(random, 28, 0.0, 0.02)
        for step in steps(values, seed):
            before, behind = np.median(values[step.start : step.index]), np.median(values[step.index : step.end])
            assert max(behind / before, before / behind) > 1.05
            found += 1
    assert found > 100


def test_of_steps_that_are_too_small_in_the_end_the_least_goes_first() -> None:
    values = [1.0] * 4 + [1.03] * 4 + [1.07] * 4
    (left,) = segmentation._bounded(values, [(4, 0.01), (8, 0.02)], 0.035)
    assert (left.start, left.index, left.end, left.p) == (0, 8, 12, 0.02)


def test_p_is_multiplied_as_by_holm_within_a_series_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "ORDERS", 4_999)
    random = np.random.default_rng(1)
    level = np.repeat([1.0, 1.5, 0.8], 10)
    stepped = (level * noise(random, 30, 0.0, 0.03)).tolist()
    others = [noise(random, 30, 0.0).tolist() for _ in range(3)]
    alone, (together, *rest) = divisions([stepped])[0], divisions([stepped, *others])
    assert rest == [[], [], []]
    assert [step.index for step in alone] == [step.index for step in together] == [10, 20]
    first = min(step.p for step in alone)
    assert [step.p for step in together] == pytest.approx([max(4 * first, 4 * step.p) for step in alone])
