"""UrbanSound8K: sounds of a city in ten folds (Salamon, Jacoby & Bello, 2014)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

from pydantic import Field

from bench.contracts.options import Options
from bench.contracts.source import Content, Origin, RawData, Split

from .audio import AudioOptions, Clip, FeatureName, Hop, NMels, Seconds
from .audio_table import Row, names_in, read_rows
from .decoded import DecodedFiles, Facts
from .download import Remote
from .extraction import Limits
from .published import Published
from .sounds import Sound, SoundFile
from .synthetic_audio import SyntheticSound

CLASSES = (
    *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
    *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
)
FOLDS = 10

_CLASS_COUNTS = (1000, 429, 1000, 1000, 1000, 1000, 374, 1000, 929, 1000)
_FOLD_SIZES = (873, 888, 925, 990, 936, 823, 838, 806, 816, 837)
_LONGEST_SECONDS = 4.0
_TABLE = "UrbanSound8K.csv"
_FRAMES = 128
_NAME = re.compile(r"(?P<recording>[0-9]{1,18})-(?P<target>[0-9]{1,18})-[0-9]{1,18}-[0-9]{1,18}\.wav")


class UrbanSound8kOptions(AudioOptions):
    """Options of UrbanSound8K. With the default rate, hop and seconds the first 128 of 130 frames are kept."""

    feature: FeatureName = "mel"
    hop: Hop = 1024
    n_mels: NMels = 128
    seconds: Seconds = 3.0
    fold: Annotated[
        int, Field(ge=1, le=FOLDS, description="The fold for testing; the next is for validation, the rest to train.")
    ] = 1

    @property
    def frames(self) -> int:
        """Width of a sample."""
        fields = UrbanSound8kOptions.model_fields
        usual = all(getattr(self, name) == fields[name].default for name in ("sample_rate", "hop", "seconds"))
        return _FRAMES if usual else self.spectrum.frames(self.length)


class UrbanSound8k(Published):
    """8,732 clips of up to 4 s in 10 classes, cut from recordings none of which is in two folds.

    The layout is ``metadata/UrbanSound8K.csv``, which lists the clips, and
    ``audio/foldN/RECORDING-CLASS-OCCURRENCE-SLICE.wav``. Splits: fold ``fold`` is ``test``,
    the next (1 after 10) is ``val``, the other eight are ``train``.
    """

    name: ClassVar[str] = "urbansound8k"
    splits: ClassVar[tuple[Split, ...]] = ("train", "val", "test")
    content: ClassVar[Content | None] = "sounds"
    options_type: ClassVar[type[Options]] = UrbanSound8kOptions
    options: UrbanSound8kOptions
    archives: ClassVar[tuple[Remote, ...]] = (
        Remote(
            "UrbanSound8K.tar.gz",
            ("https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",),
            md5="9aa69802bbf37fb986f71ec1483a196e",
        ),
    )
    downloads: ClassVar[tuple[str, ...]] = tuple(archive.name for archive in archives)
    folders: ClassVar[tuple[str, ...]] = ("UrbanSound8K",)
    licence: ClassVar[str] = "CC BY-NC 3.0"
    limits: ClassVar[Limits] = Limits(max_members=20_000, max_member_bytes=64 << 20, max_total_bytes=32 << 30)

    def wanted(self, member: str) -> bool:
        """See Published.wanted."""
        path = PurePosixPath(member)
        if path.parent.parent.name == "audio":
            return path.suffix == ".wav"
        return path.parent.name == "metadata" and path.name == _TABLE

    def is_root(self, folder: Path) -> bool:
        """See Published.is_root."""
        return (folder / "metadata" / _TABLE).is_file() and (folder / "audio").is_dir()

    def open_folder(self, folder: Path, origin: Origin) -> RawData:
        """See Published.open_folder. Raises SourceError where the table, the names and the files disagree."""
        rows = read_rows(folder / "metadata" / _TABLE, ("slice_file_name", "fsID", "fold", "classID", "class"))
        rows.sort(key=lambda row: row["slice_file_name"])
        folds = {f"fold{number}": folder / "audio" / f"fold{number}" for number in range(1, FOLDS + 1)}
        present = {name: names_in(path) for name, path in folds.items() if path.is_dir()}
        return self._divided([_sound(row, folder / "audio", present) for row in rows], origin)

    def imitate(self) -> RawData:
        """See DataSource.imitate. Counts of classes and folds as published, most clips as long as possible."""
        labels = [label for label, count in enumerate(_CLASS_COUNTS) for _ in range(count)]
        # Every fold's clips evenly over the list, so that each has its share of every class.
        places = sorted(((i + 0.5) / size, fold) for fold, size in enumerate(_FOLD_SIZES, start=1) for i in range(size))
        clips = [
            (fold, SyntheticSound(label, len(CLASSES), number, _seconds(number)))
            for number, (label, (_, fold)) in enumerate(zip(labels, places, strict=True))
        ]
        return self._divided(clips, "synthetic")

    def _divided(self, sounds: Iterable[tuple[int, Sound]], origin: Origin) -> RawData:
        options = self.options
        special: dict[int, Split] = {options.fold: "test", options.fold % FOLDS + 1: "val"}
        items: dict[Split, list[Sound]] = {split: [] for split in self.splits}
        for fold, sound in sounds:
            items[special.get(fold, "train")].append(sound)
        clip = Clip(options.spectrum, options.length, options.frames, options.trim_db)
        return DecodedFiles(
            Facts(self.name, CLASSES, self.licence, origin),
            {split: options.items(split, found) for split, found in items.items()},
            clip.decoding(),
            skip_bad=options.skip_bad,
        )


def _seconds(number: int) -> float:
    # About a sixth of the published clips are shorter than 4 s.
    return _LONGEST_SECONDS if number % 6 else 0.5 + number // 6 % 8 * 0.4


def _sound(row: Row, folder: Path, present: Mapping[str, frozenset[str]]) -> tuple[int, Sound]:
    name, fold, target = row["slice_file_name"], row.number("fold"), row.number("classID")
    if not 1 <= fold <= FOLDS:
        raise row.wrong(f"fold {fold} is none of 1 to {FOLDS}")
    if target >= len(CLASSES) or CLASSES[target] != row["class"]:
        raise row.wrong(f"classID {target} is not the class {row['class']!r}")
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise row.wrong(f"{name!r} is no RECORDING-CLASS-OCCURRENCE-SLICE.wav")
    if (int(parts["recording"]), int(parts["target"])) != (row.number("fsID"), target):
        raise row.wrong(f"fsID {row['fsID']} and classID {target} are not those in the name {name}")
    path = folder / f"fold{fold}" / name
    if name not in present.get(f"fold{fold}", ()):
        raise row.wrong(f"{path} is missing")
    return fold, SoundFile(str(path), target)
