"""The network of a run, with the weights that it begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from bench import registry
from bench.models.weights import load_weights
from bench.specs.spec import NO_MODEL, RunSpec


def make_network(spec: RunSpec, shape: tuple[int, ...], classes: int) -> tuple[nn.Module | None, dict[str, Any]]:
    """Return the network, None to measure loading alone, and facts about its weights for the record.

    Weights are drawn from torch's global generator, and replaced where a file has others. Raises WeightsError.
    """
    if spec.model == NO_MODEL:
        return None, {}
    network = registry.model_builder(spec.model)(shape, classes)
    if spec.weights is None:
        return network, {}
    loaded = load_weights(network, Path(spec.weights), registry.models()[spec.model].fitted)
    return network, {"weights": {"sha256": loaded.sha256, "fresh_layers": list(loaded.fresh_layers)}}
