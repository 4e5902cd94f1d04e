"""What is measured within a time: worked out by hand from what pilots took."""

import pytest

from bench.campaigns.shortlist import Pilot, plan


def pilot(name: str, epoch_s: float = 1.0, value: float | None = None, *, run_work_s: float = 1.0) -> Pilot:
    """100 samples: a run takes 5 s and what grows with the samples, a store 2 s, half of which grows."""
    wall_s = 5 + run_work_s
    return Pilot(name, 100, epoch_s, epoch_s if value is None else value, wall_s, run_work_s, 2.0, 1.0)


def test_what_grows_with_the_samples_is_scaled_and_nothing_else() -> None:
    one = pilot("a", run_work_s=3)
    assert (one.run_s(100), one.run_s(300)) == (8, 14)
    assert (one.build_s(100), one.build_s(300)) == (2, 4)


def test_with_time_enough_all_ways_run_on_all_samples_as_often_as_fits() -> None:
    pilots = [pilot("a", 1.0), pilot("b", 2.0), pilot("far", 50.0)]
    # Of 300 samples, a run takes 8 s, so a block of three and the control 32 s; the stores take 12 s.
    found = plan(pilots, 300, 1.15 * (12 + 32 * 20) + 1, by_speed=True)
    assert (found.names, found.samples, found.blocks, found.enough) == (("a", "b", "far"), 300, 20, True)
    assert found.dropped == {}


def test_where_not_all_fit_what_is_far_slower_goes_first_if_speed_counts() -> None:
    pilots = [pilot("a", 1.0), pilot("far", 50.0, value=0.5), pilot("b", 2.0), pilot("c", 3.0)]
    # Seven blocks of three and the control, 32 s each, but not eight of four.
    left_s = 1.15 * (12 + 32 * 7) + 1
    found = plan(pilots, 300, left_s, by_speed=True)
    assert (found.names, found.samples, found.blocks) == (("a", "b", "c"), 300, 7)
    assert "50.0 times that of a" in found.dropped["far"]
    kept = plan(pilots, 300, left_s, by_speed=False)
    assert kept.names == ("far", "a", "b"), "the least value first, whatever its epoch takes"
    assert list(kept.dropped) == ["c"]
    assert "no time for it" in kept.dropped["c"]


def test_rather_fewer_samples_than_fewer_than_three_ways() -> None:
    pilots = [pilot(name, run_work_s=10) for name in "abc"]
    # All of 900 samples would take 95 s a run; a third of them 35 s, a ninth 15 s and a store 2 s.
    found = plan(pilots, 900, 1.15 * (6 + 60 * 7) + 1, by_speed=True)
    assert (len(found.names), found.samples, found.blocks, found.enough) == (3, 100, 7, True)


def test_two_ways_where_three_cannot_be_told_apart() -> None:
    found = plan([pilot(name) for name in "abc"], 100, 1.15 * (4 + 18 * 6) + 1, by_speed=True)
    assert (found.names, found.samples, found.blocks, found.enough) == (("a", "b"), 100, 6, True)
    assert list(found.dropped) == ["c"]


def test_too_little_time_is_said_and_used_on_samples_that_cost_hardly_more() -> None:
    pilots = [pilot(name, run_work_s=0.1) for name in "ab"]
    found = plan(pilots, 1000, 40, by_speed=True)
    assert not found.enough
    assert found.names == ("a", "b")
    # A run takes 5.1 s on 100 samples, 5.3 s on 333 and 6 s on 1,000: all within a quarter.
    assert (found.samples, found.blocks) == (1000, 1)
    costly = plan([pilot(name, run_work_s=5) for name in "ab"], 1000, 40, by_speed=True)
    assert costly.samples == 111


@pytest.mark.parametrize("left_s", [-5, 0, 1e9])
def test_there_is_always_a_plan(left_s: float) -> None:
    found = plan([pilot("a")], 100, left_s, by_speed=True)
    assert found.names == ("a",)
    assert found.blocks >= 1
    assert not found.enough
