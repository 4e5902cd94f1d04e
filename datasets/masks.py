"""Photographs of faces with and without a mask, of all sizes, from a repository on GitHub."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

from pydantic import Field

from bench.contracts.options import Options
from bench.contracts.source import Content, Origin, RawData, SourceError, Split

from .decoded import DecodedFiles, Facts, File
from .download import Remote
from .extraction import Limits
from .images import SUFFIXES, ImageOptions, image_decoding
from .published import Published
from .synthetic import SyntheticPhotos
from .trees import files_below, shuffled, stratified

_REPOSITORY = "chandrikadeb7/Face-Mask-Detection"
_COMMIT = "c138798d0baa0a5e6e502a088a03eae40ea31b63"
_ARCHIVE = f"face-mask-detection-{_COMMIT[:8]}.zip"
_PUBLISHED = {"with_mask": 2_165, "without_mask": 1_930}
_CLASSES = tuple(_PUBLISHED)
_TEST_FRACTION = 0.2
_SIZE = 512


class MasksOptions(ImageOptions):
    """Options of the masks data set, whose pictures differ in size."""

    size: int = Field(
        _SIZE, ge=1, le=4096, description="scale the shorter side to this many pixels and crop the middle"
    )


class Masks(Published):
    """4,095 photographs of faces in 2 classes (Chandrika Deb, 2020); a fifth of each class is drawn for testing."""

    name: ClassVar[str] = "masks"
    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    content: ClassVar[Content | None] = "images"
    options_type: ClassVar[type[Options]] = MasksOptions
    options: MasksOptions
    archives: ClassVar[tuple[Remote, ...]] = (
        Remote(_ARCHIVE, (f"https://github.com/{_REPOSITORY}/archive/{_COMMIT}.zip",), commit=_COMMIT),
    )
    downloads: ClassVar[tuple[str, ...]] = (_ARCHIVE,)
    folders: ClassVar[tuple[str, ...]] = (
        f"Face-Mask-Detection-{_COMMIT}",
        "Face-Mask-Detection-master",
        "Face-Mask-Detection",
        "dataset",
    )
    licence: ClassVar[str] = "MIT (the repository's)"
    limits: ClassVar[Limits] = Limits(max_members=50_000, max_member_bytes=256 << 20, max_total_bytes=4 << 30)

    def wanted(self, member: str) -> bool:
        """See Published.wanted."""
        inside = PurePosixPath(member).parts[1:]
        return len(inside) > 2 and inside[0] == "dataset" and inside[1] in _CLASSES

    def is_root(self, folder: Path) -> bool:
        """See Published.is_root."""
        return all((folder / name).is_dir() for name in _CLASSES)

    def open_folder(self, folder: Path, origin: Origin) -> RawData:
        """See Published.open_folder."""
        by_class: dict[str, list[File]] = {}
        for label, name in enumerate(_CLASSES):
            by_class[name] = [File(path, label) for path in files_below(folder / name, SUFFIXES)]
            if not by_class[name]:
                raise SourceError(f"{folder / name} has no pictures; unpack the whole archive again.")
        train, test = stratified(by_class, _TEST_FRACTION)
        return DecodedFiles(
            Facts(self.name, _CLASSES, self.licence, origin),
            {"train": shuffled(train), "test": shuffled(test)},
            image_decoding(train, self.options),
            skip_bad=self.options.skip_bad,
        )

    def imitate(self) -> RawData:
        """See DataSource.imitate. Its splits have as many samples of each class as the published ones."""
        parts = [stratified({name: range(count)}, _TEST_FRACTION) for name, count in _PUBLISHED.items()]
        class_counts: dict[Split, list[int]] = {
            "train": [len(train) for train, _ in parts],
            "test": [len(test) for _, test in parts],
        }
        return SyntheticPhotos(
            name=self.name,
            counts={split: sum(counts) for split, counts in class_counts.items()},
            shape=(3, self.options.size, self.options.size),
            classes=_CLASSES,
            licence=self.licence,
            class_counts=class_counts,
        )
