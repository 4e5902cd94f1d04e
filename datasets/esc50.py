"""ESC-50: environmental sounds in five folds (Piczak, 2015), and its part ESC-10."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

from pydantic import Field

from bench.contracts.options import Options
from bench.contracts.source import Content, Origin, RawData, Split

from .audio import AudioOptions, Clip
from .audio_table import Row, names_in, read_rows
from .decoded import DecodedFiles, Facts
from .download import Remote
from .extraction import Limits
from .published import Published
from .sounds import Sound, SoundFile
from .synthetic_audio import SyntheticSound

CLASSES = (
    *("dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow"),
    *("rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds"),
    *("water_drops", "wind", "pouring_water", "toilet_flush", "thunderstorm"),
    *("crying_baby", "sneezing", "clapping", "breathing", "coughing"),
    *("footsteps", "laughing", "brushing_teeth", "snoring", "drinking_sipping"),
    *("door_wood_knock", "mouse_click", "keyboard_typing", "door_wood_creaks", "can_opening"),
    *("washing_machine", "vacuum_cleaner", "clock_alarm", "clock_tick", "glass_breaking"),
    *("helicopter", "chainsaw", "siren", "car_horn", "engine"),
    *("train", "church_bells", "airplane", "fireworks", "hand_saw"),
)
FOLDS = 5

_CLIPS_PER_CLASS_AND_FOLD = 8
_SECONDS = 5.0
_TABLE = "esc50.csv"
_NAME = re.compile(r"(?P<fold>[0-9]{1,18})-[0-9]{1,18}-[A-Z]+-(?P<target>[0-9]{1,18})\.wav")


class Esc50Options(AudioOptions):
    """Options of ESC-50."""

    fold: Annotated[int, Field(ge=1, le=FOLDS, description="The fold for testing; the others are for training.")] = 1


class Esc50(Published):
    """2,000 clips of 5 s in 50 classes; a local copy may have some of them, such as ESC-10.

    The layout is ``meta/esc50.csv``, which lists the clips, and ``audio/FOLD-CLIP-TAKE-TARGET.wav``.
    Splits: fold ``fold`` is ``test``, the other four are ``train``.
    """

    name: ClassVar[str] = "esc50"
    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    content: ClassVar[Content | None] = "sounds"
    options_type: ClassVar[type[Options]] = Esc50Options
    options: Esc50Options
    archives: ClassVar[tuple[Remote, ...]] = (
        Remote(
            "ESC-50-master.zip",
            # The publisher's own is second: GitHub packs it anew now and then, the mirror keeps the known bytes.
            (
                "https://paddleaudio.bj.bcebos.com/datasets/ESC-50-master.zip",
                "https://github.com/karoldvl/ESC-50/archive/master.zip",
            ),
            md5="7771e4b9d86d0945acce719c7a59305a",
        ),
    )
    downloads: ClassVar[tuple[str, ...]] = tuple(archive.name for archive in archives)
    folders: ClassVar[tuple[str, ...]] = ("ESC-50-master", "ESC-50", "ESC-10")
    licence: ClassVar[str] = "CC BY-NC 3.0 (the ESC-10 part: CC BY 3.0)"
    # Packed as tightly as zip can, which is what becomes of a silent clip.
    limits: ClassVar[Limits] = Limits(10_000, 16 << 20, 4 << 30, max_ratio=1100)

    def wanted(self, member: str) -> bool:
        """See Published.wanted."""
        path = PurePosixPath(member)
        if path.parent.name == "audio":
            return path.suffix == ".wav"
        return path.parent.name == "meta" and path.name == _TABLE

    def is_root(self, folder: Path) -> bool:
        """See Published.is_root."""
        return (folder / "meta" / _TABLE).is_file() and (folder / "audio").is_dir()

    def open_folder(self, folder: Path, origin: Origin) -> RawData:
        """See Published.open_folder. Raises SourceError where the table, the names and the files disagree."""
        rows = read_rows(folder / "meta" / _TABLE, ("filename", "fold", "target", "category"))
        present = names_in(folder / "audio")
        rows.sort(key=lambda row: row["filename"])
        return self._divided([_sound(row, folder / "audio", present) for row in rows], origin)

    def imitate(self) -> RawData:
        """See DataSource.imitate. Eight clips per class and fold, as published."""
        clips = [
            (fold, SyntheticSound(label, len(CLASSES), number, _SECONDS))
            for number, (fold, label, _) in enumerate(
                (fold, label, clip)
                for fold in range(1, FOLDS + 1)
                for label in range(len(CLASSES))
                for clip in range(_CLIPS_PER_CLASS_AND_FOLD)
            )
        ]
        return self._divided(clips, "synthetic")

    def _divided(self, sounds: Iterable[tuple[int, Sound]], origin: Origin) -> RawData:
        items: dict[Split, list[Sound]] = {"train": [], "test": []}
        for fold, sound in sounds:
            items["test" if fold == self.options.fold else "train"].append(sound)
        options = self.options
        clip = Clip(options.spectrum, options.length, options.spectrum.frames(options.length), options.trim_db)
        return DecodedFiles(
            Facts(self.name, CLASSES, self.licence, origin),
            {split: options.items(split, found) for split, found in items.items()},
            clip.decoding(),
            skip_bad=options.skip_bad,
        )


def _sound(row: Row, folder: Path, present: frozenset[str]) -> tuple[int, Sound]:
    name, fold, target = row["filename"], row.number("fold"), row.number("target")
    if not 1 <= fold <= FOLDS:
        raise row.wrong(f"fold {fold} is none of 1 to {FOLDS}")
    if target >= len(CLASSES) or CLASSES[target] != row["category"]:
        raise row.wrong(f"target {target} is not the class {row['category']!r}")
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise row.wrong(f"{name!r} is no FOLD-CLIP-TAKE-TARGET.wav")
    if (int(parts["fold"]), int(parts["target"])) != (fold, target):
        raise row.wrong(f"fold {fold} and target {target} are not those in the name {name}")
    if name not in present:
        raise row.wrong(f"{folder / name} is missing")
    return fold, SoundFile(str(folder / name), target)
