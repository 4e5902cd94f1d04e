"""What a network costs: parameters, and operations per sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Cost:
    """``flops`` are those of one forward pass of one sample, a multiply-add counted as 2."""

    parameters: int
    flops: int


def cost_of(build: Callable[[tuple[int, ...], int], nn.Module], shape: tuple[int, ...], classes: int) -> Cost:
    """Return what a network costs for samples of a shape.

    torch's counter sees convolutions and products of matrices, which are nearly all. On the meta device nothing is
    computed and no memory taken, and recurrent layers are made of such products, where the CPU has a kernel
    that the counter does not know.
    """
    with torch.device("meta"):
        network = build(shape, classes).eval()
        sample = torch.zeros(1, *shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(sample)
    return Cost(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops())
