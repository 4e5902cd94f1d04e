from __future__ import annotations

import io
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torchvision.transforms.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.source import SourceError
from bench.datasets.decoded import File
from bench.datasets.images import ImageDecoder, ImageOptions, image_decoding

RNG = np.random.default_rng(11)
FORMATS = ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(RNG.integers(0, 256, shape, np.uint8), None if mode in {"L", "RGB", "RGBA"} else mode)


def decoded(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    file = File(str(path), 0)
    decoding = image_decoding([file], ImageOptions(size=size))
    result = decoding.decode(file)
    assert result.shape == (1, *decoding.shape)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    return result[0].transpose(1, 2, 0)


def reason(path: Path, size: int | None = 8) -> str:
    with pytest.raises(SourceError) as caught:
        ImageDecoder(size or 8, size or 8, resize=size is not None)(File(str(path), 0))
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) not in text, "the file name is added by whoever knows what to do with it"
    return text


def bytes_of(image: Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def by_torchvision(image: Image.Image, size: int) -> NDArray[np.uint8]:
    scaled = reference.resize(image, size, reference.InterpolationMode.BILINEAR)
    return np.asarray(reference.center_crop(scaled, [size, size]))


@pytest.mark.parametrize("size", [1, 31, 32, 64, 100])
@pytest.mark.parametrize(
    ("width", "height"), [(32, 32), (64, 33), (33, 64), (1, 1), (1, 7), (200, 3), (101, 57), (57, 101), (300, 299)]
)
def test_scales_and_crops_exactly_as_torchvision(tmp_path: Path, width: int, height: int, size: int) -> None:
    image = picture(width, height)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png", size), by_torchvision(image, size))


@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 90))
@settings(max_examples=60, deadline=None)
def test_scales_any_shape_exactly_as_torchvision(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, size: int
) -> None:
    image = picture(width, height)
    path = tmp_path_factory.getbasetemp() / "any.ppm"
    image.save(path)
    np.testing.assert_array_equal(decoded(path, size), by_torchvision(image, size))


@pytest.mark.parametrize("kind", FORMATS)
def test_reads_every_format_whatever_the_name(tmp_path: Path, kind: str) -> None:
    image = picture(20, 10)
    (tmp_path / "a.jpg").write_bytes(bytes_of(image, kind))
    with Image.open(tmp_path / "a.jpg") as truth:
        np.testing.assert_array_equal(decoded(tmp_path / "a.jpg"), np.asarray(truth.convert("RGB")))
    if kind in {"BMP", "PNG", "PPM", "TIFF"}:
        np.testing.assert_array_equal(decoded(tmp_path / "a.jpg"), np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "PNG"),
        ("L", "JPEG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "TIFF"),
        ("LAB", "TIFF"),
        ("CMYK", "JPEG"),
    ],
)
def test_turns_other_colours_into_rgb_as_pillow_does(tmp_path: Path, mode: str, kind: str) -> None:
    image = picture(20, 10, mode) if mode in {"L", "CMYK", "LAB"} else picture(20, 10).convert(mode)
    path = tmp_path / "a.img"
    path.write_bytes(bytes_of(image, kind))
    with Image.open(path) as stored:
        assert stored.mode == mode
        np.testing.assert_array_equal(decoded(path), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_applies_the_orientation(tmp_path: Path, orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = RNG.integers(0, 1 << 16, (10, 20), np.uint16)
    stored = np.asarray(picture(20, 10)) if mode == "RGB" else np.stack([grey >> 8] * 3, axis=2).astype(np.uint8)
    image = Image.fromarray(stored if mode == "RGB" else grey)
    image.save(tmp_path / "a.png", exif=exif)
    turned = np.swapaxes(stored, 0, 1)
    # Where the first row and the first column of what is stored belong: the table of the EXIF standard.
    expected = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: turned,
        6: turned[:, ::-1],
        7: turned[::-1, ::-1],
        8: turned[::-1],
    }[orientation]
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), expected)
    upright = Image.fromarray(np.ascontiguousarray(expected))
    np.testing.assert_array_equal(decoded(tmp_path / "a.png", 8), by_torchvision(upright, 8))


def over_white(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = picture(40, 30, mode)
    values = np.asarray(image).copy()
    values[:10, :, -1] = 0
    values[10:20, :, -1] = 255
    Image.fromarray(values, None if mode == "RGBA" else mode).save(tmp_path / "a.png")
    found = decoded(tmp_path / "a.png")
    np.testing.assert_array_equal(found[:10], 255)
    np.testing.assert_array_equal(found[10:20], np.broadcast_to(values[10:20, :, :-1], (10, 40, 3)))
    expected = over_white(values[..., :-1], values[..., -1])
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1)


def test_transparent_entries_of_a_palette_lie_on_white(tmp_path: Path) -> None:
    indices = RNG.integers(0, 4, (10, 20), np.uint8)
    palette = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png", transparency=bytes([0, 255, 128, 255]))
    expected = over_white(palette[indices], np.array([0, 255, 128, 255], np.uint8)[indices])
    np.testing.assert_allclose(decoded(tmp_path / "a.png"), expected, atol=1)
    image.save(tmp_path / "b.gif", transparency=2)
    expected = over_white(palette[indices], np.array([255, 255, 0, 255], np.uint8)[indices])
    np.testing.assert_array_equal(decoded(tmp_path / "b.gif"), expected)


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (1, 2, 3)), ("L", 7), ("I;16", 1800)])
def test_a_transparent_colour_becomes_white(tmp_path: Path, mode: str, colour: tuple[int, ...] | int) -> None:
    image = Image.new(mode, (6, 4), colour)
    other = {"RGB": (1, 2, 4), "L": 8, "I;16": 1801}[mode]
    image.putpixel((5, 3), other)
    image.save(tmp_path / "a.png", transparency=colour)
    found = decoded(tmp_path / "a.png")
    assert found[3, 5].tolist() == {"RGB": [1, 2, 4], "L": [8] * 3, "I;16": [7] * 3}[mode]
    found[3, 5] = 255
    assert (found == 255).all()


@pytest.mark.parametrize(("name", "dtype"), [("a.png", "<u2"), ("a.tif", "<u2"), ("a.tif", ">u2")])
def test_sixteen_bits_become_eight(tmp_path: Path, name: str, dtype: str) -> None:
    values = RNG.integers(0, 1 << 16, (10, 20), np.uint16)
    Image.fromarray(values.astype(dtype)).save(tmp_path / name)
    np.testing.assert_array_equal(decoded(tmp_path / name), np.stack([values // 256] * 3, axis=2))


@pytest.mark.parametrize("largest", [65535, 4095])
def test_sixteen_bits_of_a_pgm_file_become_eight(tmp_path: Path, largest: int) -> None:
    values = RNG.integers(0, largest + 1, (10, 20))
    (tmp_path / "a.pgm").write_bytes(f"P5 20 10 {largest}\n".encode() + values.astype(">u2").tobytes())
    expected = np.stack([values * 65535 / largest / 256] * 3, axis=2)
    assert np.abs(decoded(tmp_path / "a.pgm") - expected).max() < 1.01


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_no_known_scale_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.ones((4, 5), dtype)).save(tmp_path / "a.tif")
    assert "32 bits" in reason(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_counts(tmp_path: Path, kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    first.save(
        tmp_path / "a.img",
        kind,
        save_all=True,
        append_images=[second],
        **({"lossless": True} if kind == "WEBP" else {}),
    )
    with Image.open(tmp_path / "a.img") as image:
        assert image.n_frames == 2
    assert decoded(tmp_path / "a.img").reshape(-1, 3).tolist() == [[255, 0, 0]] * 64


def png(width: int, height: int) -> bytes:
    """A file whose header is right, with next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is no picture"),
        (b"this is a text\n" * 100, "it is no picture"),
        (POSTSCRIPT, "it is no picture"),
        (png(0, 5), "it is no picture"),
        (png(20, 20), "it cannot be decoded"),
        (png(9460, 9460), "more than 89,478,485 pixels"),
        (png(60_000, 60_000), "more than 89,478,485 pixels"),
        (bytes_of(picture(60, 60), "PNG")[:-400], "it cannot be decoded"),
        (bytes_of(picture(60, 60), "JPEG")[:-400], "it cannot be decoded"),
        (bytes_of(picture(60, 60), "JPEG")[:10], "it cannot be decoded"),
        (bytes_of(picture(60, 60), "TIFF")[:-5000], "it cannot be decoded"),
        (bytes_of(picture(60, 60), "WEBP")[:-400], ""),
        (bytes_of(Image.new("L", (1, 200_000)), "PNG"), "1x200000 pixels, too elongated to be scaled to 600"),
    ],
)
def test_says_what_is_wrong_with_a_file(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert said in reason(tmp_path / "a.jpg", 600)


def test_says_when_there_is_no_file(tmp_path: Path) -> None:
    assert "No such file" in reason(tmp_path / "a.jpg")


def outcome(path: Path) -> NDArray[np.uint8] | SourceError:
    try:
        return ImageDecoder(12, 12, resize=True)(File(str(path), 0))
    except SourceError as error:
        return error


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damage_never_gives_anything_but_a_picture_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(bytes_of(Image.new("RGB", (24, 16), (9, 99, 199)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    result = outcome(path)
    if isinstance(result, SourceError):
        assert "\n" not in str(result)
    else:
        assert (result.shape, result.dtype) == ((1, 3, 12, 12), np.uint8)


def test_warnings_of_pillow_do_not_leak(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (9, 99, 199))
    image.save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    # A tag that claims more values than it may have, at which Pillow warns.
    position = content.index(struct.pack("<HHI", 277, 3, 1))
    content[position + 4 : position + 8] = struct.pack("<I", 2)
    (tmp_path / "a.tif").write_bytes(content)
    with warnings.catch_warnings(record=True) as direct:
        warnings.simplefilter("always")
        with Image.open(tmp_path / "a.tif") as damaged:
            damaged.load()
    assert direct, "this file no longer makes Pillow warn"
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        decoded(tmp_path / "a.tif")
    assert not leaked


def test_without_a_size_all_must_have_the_shape_of_the_first(tmp_path: Path) -> None:
    files = []
    for name, (width, height) in {"a": (64, 60), "b": (64, 60), "c": (32, 48)}.items():
        picture(width, height).save(tmp_path / f"{name}.png")
        files.append(File(str(tmp_path / f"{name}.png"), 0))
    decoding = image_decoding(files, ImageOptions())
    assert decoding.shape == (3, 60, 64)
    assert decoding.decode(files[1]).shape == (1, 3, 60, 64)
    with pytest.raises(SourceError, match=r"^it is 32x48 pixels, the first one is 64x60: use --size$"):
        decoding.decode(files[2])


def test_a_damaged_first_file_is_an_error_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    picture(9, 5).save(tmp_path / "b.png")
    files = [File(str(tmp_path / name), 0) for name in ("a.png", "b.png")]
    with pytest.raises(SourceError, match=r"a\.png cannot be used: it is no picture.*--skip-bad"):
        image_decoding(files, ImageOptions())
    assert image_decoding(files, ImageOptions(skip_bad=True)).shape == (3, 5, 9)
    with pytest.raises(SourceError, match="None of the 1 pictures"):
        image_decoding(files[:1], ImageOptions(skip_bad=True))
    assert image_decoding(files[:1], ImageOptions(size=7)).shape == (3, 7, 7)


def test_a_decoder_can_be_sent_and_tells_its_settings() -> None:
    decoders = [ImageDecoder(8, 8, resize=True), ImageDecoder(8, 8, resize=False), ImageDecoder(9, 8, resize=False)]
    assert len({repr(decoder) for decoder in decoders}) == 3
    assert pickle.loads(pickle.dumps(decoders[0])) == decoders[0]


@pytest.mark.parametrize("size", [0, -3, 4097])
def test_sizes_are_bounded(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        ImageOptions(size=size)
