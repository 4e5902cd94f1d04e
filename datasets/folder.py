"""Pictures of the user's own: a folder with one folder per class, divided into splits or not."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench.contracts.options import Options
from bench.contracts.source import Content, OwnData, RawData, Split

from .class_tree import class_tree
from .decoded import DecodedFiles, Facts, File
from .images import SUFFIXES, ImageOptions, image_decoding
from .trees import shuffled


class Folder(OwnData):
    """Pictures in a folder per class, ``PATH/CLASS/...``, at any depth; all of them are for training.

    Or ``PATH/train/CLASS/...``, and beside ``train`` (or ``training``) folders ``val`` (``valid``, ``validation``) and
    ``test`` (``testing``), which are further splits of the same classes. Hidden files and those whose name does not end
    like that of a picture are passed over.
    """

    name: ClassVar[str] = "folder"
    splits: ClassVar[tuple[Split, ...]] = ("train", "val", "test")
    content: ClassVar[Content | None] = "images"
    options_type: ClassVar[type[Options]] = ImageOptions
    options: ImageOptions

    def locate(self, path: Path, *, official_only: bool) -> RawData | None:
        """See DataSource.locate. Nothing but pictures in folders of classes will do, so all else is an error."""
        if official_only:
            return None
        tree = class_tree(path, SUFFIXES, "pictures")
        files = {split: [File(*file) for file in found] for split, found in tree.files.items()}
        return DecodedFiles(
            Facts(self.name, tree.classes, "your own data", "local"),
            {split: shuffled(found) for split, found in files.items()},
            image_decoding(files["train"], self.options),
            skip_bad=self.options.skip_bad,
        )
