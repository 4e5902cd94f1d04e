"""Weights from a file: a state dict, read without running any code that the file may hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts.errors import BenchError

_COUNTER = ".num_batches_tracked"
"""What batch normalisation counts, and files of old versions of torch lack; only a momentum of None reads it."""

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""torchvision's published DenseNets have the names of a time when they could have dots in them."""

_NAMED = 3


class WeightsError(BenchError):
    """A file of weights that cannot be read, or does not fit the network."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The SHA-256 of the file, and the layers that were left as they were drawn, as the file's do not fit them."""

    sha256: str
    fresh_layers: tuple[str, ...]


def load_weights(network: nn.Module, path: Path, fitted: Collection[str] = ()) -> Loaded:
    """Put the weights of a file into a network. Raises WeightsError unless all fit, apart from layers in ``fitted``.

    Those depend on the data, so published weights may have them for other channels or classes: of each, either all
    weights fit and are taken, or the layer stays as it is and is named in what is returned.
    """
    given = {_OLD_DENSENET.sub(r"\1\2.", name): weight for name, weight in _read(path).items()}
    own = network.state_dict()
    unfit = [layer for layer in fitted if _shapes(given, layer) != _shapes(own, layer)]
    given, wanted = _without(given, unfit), _without(own, unfit)
    problems = [f"{name} is missing" for name in wanted if name not in given and not name.endswith(_COUNTER)]
    problems += [f"{name} is not in the network" for name in given if name not in wanted]
    problems += [
        f"{name} is {_size(given[name])} in the file and {_size(weight)} in the network"
        for name, weight in wanted.items()
        if name in given and given[name].shape != weight.shape
    ]
    if problems:
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise WeightsError(
            f"--weights {path} does not fit this network and data: {'; '.join(problems[:_NAMED])}{more}. "
            "Give the file of the same network."
        )
    network.load_state_dict(given, strict=False)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Loaded(sha256, tuple(layer for layer in unfit if _shapes(own, layer)))


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"--weights {path}: {error.strerror or error}.") from error
    except Exception as error:  # a damaged file can fail as anything
        raise WeightsError(
            f"--weights {path} cannot be read as a state dict, which torch.save(network.state_dict(), PATH) writes."
        ) from error
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"--weights {path} holds no state dict. Save network.state_dict().")
    wrong = next((name for name, value in content.items() if not isinstance(value, Tensor)), None)
    if wrong is not None:
        raise WeightsError(
            f"--weights {path} is no state dict: {wrong!r} is no tensor. Save network.state_dict() alone."
        )
    return content


def _shapes(state: Mapping[str, Tensor], layer: str) -> dict[str, torch.Size]:
    below = f"{layer}."
    return {n: w.shape for n, w in state.items() if n.startswith(below) and not n.endswith(_COUNTER)}


def _without(state: Mapping[str, Tensor], layers: Collection[str]) -> dict[str, Tensor]:
    return {name: weight for name, weight in state.items() if not name.startswith(tuple(f"{one}." for one in layers))}


def _size(weight: Tensor) -> str:
    return "x".join(map(str, weight.shape)) or "a single value"
