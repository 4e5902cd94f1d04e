"""How one sample becomes one file, and back: the part of the filesystem backend that knows formats."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from . import npy
from .store import damaged

# All that Pillow and torchcodec are known to raise on a damaged file.
_UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError, struct.error, zlib.error)


def decoder_name() -> str:
    """Return the library that decodes images the fast way here."""
    return "Pillow" if _decoder("png") is None else "torchcodec"


@cache
def _decoder(name: Literal["png", "jpeg"]) -> Callable[[NDArray[np.uint8]], NDArray[Any]] | None:
    """Return torchcodec's decoder of encoded bytes into ``(C, H, W)``, or None where it cannot be used."""
    try:
        import torch
        from torchcodec.decoders import decode_jpeg, decode_png  # type: ignore[attr-defined]  # it has no __all__
    # One that was built for another version of torch fails in either way.
    except (ImportError, RuntimeError, OSError):
        return None
    decode: Callable[..., Any] = decode_png if name == "png" else decode_jpeg
    return lambda content: decode(torch.from_numpy(content), mode="UNCHANGED").numpy()


class Codec(Protocol):
    """One format of sample files. Reading raises BackendError, naming the file, when it is missing or damaged."""

    def encode(self, sample: NDArray[Any]) -> bytes:
        """Return the content of a sample's file."""

    def decode_into(self, path: str, row: NDArray[Any]) -> None:
        """Read a sample into ``row``, the fast way: its published layout, or the fastest decoder."""

    def load(self, path: str) -> NDArray[Any]:
        """Read a sample the ordinary way."""


class NpyCodec:
    """Raw arrays; the header is the same in all files of a store."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        header = io.BytesIO()
        npy.write_header(header, shape, self._dtype)
        self._header = header.getvalue()
        self._size = len(self._header) + int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize

    def encode(self, sample: NDArray[Any]) -> bytes:
        """See Codec.encode."""
        return self._header + sample.tobytes()

    def decode_into(self, path: str, row: NDArray[Any]) -> None:
        """See Codec.decode_into."""
        header = bytearray(len(self._header))
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                got = os.readv(file, (header, row.data))
            finally:
                os.close(file)
        except OSError as error:
            raise damaged(Path(path), error.strerror) from error
        if got != self._size or header != self._header:
            raise damaged(Path(path), f"not the {self._size} bytes that were written")

    def load(self, path: str) -> NDArray[Any]:
        """See Codec.load."""
        try:
            sample: NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise damaged(Path(path), error) from error
        if sample.shape != self._shape or sample.dtype != self._dtype:
            raise damaged(Path(path), f"holds {sample.dtype} {sample.shape}")
        return sample


class ImageCodec:
    """PNG or JPEG, written by Pillow.

    Read the fast way by torchcodec (libpng and libjpeg-turbo, without the GIL) where it is installed, else by Pillow's
    plug-in; the ordinary way by ``Image.open``. JPEG keeps the colour of every pixel (4:4:4): the usual halving of the
    colour resolution would cost small images most of theirs.
    """

    def __init__(self, name: Literal["png", "jpeg"], shape: tuple[int, ...], quality: int) -> None:
        self._channels, self._height, self._width = shape
        self._mode = "L" if self._channels == 1 else "RGB"
        self._name = name
        self._save: dict[str, int] = {} if name == "png" else {"quality": quality, "subsampling": 0}

    def encode(self, sample: NDArray[Any]) -> bytes:
        """See Codec.encode."""
        pixels = np.ascontiguousarray(sample.transpose(1, 2, 0))
        content = io.BytesIO()
        image = Image.frombytes(self._mode, (self._width, self._height), pixels.tobytes())
        image.save(content, self._name, **self._save)
        return content.getvalue()

    def decode_into(self, path: str, row: NDArray[Any]) -> None:
        """See Codec.decode_into."""
        decode = _decoder(self._name)
        try:
            if decode is None:
                self._decode_by_pillow(path, row)
                return
            pixels = decode(np.fromfile(path, np.uint8))
        except _UNDECODABLE as error:
            raise damaged(Path(path), error) from error
        if pixels.shape != row.shape or pixels.dtype != np.uint8:
            raise damaged(Path(path), f"an image of {pixels.dtype} {pixels.shape}")
        row[...] = pixels

    def _decode_by_pillow(self, path: str, row: NDArray[Any]) -> None:
        # The plug-in itself, on bytes already read: Image.open would first ask every format in turn.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            content = file.read()
        image = (PngImageFile if self._name == "png" else JpegImageFile)(io.BytesIO(content))
        self._check(image)
        pixels = np.frombuffer(image.tobytes(), np.uint8)
        row[...] = pixels.reshape(self._height, self._width, self._channels).transpose(2, 0, 1)

    def load(self, path: str) -> NDArray[Any]:
        """See Codec.load."""
        try:
            with Image.open(path) as image:
                self._check(image)
                pixels = np.asarray(image).reshape(self._height, self._width, self._channels)
        except _UNDECODABLE as error:
            raise damaged(Path(path), error) from error
        return np.array(pixels.transpose(2, 0, 1), order="C")

    def _check(self, image: Image.Image) -> None:
        if image.mode != self._mode or image.size != (self._width, self._height):
            raise ValueError(f"an image of mode {image.mode} and size {image.size}")
