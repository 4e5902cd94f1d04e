"""Pictures: any file that Pillow reads safely becomes 8-bit RGB, as it is or scaled and cropped to a square."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts.options import Options
from bench.contracts.source import SourceError

from .decoded import Decoding, File

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Names of files that are taken for pictures end in one of these, in any case of letters."""

# Of the formats that Pillow knows, others start programs (EPS), are rarely tested, or hold no photographs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_PRELOAD = (__name__, "PIL.ImageOps", "PIL.JpegImagePlugin", "PIL.PngImagePlugin")

_WHITE = (255, 255, 255, 255)


class ImageOptions(Options):
    """Options of sets of pictures."""

    size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="scale the shorter side to this many pixels and crop the middle; if not given, "
        "pictures stay as they are, and all must have the shape of the first",
    )
    skip_bad: bool = Field(False, description="leave out files that cannot be decoded, and list them in the record")


@dataclass(frozen=True, slots=True)
class ImageDecoder:
    """Turns a file into one picture, ``(1, 3, height, width)`` uint8, RGB.

    The orientation in the EXIF data is applied; what is transparent lies on white; grey of
    16 bits keeps its upper 8; of several frames the first counts. With ``resize`` (then the
    shape is square), the shorter side is scaled to the given one (bilinear, antialiased) and
    the middle cropped, byte for byte as ``torchvision.transforms`` (0.19 and later) does with
    ``Resize`` and ``CenterCrop`` of a PIL image. Otherwise a picture of another shape is refused.
    """

    height: int
    width: int
    resize: bool

    def __call__(self, item: File) -> NDArray[np.uint8]:
        """Decode a file. Raises SourceError with the reason alone."""
        from PIL import ImageOps

        with _opened(item.path) as picture:
            upright = _rgb(ImageOps.exif_transpose(picture), picture.format)
        if self.resize:
            upright = _square(upright, self.height)
        elif upright.size != (self.width, self.height):
            raise SourceError(
                f"it is {_pixels(upright)} pixels, the first one is {self.width}x{self.height}: use --size"
            )
        return np.ascontiguousarray(np.asarray(upright).transpose(2, 0, 1)[None])


def image_decoding(files: Sequence[File], options: ImageOptions) -> Decoding:
    """Return how to decode pictures; without a size in the options the first readable file gives the shape.

    Raises:
        SourceError: that file cannot be read, or none of them can.
    """
    height, width = (options.size, options.size) if options.size else _first_shape(files, options.skip_bad)
    return Decoding(
        decode=ImageDecoder(height, width, resize=options.size is not None),
        shape=(3, height, width),
        dtype="uint8",
        libraries=("pillow",),
        preload=_PRELOAD,
    )


def _first_shape(files: Sequence[File], skip_bad: bool) -> tuple[int, int]:
    from PIL import ImageOps

    for file in files:
        try:
            with _opened(file.path) as picture:
                # Of a TIFF file Pillow tells the size upright before it is read, of others as it is stored.
                width, height = ImageOps.exif_transpose(picture).size
        except SourceError as error:
            if not skip_bad:
                raise SourceError(
                    f"{file.path} cannot be used: {error}. Repair it, remove it, or use --skip-bad."
                ) from error
            continue
        return height, width
    raise SourceError(f"None of the {len(files)} pictures can be read, the first is {files[0].path}.")


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """Open a picture, and turn whatever Pillow says against it into a SourceError."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # many files have odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=_FORMATS) as picture:
                yield picture
        except SourceError:
            raise
        except UnidentifiedImageError as error:
            raise SourceError(f"it is no picture ({', '.join(_FORMATS)}), or its beginning is damaged") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise SourceError(f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
        except Exception as error:  # on damaged files Pillow raises nearly anything
            text = getattr(error, "strerror", None) or " ".join(f"{type(error).__name__}: {error}".split())
            raise SourceError(f"it cannot be decoded ({text})") from error


def _rgb(picture: Image.Image, kind: str | None) -> Image.Image:
    from PIL import Image

    # Grey of 16 bits has 32 in Pillow where it comes from a PGM file, whatever the largest value that one names.
    sixteen = picture.mode.startswith("I;16") or (picture.mode, kind) == ("I", "PPM")
    if picture.mode in {"I", "F"} and not sixteen:
        raise SourceError(f"its pixels have 32 bits (mode {picture.mode}), which are of no known scale")
    if sixteen:
        grey = np.asarray(picture)
        clear = grey == picture.info.get("transparency", -1)
        return Image.fromarray(np.where(clear, 255, grey >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        front = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", front.size, _WHITE), front).convert("RGB")
    return picture.convert("RGB")


def _square(picture: Image.Image, side: int) -> Image.Image:
    """Scale and crop as torchvision.transforms.functional.resize and center_crop do."""
    from PIL import Image

    short, long = sorted(picture.size)
    scaled = int(side * long / short)
    # What scaling makes of a line of pixels may be larger than any file that is let in.
    if Image.MAX_IMAGE_PIXELS and side * scaled > Image.MAX_IMAGE_PIXELS:
        raise SourceError(f"it is {_pixels(picture)} pixels, too elongated to be scaled to {side}")
    width, height = (side, scaled) if picture.width <= picture.height else (scaled, side)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))


def _pixels(picture: Image.Image) -> str:
    return f"{picture.width}x{picture.height}"
