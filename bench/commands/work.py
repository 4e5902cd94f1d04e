"""Flags that say what a run does and how it is watched: the same for one run and for a comparison."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from bench.commands.flags import Limit, Source, SplitName, Yes, finite, taking
from bench.commands.places import command_line
from bench.contracts.errors import BenchError
from bench.runs.attempt import Attempt

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class SizeError(BenchError):
    """A size that is none."""


class SpecFlags:
    """Fields of a RunSpec that have a flag of their own, with their defaults."""

    model: Annotated[str, typer.Option(help="Network to train, or none to measure loading alone.")] = "cnn"
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Begin with the weights of this file, a state dict, instead of random ones. The first and last "
            "layer of a torchvision network stay random where the file has them for other data; the result says so.",
            show_default=False,
        ),
    ] = None
    epochs: Annotated[int, typer.Option(help="Epochs; with more than one, the first is a warm-up.")] = 3
    batch_size: Annotated[int, typer.Option(help="Samples per batch.")] = 128
    workers: Annotated[int, typer.Option(help="Loader workers; 0 loads in the training process.")] = 0
    worker_kind: Annotated[Literal["process", "thread"], typer.Option(help="What a worker is.")] = "process"
    start_method: Annotated[
        Literal["fork", "forkserver", "spawn"], typer.Option(help="How worker processes start.")
    ] = "fork"
    prefetch: Annotated[
        int,
        typer.Option(metavar="N", help="Batches that each worker keeps ready; more where it reads several at once."),
    ] = 2
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where to train.")] = "auto"
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the order of samples.")] = 0
    shuffle: Annotated[
        Literal["full", "block", "none"],
        typer.Option(
            help="Order of samples. full: a uniform permutation. block: blocks of consecutive samples in random order, "
            "samples shuffled within a buffer of some blocks, as suits chunks. none: as stored."
        ),
    ] = "full"
    block_samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="With --shuffle block: samples per block; 256 if not given.", show_default=False
        ),
    ] = None
    buffer_blocks: Annotated[
        int | None,
        typer.Option(metavar="K", help="With --shuffle block: blocks per buffer; 16 if not given.", show_default=False),
    ] = None
    optimizer: Annotated[
        Literal["sgd", "adam", "radam", "rmsprop"], typer.Option(help="How weights are updated (torch.optim).")
    ] = "sgd"
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Learning rate; if not given, 0.05 for sgd, and for the others what torch.optim takes.",
            show_default=False,
        ),
    ] = None
    weight_decay: Annotated[float, typer.Option(metavar="X", help="Weight decay of the optimizer.")] = 0.0
    momentum: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Momentum of sgd (0.9 if not given) or rmsprop (0), which alone have one.",
            show_default=False,
        ),
    ] = None
    val: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT|SHARE",
            help="Evaluate after every epoch: on a split, or on a share of the training samples (0.1), which then are "
            "not trained on.",
            show_default=False,
        ),
    ] = None
    test: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="Evaluate at the end, with the weights that were best in validation if there is --val.",
            show_default=False,
        ),
    ] = None
    early_stopping: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Stop after N epochs without a higher validation accuracy; needs --val.",
            show_default=False,
        ),
    ] = None
    class_weights: Annotated[
        bool, typer.Option("--class-weights", help="Weigh losses by the inverse frequency of their class.")
    ] = False
    balanced_sampler: Annotated[
        bool,
        typer.Option(
            "--balanced-sampler",
            help="Draw samples with replacement, every class as often as any other: an order of its own.",
        ),
    ] = False
    amp: Annotated[bool, typer.Option("--amp", help="Train in bfloat16 where that is safe (autocast).")] = False
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network (torch.compile); the first epoch pays for it.")
    ] = False
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Lay images and weights out channels last, as GPUs like it.")
    ] = False
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[+NAME…]|none",
            help="Change samples at random before each training step, on the device, timed apart: flip, crop (images), "
            "specaugment (sounds); several as flip+crop.",
            show_default=False,
        ),
    ] = None
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Deterministic algorithms: equal losses for every backend.")
    ] = False
    cache: Annotated[
        Literal["as-is", "warm", "cold"],
        typer.Option(help="Bring the store into memory, or out of it, before every epoch, and prove it."),
    ] = "as-is"
    drop_caches: Annotated[
        bool,
        typer.Option("--drop-caches", help="With --cache cold: drop all caches of the machine, names too; needs root."),
    ] = False
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Let the run use no more memory than that, page cache included: 500M, 2G (cgroup v2).",
            show_default=False,
        ),
    ] = None
    limit: Limit = None
    source: Source = "auto"
    split: SplitName = "train"


class AttemptFlags:
    """How a run is watched: nothing of this changes what is measured."""

    ceiling: Annotated[
        bool,
        typer.Option("--ceiling/--no-ceiling", help="Also train from batches in memory: the limit of every format."),
    ] = True
    timeout: Annotated[
        float,
        typer.Option(
            metavar="S", help="End a run that has shown no sign of life for S seconds.", min=1, callback=finite
        ),
    ] = 600.0
    yes: Yes = False


def work_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all these flags; it receives ``work``, fields of a RunSpec, and ``attempt``."""

    @functools.wraps(command)
    def wrapper(**flags: Any) -> None:
        work = {name: flags.pop(name) for name in get_type_hints(SpecFlags)}
        watched = {name: flags.pop(name) for name in get_type_hints(AttemptFlags)}
        limit = work.pop("memory_limit")
        work["memory_limit_bytes"] = None if limit is None else size_bytes(limit)
        attempt = Attempt(
            repair=watched["yes"], ceiling=watched["ceiling"], timeout_s=watched["timeout"], command=command_line()
        )
        command(**flags, work=work, attempt=attempt)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(flags, name), annotation=annotation)
        for flags in (SpecFlags, AttemptFlags)
        for name, annotation in get_type_hints(flags, include_extras=True).items()
    ]
    return taking(wrapper, command, {"work", "attempt"}, added)


def axes_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of a run, each of which may be given several times.

    It receives ``axes``, fields of a RunSpec with the values of those flags that were used, and ``attempt``.
    """
    switches = {name for name, kind in get_type_hints(SpecFlags).items() if kind is bool}

    @functools.wraps(command)
    def wrapper(**flags: Any) -> None:
        chosen = {name: flags.pop(name) for name in get_type_hints(SpecFlags)}
        watched = {name: flags.pop(name) for name in get_type_hints(AttemptFlags)}
        axes: dict[str, list[Any]] = {name: value for name, value in chosen.items() if value and name not in switches}
        axes |= {name: [True] for name in switches if chosen[name]}
        if limits := axes.pop("memory_limit", None):
            axes["memory_limit_bytes"] = [size_bytes(limit) for limit in limits]
        attempt = Attempt(
            repair=watched["yes"], ceiling=watched["ceiling"], timeout_s=watched["timeout"], command=command_line()
        )
        command(**flags, axes=axes, attempt=attempt)

    flags = [
        (name, getattr(SpecFlags, name), kind) if name in switches else (name, None, _repeatable(kind))
        for name, kind in get_type_hints(SpecFlags, include_extras=True).items()
    ]
    flags += [
        (name, getattr(AttemptFlags, name), kind)
        for name, kind in get_type_hints(AttemptFlags, include_extras=True).items()
    ]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in flags
    ]
    return taking(wrapper, command, {"axes", "attempt"}, added)


def _repeatable(annotation: Any) -> Any:
    """Return the annotation of a flag that may be given several times, None if it is not."""
    kind, option = get_args(annotation)
    kinds = [one for one in get_args(kind) if one is not type(None)] if type(None) in get_args(kind) else [kind]
    option = copy.copy(option)
    if get_origin(kinds[0]) is Literal:
        # Typer has no lists of those; the spec refuses other values.
        option.metavar = "|".join(get_args(kinds[0]))
        kinds = [str]
    option.metavar = option.metavar or ("NAME" if kinds[0] is str else "N")
    return Annotated[list[kinds[0]] | None, option]  # type: ignore[valid-type]  # found out at run time


def size_bytes(text: str) -> int:
    """Return the bytes that ``500M`` or ``2G`` stand for (powers of 1024). Raises SizeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise SizeError(f"--memory-limit {text}: not a size. Write it like 500M or 2G.")
    return int(float(found[1]) * _UNITS[found[2].upper()])
