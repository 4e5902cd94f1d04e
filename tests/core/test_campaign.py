"""The order of a comparison's runs."""

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.campaigns.series import new_identity
from bench.comparisons.campaign import CampaignError, Slot, plan

CELLS = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(CELLS, st.integers(1, 12), st.integers(0, 2**70))
def test_every_block_holds_each_cell_once_and_the_control_once(cells: list[str], blocks: int, seed: int) -> None:
    slots = plan(cells, blocks, seed)
    by_block = {number: list(group) for number, group in groupby(slots, key=lambda slot: slot.block)}
    assert list(by_block) == list(range(blocks))
    for group in by_block.values():
        assert [slot.position for slot in group] == list(range(len(cells) + 1))
        assert sorted(slot.cell for slot in group if not slot.control) == sorted(cells)
        assert [slot.cell for slot in group if slot.control] == [cells[0]]
        assert len({slot.name for slot in group}) == len(cells) + 1


def test_the_same_seed_gives_the_same_plan_for_ever() -> None:
    # Sorted by hand from the keys that random.Random(7).random() gives in CPython since 2.3:
    # 0.324 0.151 0.651, 0.072 0.536 0.366, for zarr, hdf5 and the control.
    expected = [
        *[Slot(0, 0, "hdf5", False), Slot(0, 1, "zarr", False), Slot(0, 2, "zarr", True)],
        *[Slot(1, 0, "zarr", False), Slot(1, 1, "zarr", True), Slot(1, 2, "hdf5", False)],
    ]
    assert plan(["zarr", "hdf5"], 2, 7) == expected


def test_more_blocks_continue_a_plan_and_other_seeds_give_others() -> None:
    assert plan("abc", 8, 3)[:12] == plan("abc", 3, 3)
    assert len({tuple(plan("abc", 8, seed)) for seed in range(20)}) == 20


def test_cells_are_never_run_one_after_the_other() -> None:
    for seed in range(50):
        slots = plan("ab", 8, seed)
        places = {cell: [i for i, slot in enumerate(slots) if slot.name == cell] for cell in ("a", "b")}
        # In AAAA BBBB all of one come before all of the other; here, each is within a block of its partner.
        assert max(places["a"]) > min(places["b"])
        assert max(places["b"]) > min(places["a"])
        assert all(abs(a - b) <= 2 for a, b in zip(places["a"], places["b"], strict=True))


def test_every_order_of_a_block_is_as_likely() -> None:
    orders = Counter("".join("C" if s.control else s.cell for s in plan("ab", 1, seed)) for seed in range(3000))
    assert len(orders) == 6
    # Four standard deviations of a binomial with 3000 and 1/6.
    assert all(abs(count - 500) < 82 for count in orders.values())


@pytest.mark.parametrize(
    ("cells", "blocks", "seed", "message"),
    [
        ([], 8, 0, "nothing to compare"),
        (["a", "b", "a"], 8, 0, "a is named twice"),
        (["a", "a again"], 8, 0, "a again is named twice"),
        (["a", ""], 8, 0, "no name"),
        (["a"], 0, 0, "--blocks 0"),
        (["a"], 8, -1, "--seed -1"),
    ],
)
def test_senseless_plans_are_refused_in_one_line(cells: list[str], blocks: int, seed: int, message: str) -> None:
    with pytest.raises(CampaignError, match=message) as caught:
        plan(cells, blocks, seed)
    assert "\n" not in str(caught.value)


def test_campaigns_that_begin_in_the_same_second_are_told_apart() -> None:
    assert len({new_identity("cifar10") for _ in range(8)}) > 1
