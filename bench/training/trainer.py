"""The timed epoch: wait for a batch, copy it to the device, change it at random where asked, compute a step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.contracts.errors import BenchError
from bench.loading import Batch
from bench.measure.clock import PhaseClock, Phases
from bench.models.regularised import parameter_groups
from bench.specs.protocol import DEFAULTS, Optimizer, Protocol


class DeviceError(BenchError):
    """A device that this machine does not have."""


class DeviceMemoryError(BenchError):
    """A device without room for what a training takes."""

    @classmethod
    def of(cls, device: str, error: BaseException) -> DeviceMemoryError:
        """Say in one line what torch says in many."""
        # What follows is about the settings of torch's allocator.
        told = str(error).splitlines()[0].partition(" is free.")
        return cls(
            f"--device {device}: {told[0].rstrip('.')}{' is free' if told[1] else ''}. "
            "Use a smaller --batch-size, a smaller network or --amp."
        )


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What an epoch took and what it taught; losses and accuracy are None without a model."""

    phases: Phases
    samples: int
    batch_loss: list[float] | None
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights are updated. ``momentum`` is None where the optimizer has none.

    ``class_weights`` are how much the loss of a sample of each class counts, None for all alike.
    """

    optimizer: Optimizer = "sgd"
    lr: float = DEFAULTS["sgd"].lr
    weight_decay: float = 0.0
    momentum: float | None = DEFAULTS["sgd"].momentum
    class_weights: tuple[float, ...] | None = None

    @classmethod
    def of(cls, protocol: Protocol, class_weights: tuple[float, ...] | None = None) -> Recipe:
        """Return what a run's spec asks for."""
        lr = DEFAULTS[protocol.optimizer].lr if protocol.lr is None else protocol.lr
        return cls(protocol.optimizer, lr, protocol.weight_decay, protocol.momentum, class_weights)

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a model; what is not chosen here is as in torch.optim."""
        kinds = {
            "sgd": torch.optim.SGD,
            "adam": torch.optim.Adam,
            "radam": torch.optim.RAdam,
            "rmsprop": torch.optim.RMSprop,
        }
        options = {"lr": self.lr}
        if self.momentum is not None:
            options["momentum"] = self.momentum
        optimizer: torch.optim.Optimizer = kinds[self.optimizer](parameter_groups(model, self.weight_decay), **options)
        return optimizer

    def criterion(self, device: torch.device) -> nn.CrossEntropyLoss:
        """Return the loss: a mean over the batch, weighted where classes do not count alike."""
        weights = self.class_weights
        return nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights, device=device))


class Trainer:
    """Trains by a recipe and cross-entropy; a model that is None measures loading alone.

    ``augment`` is given each batch on the device, the number of its epoch and its own, and returns what is trained on.
    """

    def __init__(
        self,
        model: nn.Module | None,
        device: torch.device,
        *,
        amp: bool,
        recipe: Recipe = Recipe(),
        scale: tuple[float, float] | None = None,
        channels_last: bool = False,
        compiled: bool = False,
        augment: Callable[[Tensor, int, int], Tensor] | None = None,
    ) -> None:
        self._augment = augment
        self.network = model
        self._model: Callable[[Tensor], Tensor] | None = model
        self._device = device
        self._amp = amp
        self._scale = scale
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._copies = _side_stream(device) if device.type == "cuda" else None
        if model is not None:
            model.to(device).train()
            if channels_last:
                model.to(memory_format=torch.channels_last)
            if compiled:
                # For each batch size by itself: the smaller last batch would have all others computed as of any size.
                self._model = torch.compile(model, dynamic=False)
            self.optimizer = recipe.optimizer_of(model)
            self._criterion = recipe.criterion(device)

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Train on one batch on the device; return its loss and number of right answers, unsynchronised."""
        if self._model is None:
            return None
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            scores = self._model(self._input(x))
            loss = self._criterion(scores, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), (scores.detach().argmax(1) == y).sum()

    @property
    def trained(self) -> nn.Module:
        """The network itself, not compiled. Raises ValueError where loading alone is measured."""
        if self.network is None:
            raise ValueError("there is no network: loading alone is measured")
        return self.network

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._amp)

    def _input(self, x: Tensor) -> Tensor:
        return normalised(x, self._scale).contiguous(memory_format=self._layout)

    def predict(self, batches: Iterator[Batch], on_batch: Callable[[int], None]) -> tuple[float, Tensor, Tensor]:
        """Return the mean loss of samples, and their true and predicted classes ``(n,)`` on the CPU, in order.

        Nothing is learnt, and nothing random drawn: the network is in its mode for evaluation meanwhile. It runs as it
        is, never compiled. The loss is that of the samples, however much their classes count in training.
        """
        network = self.trained
        losses: list[Tensor] = []
        true: list[Tensor] = []
        predicted: list[Tensor] = []
        network.eval()
        try:
            with torch.no_grad():
                for x, y in batches:
                    x_device, y_device = self._on_device(x, y)
                    with self._autocast():
                        scores = network(self._input(x_device))
                        losses.append(nn.functional.cross_entropy(scores, y_device, reduction="sum").double())
                    predicted.append(scores.argmax(1))
                    # A batch belongs to the loader.
                    true.append(y.cpu().clone())
                    on_batch(len(y))
        finally:
            network.train()
        labels = torch.cat(true)
        return float(torch.stack(losses).sum()) / len(labels), labels, torch.cat(predicted).cpu()

    def _on_device(self, x: Tensor, y: Tensor) -> Batch:
        """Copy a batch to the device; on CUDA beside the computing, in a stream of its own."""
        if self._copies is None or x.is_cuda:
            return x.to(self._device, non_blocking=True), y.to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._copies):
            copied = x.to(self._device, non_blocking=True), y.to(self._device, non_blocking=True)
        computing.wait_stream(self._copies)
        for tensor in copied:
            # Allocated in one stream and used in another: the memory is free only when the latter is done, too.
            tensor.record_stream(computing)
        return copied

    def epoch(
        self, batches: Iterator[Batch], clock: PhaseClock, on_batch: Callable[[int], None], number: int = 0
    ) -> EpochResult:
        """Run epoch ``number``. ``on_batch`` is called inside the timed region: it must cost next to nothing."""
        losses: list[Tensor] = []
        right: list[Tensor] = []
        sizes: list[int] = []
        clock.start()
        for x, y in batches:
            clock.waited()
            x_device, y_device = self._on_device(x, y)
            clock.copied()
            if self._augment is not None:
                x_device = self._augment(x_device, number, len(sizes))
                clock.augmented()
            outcome = self.step(x_device, y_device)
            if outcome is not None:
                losses.append(outcome[0])
                right.append(outcome[1])
            sizes.append(len(y))
            on_batch(len(y))
            clock.computed()
        phases = clock.stop()
        samples = sum(sizes)
        if not losses:
            return EpochResult(phases, samples, None, None, None)
        batch_loss: list[float] = torch.stack(losses).float().tolist()
        loss = sum(value * size for value, size in zip(batch_loss, sizes, strict=True)) / samples
        return EpochResult(phases, samples, batch_loss, loss, int(torch.stack(right).sum()) / samples)


def normalised(x: Tensor, scale: tuple[float, float] | None) -> Tensor:
    """Return samples as float32 on their device.

    Bytes 0…255 become -1…1; other values are standardised by ``scale``, the mean and standard
    deviation of the data set, where it is given.
    """
    if x.dtype == torch.uint8:
        return x.float().sub_(127.5).div_(127.5)
    if scale is None:
        return x.float()
    mean, std = scale
    # Not in place: what is float32 already is the batch itself, which belongs to the loader.
    return x.float().sub(mean).div_(std or 1.0)


def resolve_device(name: str, note: Callable[[str], None] = lambda text: None) -> torch.device:  # noqa: ARG005
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` stands for. Raises DeviceError.

    ``note`` is told why ``auto`` is none with CUDA where there is one that cannot be used.
    """
    if name == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    # Torch tells a reason, at the first call, where there is a driver that does not do.
    reasons = [str(warning.message).removeprefix("CUDA initialization: ") for warning in told]
    reason = reasons[0].partition(" (Triggered internally")[0].partition(". ")[0].rstrip(".") if reasons else ""
    if not available and name == "auto":
        if reason:
            note(f"Training on the CPU, as torch cannot use CUDA here: {reason}.")
        return torch.device("cpu")
    if not available:
        reason = reason or ("" if torch.version.cuda else "this torch was built without CUDA")
        raise DeviceError(
            f"--device {name}: no CUDA device is available here{': ' * bool(reason)}{reason}. Use --device cpu or auto."
        )
    device = torch.device("cuda" if name == "auto" else name)
    number = device.index or 0
    count = torch.cuda.device_count()
    if number >= count:
        raise DeviceError(f"--device {name}: this machine has {count} CUDA device(s), numbered from 0.")
    return torch.device("cuda", number)


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch annotates no argument
