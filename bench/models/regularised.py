"""Keras's L2, layer by layer, as torch's optimizers can apply it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class Regularised(nn.Sequential):
    """Layers in a row; ``l2`` maps the names of weights to the factors of their penalties."""

    l2: dict[str, float]

    def __init__(self, *layers: nn.Module, l2: Mapping[nn.Module, float]) -> None:
        super().__init__(*layers)
        self.l2 = {f"{name}.weight": l2[layer] for name, layer in self.named_modules() if layer in l2}


def parameter_groups(model: nn.Module, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Return a network's parameters in groups for an optimizer, each with its weight decay.

    Keras adds ``l2 * sum(w**2)`` to the loss, so ``2 * l2 * w`` to the gradient; torch's SGD, Adam, RAdam and RMSprop
    add ``weight_decay * w`` to it. So a penalty is a weight decay of twice its factor, on top of ``weight_decay``,
    which all parameters have. The loss that is reported is without the penalty.
    """
    factors = model.l2 if isinstance(model, Regularised) else {}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(weight_decay + 2 * factors.get(name, 0.0), []).append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()]
