"""Tiny ImageNet, a folder of JPEG files: training files in a folder per class, validation files in a list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import ClassVar

from bench.contracts.options import Options
from bench.contracts.source import Content, Origin, RawData, SourceError, Split

from .decoded import DecodedFiles, Facts, File
from .download import Remote
from .extraction import Limits
from .images import ImageOptions, image_decoding
from .published import Published
from .synthetic import SyntheticPhotos
from .tiny_imagenet_names import NAMES
from .trees import class_folders, files_below, shuffled

_FOLDER = "tiny-imagenet-200"
_CLASSES_FILE = "wnids.txt"
_VAL_LABELS = "val_annotations.txt"
_SUFFIXES = {".jpeg"}
_SIZE = 64


class TinyImagenet(Published):
    """110,000 labelled photographs of 64 x 64 pixels in 200 classes (Stanford CS231n, from ImageNet).

    The classes are in the order of their WordNet identifiers. The publisher's test split has no
    labels and is left out; the validation split is the one to test on.
    """

    name: ClassVar[str] = "tiny-imagenet"
    splits: ClassVar[tuple[Split, ...]] = ("train", "val")
    content: ClassVar[Content | None] = "images"
    options_type: ClassVar[type[Options]] = ImageOptions
    options: ImageOptions
    archives: ClassVar[tuple[Remote, ...]] = (
        Remote(
            "tiny-imagenet-200.zip",
            ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
            sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            size_bytes=248_100_043,
        ),
    )
    downloads: ClassVar[tuple[str, ...]] = ("tiny-imagenet-200.zip",)
    folders: ClassVar[tuple[str, ...]] = (_FOLDER,)
    licence: ClassVar[str] = "none stated; ImageNet, which it is taken from, is for non-commercial research only"
    limits: ClassVar[Limits] = Limits(max_members=200_000, max_member_bytes=16 << 20, max_total_bytes=2 << 30)

    def wanted(self, member: str) -> bool:
        """See Published.wanted."""
        inside = PurePosixPath(member).parts[1:]
        return inside == (_CLASSES_FILE,) or inside[:1] in {("train",), ("val",)}

    def is_root(self, folder: Path) -> bool:
        """See Published.is_root."""
        return (folder / _CLASSES_FILE).is_file() and (folder / "train").is_dir()

    def open_folder(self, folder: Path, origin: Origin) -> RawData:
        """See Published.open_folder."""
        identifiers = _identifiers(folder / _CLASSES_FILE)
        classes = tuple(_class_name(wnid) for wnid in identifiers)
        train = _train_files(folder / "train", identifiers)
        val = _val_files(folder / "val", identifiers)
        return DecodedFiles(
            Facts(self.name, classes, self.licence, origin),
            {"train": shuffled(train), "val": shuffled(val)},
            image_decoding(train, self.options),
            skip_bad=self.options.skip_bad,
        )

    def imitate(self) -> RawData:
        """See DataSource.imitate."""
        size = self.options.size or _SIZE
        return SyntheticPhotos(
            name=self.name,
            counts={"train": 100_000, "val": 10_000},
            shape=(3, size, size),
            classes=tuple(map(_class_name, NAMES)),
            licence=self.licence,
        )


def _class_name(wnid: str) -> str:
    return f"{NAMES[wnid]} ({wnid})" if wnid in NAMES else wnid


def _identifiers(path: Path) -> list[str]:
    identifiers = sorted(text.strip() for _, text in _lines(path))
    if len(identifiers) < 2:
        raise SourceError(f"{path} names {len(identifiers)} classes; at least 2 are needed. Replace it.")
    for one, other in pairwise(identifiers):
        if one == other:
            raise SourceError(f"{path} names class {one!r} twice. Remove one of the lines.")
    return identifiers


def _train_files(folder: Path, identifiers: Sequence[str]) -> list[File]:
    unknown = sorted(set(class_folders(folder)) - set(identifiers))
    if unknown:
        raise SourceError(f"{folder / unknown[0]} is of no class that {_CLASSES_FILE} names. Add it there, or move it.")
    files: list[File] = []
    for label, wnid in enumerate(identifiers):
        paths = files_below(folder / wnid / "images", _SUFFIXES)
        if not paths:
            raise SourceError(f"{folder / wnid / 'images'} has no .JPEG files; unpack the whole archive again.")
        files += [File(path, label) for path in paths]
    return files


def _val_files(folder: Path, identifiers: Sequence[str]) -> list[File]:
    labels = _val_labels(folder / _VAL_LABELS, identifiers)
    files = []
    for path in files_below(folder / "images", _SUFFIXES):
        label = labels.pop(Path(path).name, None)
        if label is None:
            raise SourceError(f"{path} has no line in {_VAL_LABELS}. Add one, or move the file.")
        files.append(File(path, label))
    if labels:
        raise SourceError(
            f"{folder / 'images' / min(labels)} is missing, but {_VAL_LABELS} names it; unpack the whole archive again."
        )
    return files


def _val_labels(path: Path, identifiers: Sequence[str]) -> dict[str, int]:
    """Read lines of a file name, its class and its box in pixels (which is not used), separated by tabs."""
    numbers = {wnid: label for label, wnid in enumerate(identifiers)}
    labels: dict[str, int] = {}
    for line, text in _lines(path):
        name, _, rest = text.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if wnid not in numbers:
            raise SourceError(f"{path}, line {line}: {wnid!r} is no class that {_CLASSES_FILE} names. Correct it.")
        if name in labels:
            raise SourceError(f"{path}, line {line}: {name!r} has been named before. Remove one of the lines.")
        labels[name] = numbers[wnid]
    return labels


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file that are not blank, with their numbers."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
        return [(number, text) for number, text in enumerate(lines, start=1) if text.strip()]
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; unpack the whole archive again.") from error
