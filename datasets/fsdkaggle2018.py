"""FSDKaggle2018: sounds of 41 kinds (Fonseca et al., 2018), cut into overlapping fragments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from bench.contracts.options import Options
from bench.contracts.source import Content, Origin, RawData, SourceError, Split

from .audio import AudioOptions, FeatureName, Fragments, Hop, NFft, NMels, SampleRate, Seconds, TrimDb
from .audio_table import names_in, read_rows
from .copies import Copy
from .decoded import DecodedFiles, Facts
from .download import Remote
from .extraction import Limits
from .published import Published
from .sounds import Sound, SoundFile
from .synthetic_audio import SyntheticSound
from .trees import stratified

TRAIN_COUNTS = {
    **{"Acoustic_guitar": 300, "Applause": 300, "Bark": 239, "Bass_drum": 300, "Burping_or_eructation": 210},
    **{"Bus": 109, "Cello": 300, "Chime": 115, "Clarinet": 300, "Computer_keyboard": 119, "Cough": 243},
    **{"Cowbell": 191, "Double_bass": 300, "Drawer_open_or_close": 158, "Electric_piano": 150, "Fart": 300},
    **{"Finger_snapping": 117, "Fireworks": 300, "Flute": 300, "Glockenspiel": 94, "Gong": 292},
    **{"Gunshot_or_gunfire": 147, "Harmonica": 165, "Hi-hat": 300, "Keys_jangling": 139, "Knock": 279},
    **{"Laughter": 300, "Meow": 155, "Microwave_oven": 146, "Oboe": 299, "Saxophone": 300, "Scissors": 95},
    **{"Shatter": 300, "Snare_drum": 300, "Squeak": 300, "Tambourine": 221, "Tearing": 300, "Telephone": 120},
    **{"Trumpet": 300, "Violin_or_fiddle": 300, "Writing": 270},
}
"""All classes, with the number of files for training that are published."""

SUBSETS: dict[str, tuple[str, ...]] = {
    "all": tuple(TRAIN_COUNTS),
    "music10": (
        *("Acoustic_guitar", "Bass_drum", "Cello", "Clarinet", "Double_bass"),
        *("Flute", "Hi-hat", "Saxophone", "Snare_drum", "Violin_or_fiddle"),
    ),
    "environment10": (
        *("Applause", "Bark", "Computer_keyboard", "Fireworks", "Knock"),
        *("Meow", "Scissors", "Squeak", "Telephone", "Writing"),
    ),
}

# The published numbers of files for testing are known for the subsets alone; within each they are spread evenly.
_TEST_TOTALS = {"all": 1_600, "music10": 569, "environment10": 317}

_VAL_FRACTION = 0.3
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.3, 30.0
_FILE_BYTES_PER_SECOND = 2 * 44_100
_TABLES: dict[Split, str] = {
    "train": "train_post_competition.csv",
    "test": "test_post_competition_scoring_clips.csv",
}
_PREFIX = "FSDKaggle2018."


class FsdKaggle2018Options(AudioOptions):
    """Options of FSDKaggle2018. ``seconds`` is the length of a fragment; the next begins after half of it."""

    feature: FeatureName = "mfcc"
    sample_rate: SampleRate = 16_000
    n_fft: NFft = 400
    hop: Hop = 160
    n_mels: NMels = 26
    seconds: Seconds = 0.4
    trim_db: TrimDb = 80.0
    subset: Annotated[
        Literal["all", "music10", "environment10"],
        Field(description="Which classes: all 41, or one of two sets of 10."),
    ] = "all"

    @model_validator(mode="after")
    def _two_frames(self) -> FsdKaggle2018Options:
        if self.frames < 2:
            raise ValueError(f"--seconds {self.seconds:g} is shorter than two steps of --hop {self.hop} samples")
        return self

    @property
    def frames(self) -> int:
        """Width of a fragment."""
        return round(self.seconds * self.sample_rate / self.hop)


class FsdKaggle2018(Published):
    """11,073 clips of 0.3 to 30 s in 41 classes, without their silence, as overlapping fragments of 0.4 s.

    The layout is ``FSDKaggle2018.audio_train``, ``FSDKaggle2018.audio_test`` and ``FSDKaggle2018.meta``
    side by side. Splits: the published ``test``; of the published training files of each class
    30 % are ``val``, the others ``train``. The fragments of a file are in one split.
    """

    name: ClassVar[str] = "fsdkaggle2018"
    splits: ClassVar[tuple[Split, ...]] = ("train", "val", "test")
    content: ClassVar[Content | None] = "sounds"
    options_type: ClassVar[type[Options]] = FsdKaggle2018Options
    options: FsdKaggle2018Options
    archives: ClassVar[tuple[Remote, ...]] = tuple(
        Remote(f"{_PREFIX}{part}.zip", (f"https://zenodo.org/records/2552860/files/{_PREFIX}{part}.zip",), md5=md5)
        for part, md5 in (
            ("audio_train", "a8b47ff4b52022c178f88fa5c6f080d0"),
            ("audio_test", "f85c8665c3fc39311ea1b748e194a81d"),
            ("meta", "f16828ac8be0e5285b9175a12f90d784"),
        )
    )
    downloads: ClassVar[tuple[str, ...]] = tuple(archive.name for archive in archives)
    folders: ClassVar[tuple[str, ...]] = ("FSDKaggle2018",)
    licence: ClassVar[str] = "CC BY 4.0 (each clip: CC0 or CC BY)"
    # Packed as tightly as zip can, which is what becomes of a silent clip.
    limits: ClassVar[Limits] = Limits(30_000, 64 << 20, 32 << 30, max_ratio=1100)

    def wanted(self, member: str) -> bool:
        """See Published.wanted."""
        path = PurePosixPath(member)
        if path.parent.name in {f"{_PREFIX}audio_train", f"{_PREFIX}audio_test"}:
            return path.suffix == ".wav"
        return path.parent.name == f"{_PREFIX}meta" and path.name in _TABLES.values()

    def is_root(self, folder: Path) -> bool:
        """See Published.is_root."""
        return (folder / f"{_PREFIX}meta" / _TABLES["train"]).is_file() and (folder / f"{_PREFIX}audio_train").is_dir()

    def open_folder(self, folder: Path, origin: Origin) -> RawData:
        """See Published.open_folder. Raises SourceError where the tables and the files disagree."""
        return self._divided(self._sounds(folder, "train"), self._sounds(folder, "test"), origin)

    def imitate(self) -> RawData:
        """See DataSource.imitate. As many files per class as published, of lengths from 0.3 to 30 s."""
        classes = SUBSETS[self.options.subset]
        test = [self._stand_in(name, i) for name in classes for i in range(_test_counts()[name])]
        # Numbers that no file for testing has.
        train = [self._stand_in(name, 1000 + i) for name in classes for i in range(TRAIN_COUNTS[name])]
        return self._divided(train, test, "synthetic")

    def _stand_in(self, name: str, number: int) -> Sound:
        classes = SUBSETS[self.options.subset]
        label = classes.index(name)
        share = np.random.default_rng([number + 1, label + 1]).uniform()
        seconds = _SHORTEST_SECONDS * (_LONGEST_SECONDS / _SHORTEST_SECONDS) ** float(share)
        return SyntheticSound(label, len(classes), number, round(seconds, 3))

    def _sounds(self, folder: Path, split: Split) -> list[Sound]:
        audio = folder / f"{_PREFIX}audio_{split}"
        present = names_in(audio)
        classes = SUBSETS[self.options.subset]
        rows = read_rows(folder / f"{_PREFIX}meta" / _TABLES[split], ("fname", "label"))
        rows.sort(key=lambda row: row["fname"])
        sounds: list[Sound] = []
        for row in rows:
            name, label = row["fname"], row["label"]
            if label not in TRAIN_COUNTS:
                raise row.wrong(f"{label!r} is none of the {len(TRAIN_COUNTS)} classes")
            if label not in classes:
                continue
            # Only names that were listed, so that none can lead out of the folder.
            if name not in present:
                raise row.wrong(f"{audio / name} is missing")
            sounds.append(SoundFile(str(audio / name), classes.index(label)))
        return sounds

    def _divided(self, train_and_val: Sequence[Sound], test: Sequence[Sound], origin: Origin) -> RawData:
        options, classes = self.options, SUBSETS[self.options.subset]
        by_class: dict[str, list[Sound]] = {name: [] for name in classes}
        for sound in train_and_val:
            by_class[classes[sound.label]].append(sound)
        train, val = stratified(by_class, _VAL_FRACTION)
        parts: dict[Split, Sequence[Sound]] = {"train": train, "val": val, "test": test}
        fragments = Fragments(options.spectrum, options.frames, options.frames // 2, options.trim_db)
        return DecodedFiles(
            Facts(self.name, classes, self.licence, origin),
            {split: options.items(split, sounds) for split, sounds in parts.items()},
            fragments.decoding(partial(_estimate, fragments)),
            skip_bad=options.skip_bad,
        )


def _test_counts() -> Mapping[str, int]:
    subsets = {name: SUBSETS[name] for name in ("music10", "environment10")}
    others = tuple(name for name in TRAIN_COUNTS if not any(name in subset for subset in subsets.values()))
    totals = [(subsets[name], _TEST_TOTALS[name]) for name in subsets]
    totals.append((others, _TEST_TOTALS["all"] - sum(total for _, total in totals)))
    return {
        name: total // len(classes) + (number < total % len(classes))
        for classes, total in totals
        for number, name in enumerate(classes)
    }


def _estimate(fragments: Fragments, sounds: Sequence[Sound | Copy]) -> int:
    return sum(fragments.count(_seconds(sound)) for sound in sounds)


def _seconds(sound: Sound | Copy) -> float:
    """Guess the length of a sound: the published files are mono, of 16 bits, at 44.1 kHz."""
    if isinstance(sound, Copy):
        return _seconds(sound.original)
    if isinstance(sound, SyntheticSound):
        return sound.seconds
    try:
        return Path(sound.name).stat().st_size / _FILE_BYTES_PER_SECOND
    except OSError as error:
        raise SourceError(f"{sound.name} cannot be read: {error.strerror}.") from error
