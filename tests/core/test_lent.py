"""Memory that is lent out as tensors, and used again once nobody holds any of them."""

import gc

import numpy as np
import pytest
import torch

from bench.contracts.reader import Reader
from bench.loading.lent import Lender


class FloatReader(Reader):
    def __init__(self) -> None:
        super().__init__(100, (3, 4), np.dtype(np.float32))

    def read_into(self, indices, x, y) -> None:
        raise AssertionError("not needed here")


def places(lent: tuple[torch.Tensor, torch.Tensor]) -> tuple[int, int]:
    return lent[0].data_ptr(), lent[1].data_ptr()


def test_it_has_room_for_samples_and_their_labels() -> None:
    x, y = Lender(FloatReader(), 7, most=1).lend()
    assert (x.shape, x.dtype) == ((7, 3, 4), torch.float32)
    assert (y.shape, y.dtype) == ((7,), torch.int64)
    x[...], y[...] = 1.5, 3
    assert (x.sum(), y.sum()) == (7 * 12 * 1.5, 21)


@pytest.mark.parametrize(
    "kept",
    [
        lambda x, y: x,
        lambda x, y: y,
        lambda x, y: x[3:5, 1],
        lambda x, y: x.numpy(),
        lambda x, y: x.view(-1).numpy()[5:],
        lambda x, y: x.untyped_storage(),
        lambda x, y: y.view(7, 1),
    ],
    ids=["samples", "labels", "a part", "an array", "a part of an array", "the storage", "another shape"],
)
def test_nothing_that_is_held_in_any_way_is_lent_again(kept) -> None:
    lender = Lender(FloatReader(), 7, most=2)
    x, y = lender.lend()
    first = places((x, y))
    held = kept(x, y)
    del x, y
    other = lender.lend()
    assert not {*places(other)} & {*first}
    del held
    gc.collect()
    again = lender.lend()
    assert places(again) == first


def test_it_keeps_no_more_than_it_was_told() -> None:
    lender = Lender(FloatReader(), 7, most=2)
    all_at_once = [lender.lend() for _ in range(5)]
    assert len({place for lent in all_at_once for place in places(lent)}) == 10
    first_two = {places(lent) for lent in all_at_once[:2]}
    del all_at_once
    assert {places(lent) for lent in [lender.lend(), lender.lend()]} == first_two
