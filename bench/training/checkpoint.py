"""A training that can go on in another process, exactly: what is kept of it after every epoch, in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench.contracts.errors import BenchError
from bench.files import replacing
from bench.records.comparability import unlike
from bench.specs.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from bench.training.trainer import Trainer
    from bench.training.validation import Best

FORMAT = 2

_KEYS = frozenset({"format", "spec", "data", "told", "resumed_before", "complete", "state"})


class CheckpointError(BenchError):
    """A checkpoint that is none, or belongs to another run."""


class NothingLeftError(BenchError):
    """A checkpoint of a run that has come to its end; ``record`` is the name of its record's file."""

    def __init__(self, message: str, record: str) -> None:
        super().__init__(message)
        self.record = record


@dataclass(slots=True)
class Checkpoint:
    """The checkpoint of a run of ``spec`` on the data with digest ``data``, kept at ``path``.

    ``evaluated`` are the digests of the splits that are evaluated on, by the name of their field.
    ``fold_id`` is the cross-validation that it belongs to, ``weights`` the SHA-256 of the file that it began with,
    ``surroundings`` where it runs and with which versions, see :func:`bench.records.comparability.surroundings`.
    ``told`` is what the parent is told again when the run goes on, a text for each epoch; ``resumed_before`` are the
    epochs before which it went on already.
    """

    path: Path
    spec: RunSpec
    data: str
    fold_id: str | None = None
    evaluated: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    surroundings: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    resumed_before: list[int] = field(default_factory=list)
    _state: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(
        cls,
        path: Path,
        spec: RunSpec,
        data: str,
        fold_id: str | None = None,
        evaluated: Mapping[str, str] = MappingProxyType({}),
    ) -> Checkpoint:
        """Return the checkpoint at ``path``, or a new one where there is none.

        Raises:
            CheckpointError: the file is no checkpoint, or that of another network, data set or spec.
            NothingLeftError: the run has come to its end.
        """
        found = cls(path, spec, data, fold_id, dict(evaluated))
        if path.exists():
            content = _load(path)
            found._require_same(content)
            if content["complete"]:
                done = len(content["told"])
                early = "" if done == spec.epochs else f", and --early-stopping ended the training of {spec.epochs}"
                raise NothingLeftError(
                    f"--checkpoint {path}: all its {done} epochs are done{early}, there is nothing left to do. "
                    "To train anew, remove the file or name another.",
                    content["record"],
                )
            found.told, found._state = content["told"], content["state"]
            found.fold_id, found.weights = content.get("fold_id"), content.get("weights")
            found.surroundings = content["surroundings"]
            found.resumed_before = [*content["resumed_before"], found.next_epoch]
        return found

    @property
    def next_epoch(self) -> int:
        """The epoch before which the run goes on."""
        return len(self.told)

    @property
    def counted(self) -> bool:
        """Whether any epoch was more than a warm-up."""
        return any(not json.loads(text)["epoch"]["warmup"] for text in self.told)

    def _require_same(self, content: dict[str, Any]) -> None:
        own, other = self.spec.model_dump(mode="json"), content["spec"]
        names = [name for name in own if own[name] != other.get(name)]
        where = f"--checkpoint {self.path} is of another"
        way_out = "Name another file, or remove that one."
        if "model" in names:
            raise CheckpointError(f"{where} network: {other.get('model')}, not {own['model']}. {way_out}")
        if "dataset" in names:
            raise CheckpointError(f"{where} data set: {other.get('dataset')}, not {own['dataset']}. {way_out}")
        if names:
            told = ", ".join(f"{name.replace('_', ' ')} ({other.get(name)}, not {own[name]})" for name in names)
            raise CheckpointError(f"{where} run, which differs in {told}. {way_out}")
        if content["data"] != self.data:
            raise CheckpointError(f"{where} data set: the samples of {own['dataset']} have changed since. {way_out}")
        # What was best so far would be held against scores on other samples.
        for name, digest in content.get("evaluated", self.evaluated).items():
            if digest != self.evaluated.get(name):
                raise CheckpointError(f"{where} data set: the samples of --{name} have changed since. {way_out}")

    def require_weights(self, sha256: str | None) -> None:
        """Keep what the training begins with. Raises CheckpointError where it began with another file of weights."""
        if self.told and self.weights != sha256:
            raise CheckpointError(
                f"--checkpoint {self.path}: the training began with other weights than {self.spec.weights} holds now. "
                "Put that file back, or name another checkpoint."
            )
        self.weights = sha256

    def require_surroundings(self, found: dict[str, str]) -> None:
        """Keep where the training runs. Raises CheckpointError where its earlier epochs ran under other conditions."""
        differ = unlike([self.surroundings, found]) if self.told else []
        if differ:
            told = ", ".join(f"{difference.name} ({', not '.join(difference.values)})" for difference in differ)
            raise CheckpointError(
                f"--checkpoint {self.path} was made under other conditions: {told}. One record cannot hold epochs of "
                "both: go on under those, or train anew with another file."
            )
        self.surroundings = found

    def load_into(self, trainer: Trainer, best: Best | None) -> None:
        """Bring network, optimizer, best weights and random generators to where they were."""
        import torch

        state = self._state
        if not state:
            return
        try:
            trainer.trained.load_state_dict(state["model"])
            trainer.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"--checkpoint {self.path} does not fit {self.spec.model}: {str(error).splitlines()[0]}. "
                "Another version of bench may have written it: name another file, or remove that one."
            ) from error
        if best is not None:
            best.load(state["best"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda_rng"])
        # It would keep a second copy of all weights in memory.
        self._state = {}

    def save(self, told: str, trainer: Trainer, best: Best | None, device: torch.device) -> None:
        """Keep everything after one more epoch, of which the parent is to be told ``told``. Raises OutputError."""
        import torch

        self.told.append(told)
        state = {
            "model": trainer.trained.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "best": None if best is None else best.state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }
        content = {
            "format": FORMAT,
            "spec": self.spec.model_dump(mode="json"),
            "data": self.data,
            "fold_id": self.fold_id,
            "evaluated": self.evaluated,
            "weights": self.weights,
            "surroundings": self.surroundings,
            "told": self.told,
            "resumed_before": self.resumed_before,
            "complete": False,
            "state": state,
        }
        _write(self.path, content)


def finish(path: Path, record: str) -> None:
    """Keep that the run has come to its end, once ``record`` is written. Raises CheckpointError, OutputError."""
    if not path.exists():
        raise CheckpointError(f"--checkpoint {path} is gone. The run is complete, and its record is written.")
    _write(path, {**_load(path), "complete": True, "record": record})


def fold_of(path: Path) -> str | None:
    """Return the id of the cross-validation that a checkpoint belongs to, if any. Raises CheckpointError."""
    fold_id: str | None = _load(path).get("fold_id")
    return fold_id


def _write(path: Path, content: dict[str, Any]) -> None:
    import torch

    with replacing(path) as part, part.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # Torch says nothing of a disk that is full: of that it only hears that less was written.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        file.flush()
        os.fsync(file.fileno())


def _load(path: Path) -> dict[str, Any]:
    import torch

    problem = CheckpointError(
        f"--checkpoint {path} is no checkpoint of bench, or a damaged one. Name another file, or remove that one."
    )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is garbled can raise anything
        raise problem from error
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        raise problem
    if content["format"] != FORMAT:
        raise CheckpointError(f"--checkpoint {path} was written by another version of bench. Name another file.")
    return content
