"""Sounds of the user's own: a folder with one folder per class, divided into splits or not."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench.contracts.options import Options
from bench.contracts.source import Content, OwnData, RawData, Split

from .audio import AudioOptions, Clip
from .class_tree import class_tree
from .decoded import DecodedFiles, Facts
from .sounds import SUFFIXES, SoundFile


class AudioFolder(OwnData):
    """Sounds in a folder per class, ``PATH/CLASS/...``, at any depth; all of them are for training.

    Or ``PATH/train/CLASS/...``, and beside ``train`` (or ``training``) folders ``val`` (``valid``, ``validation``) and
    ``test`` (``testing``), which are further splits of the same classes. Hidden files and those whose name does not end
    like that of a sound are passed over.
    """

    name: ClassVar[str] = "audiofolder"
    splits: ClassVar[tuple[Split, ...]] = ("train", "val", "test")
    content: ClassVar[Content | None] = "sounds"
    options_type: ClassVar[type[Options]] = AudioOptions
    options: AudioOptions

    def locate(self, path: Path, *, official_only: bool) -> RawData | None:
        """See DataSource.locate. Nothing but sounds in folders of classes will do, so all else is an error."""
        if official_only:
            return None
        tree = class_tree(path, SUFFIXES, "sounds")
        options = self.options
        clip = Clip(options.spectrum, options.length, options.spectrum.frames(options.length), options.trim_db)
        return DecodedFiles(
            Facts(self.name, tree.classes, "your own data", "local"),
            {split: options.items(split, [SoundFile(*file) for file in files]) for split, files in tree.files.items()},
            clip.decoding(),
            skip_bad=options.skip_bad,
        )
