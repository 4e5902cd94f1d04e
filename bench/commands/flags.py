"""Flags that several commands share: where data comes from, and what is chosen about the samples."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.contracts.errors import BenchError


def finite(value: float) -> float:
    """Refuse what is no finite number, for a flag's callback. Raises BadParameter."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number.")
    return value


Backend = Annotated[str, typer.Option(help="Storage backend; see `bench list backends`.", show_default=False)]
Dataset = Annotated[
    str,
    typer.Option(
        metavar="NAME|NAME:PATH",
        help="Data set; see `bench list datasets`. folder:PATH, audiofolder:PATH and npy:PATH are your own.",
        show_default=False,
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="An option of the backend; repeatable. See `bench list backends NAME`."),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="auto|official|local:PATH|synthetic",
        help="Where the raw data comes from: auto finds or downloads it, or else goes on with a synthetic stand-in.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder for downloads and prepared stores: the disk that is measured. "
        "Default: $BENCH_DATA, else the user's cache folder.",
        show_default=False,
    ),
]
Limit = Annotated[int | None, typer.Option(help="Use only the first N samples.", show_default=False)]
SplitName = Annotated[str, typer.Option(help="Part of the data set.")]
Yes = Annotated[bool, typer.Option("--yes", help="Rebuild the store if it is damaged.")]
Results = Annotated[Path, typer.Option(help="Folder of records.")]

DATASET_FLAGS: dict[str, tuple[Any, str, str]] = {
    "size": (str, "PIXELS|none", "Images: shorter side and centre crop."),
    "feature": (str, "stft|mel|logmel|mfcc", "Sounds: what is made of them."),
    "sample_rate": (int, "HZ", "Sounds: sample rate after resampling."),
    "n_fft": (int, "SAMPLES", "Sounds: length of the window."),
    "hop": (int, "SAMPLES", "Sounds: step between windows."),
    "n_mels": (int, "N", "Sounds: number of mel filters."),
    "n_mfcc": (int, "N", "Sounds: number of cepstral coefficients."),
    "seconds": (float, "S", "Sounds: length of one sample."),
    "trim_db": (str, "DB|none", "Sounds: remove what is so much quieter than the loudest part."),
    "augment_copies": (
        str,
        "NAME[+NAME…]",
        "Sounds: changed copies to train on: stretch, pitch, compress, noise, gain.",
    ),
    "stretch_rate": (float, "RATE", "Sounds, copy stretch: how many times faster."),
    "pitch_semitones": (float, "N", "Sounds, copy pitch: how much higher."),
    "compression": (str, "PROFILE", "Sounds, copy compress: film-standard, music-standard, speech, radio."),
    "noise_snr_db": (float, "DB", "Sounds, copy noise: how much louder the sound is."),
    "gain_db": (float, "DB", "Sounds, copy gain: how much louder."),
    "fold": (int, "K", "Sets with folds: the one for testing."),
    "subset": (str, "NAME", "Sets with subsets: which classes."),
}
"""Options of data sets that have a flag of their own: type, what to write, help. ``skip_bad`` is the one switch."""

_OTHER = "--data-option"


def dataset_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all flags of data sets; it receives those that were used as ``dataset_options``.

    The flags mean the same in every command and their values are checked by the data set, so
    they are declared once, here, instead of in each signature.
    """

    @functools.wraps(command)
    def wrapper(**flags: Any) -> None:
        from bench.specs.spec import split_pairs

        others = flags.pop("data_option") or []
        chosen = {name: flags.pop(name) for name in DATASET_FLAGS}
        used = {name: value for name, value in chosen.items() if value is not None}
        if flags.pop("skip_bad"):
            used["skip_bad"] = True
        for key, value in split_pairs(_OTHER, others, "See `bench list datasets NAME`.").items():
            name = key.replace("-", "_")
            if name in used:
                raise BenchError(f"{_OTHER} {key}: the option is given twice.")
            used[name] = value
        command(**flags, dataset_options=used)

    added = [
        _parameter(name, kind | None, None, typer.Option(metavar=metavar, help=text, show_default=False))
        for name, (kind, metavar, text) in DATASET_FLAGS.items()
    ]
    added.append(
        _parameter(
            "skip_bad",
            bool,
            False,
            typer.Option("--skip-bad", help="Leave out files that cannot be decoded; the record lists them."),
        )
    )
    added.append(
        _parameter(
            "data_option",
            list[str] | None,
            None,
            typer.Option(
                _OTHER,
                metavar="KEY=VALUE",
                help="Any option of the data set; repeatable. See `bench list datasets NAME`.",
            ),
        )
    )
    return taking(wrapper, command, {"dataset_options"}, added)


def taking(
    wrapper: Callable[..., None],
    command: Callable[..., None],
    received: Collection[str],
    added: Iterable[inspect.Parameter],
) -> Callable[..., None]:
    """Give ``wrapper`` the signature of ``command``, with flags ``added`` in place of what it makes of them."""
    own = inspect.signature(command, eval_str=True)
    kept = [parameter for parameter in own.parameters.values() if parameter.name not in received]
    parameters = [*kept, *added]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _parameter(name: str, kind: Any, default: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
