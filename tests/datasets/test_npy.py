from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from numpy.typing import NDArray
from source_conformance import read

from bench.contracts.source import SourceError, SourceRequest
from bench.datasets.npy import Npy

DTYPES = [
    "bool",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]


def opened(folder: Path) -> Npy:
    source = Npy(SourceRequest("local", folder))
    source.prepare(folder / "cache")
    return source


def laid_out(folder: Path, x: NDArray[Any], y: Any, suffix: str = "") -> Path:
    np.save(folder / f"x{suffix}.npy", x)
    np.save(folder / f"y{suffix}.npy", np.asarray(y))
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        opened(folder)
    text = str(caught.value)
    assert str(folder) in text
    assert "\n" not in text
    return text


def values(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    raw = np.random.default_rng(3).integers(
        0, 2 if dtype == "bool" else 256, (*shape, np.dtype(dtype).itemsize), np.uint8
    )
    return raw.view(dtype)[..., 0]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_order_and_endianness(tmp_path: Path, dtype: str, endian: str, order: Any) -> None:
    x = values((6, 2, 3), dtype)
    laid_out(tmp_path, np.asarray(x.astype(np.dtype(dtype).newbyteorder(endian)), order=order), np.arange(6) % 3)
    source = opened(tmp_path)
    ((found, y),) = source.samples("train")  # np.concatenate would turn them into native ones
    schema = source.schema("train")
    assert (schema.dtype, schema.shape, schema.count) == (dtype, (2, 3), 6)
    assert (schema.classes, schema.licence, schema.origin) == (("0", "1", "2"), "your own data", "local")
    assert found.tobytes() == x.tobytes()  # NaNs included
    assert found.dtype == np.dtype(dtype)
    assert found.flags.c_contiguous
    assert y.tolist() == [0, 1, 2, 0, 1, 2]
    assert y.dtype == np.int64
    assert torch.from_numpy(found).shape == (6, 2, 3)


@given(array_shapes(min_dims=1, max_dims=5, max_side=4), st.sampled_from(["int8", ">i4", "uint64"]))
@settings(max_examples=30, deadline=None)
def test_any_shape(tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str) -> None:
    folder = tmp_path_factory.mktemp("shapes")
    x = np.random.default_rng(4).integers(0, 99, (2, *shape[1:])).astype(dtype)
    found, _ = read(opened(laid_out(folder, x, np.array([1, 0], np.uint8))), "train")
    np.testing.assert_array_equal(found, x)


def test_large_arrays_come_in_blocks(tmp_path: Path) -> None:
    x = np.random.default_rng(5).integers(0, 256, (41, 1000, 1000), np.uint8)
    blocks = list(opened(laid_out(tmp_path, x, np.arange(41))).samples("train"))
    assert len(blocks) > 4
    assert all(type(block.x) is np.ndarray and block.x.nbytes <= 8 << 20 for block in blocks)
    np.testing.assert_array_equal(np.concatenate([block.x for block in blocks]), x)
    np.testing.assert_array_equal(np.concatenate([block.y for block in blocks]), np.arange(41))


def test_small_samples_come_in_blocks(tmp_path: Path) -> None:
    blocks = list(
        opened(laid_out(tmp_path, np.zeros(3_000_000, np.int8), np.ones(3_000_000, np.int8))).samples("train")
    )
    assert len(blocks) > 2
    assert all(block.y.nbytes <= 8 << 20 for block in blocks)
    assert sum(len(block.y) for block in blocks) == 3_000_000


def test_a_sample_above_the_block_size_comes_alone(tmp_path: Path) -> None:
    x = np.arange(6 << 20, dtype=np.float32).reshape(2, 3 << 20)
    blocks = list(opened(laid_out(tmp_path, x, [0, 1])).samples("train"))
    assert [block.x.shape for block in blocks] == [(1, 3 << 20)] * 2
    np.testing.assert_array_equal(np.concatenate([block.x for block in blocks]), x)


@pytest.mark.parametrize("train", ["", "_train"])
def test_splits(tmp_path: Path, train: str) -> None:
    arrays = {split: np.random.default_rng(k).random((4 + k, 3)) for k, split in enumerate(("train", "val", "test"))}
    laid_out(tmp_path, arrays["train"], [0, 1, 0, 1], train)
    laid_out(tmp_path, arrays["val"], [0, 1, 2, 3, 4], "_val")
    laid_out(tmp_path, arrays["test"], [0] * 6, "_test")
    source = opened(tmp_path)
    for split in source.splits:
        np.testing.assert_array_equal(read(source, split)[0], arrays[split])
        assert source.schema(split).classes == ("0", "1", "2", "3", "4")
        assert source.schema(split).count == len(arrays[split])


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    source = opened(laid_out(tmp_path, np.zeros((2, 3)), [0, 1]))
    for ask in (source.schema, lambda split: list(source.samples(split))):
        with pytest.raises(SourceError, match="no val samples here; it has: train"):
            ask("val")


def test_the_fingerprint_notices_a_changed_file(tmp_path: Path) -> None:
    before = opened(laid_out(tmp_path, np.zeros((2, 3)), [0, 1])).fingerprint()
    assert opened(tmp_path).fingerprint() == before
    assert opened(laid_out(tmp_path, np.ones((2, 3)), [0, 1])).fingerprint() != before


@pytest.mark.parametrize(
    "x",
    [
        np.array([{}, {}]),
        np.array(["a", "b"]),
        np.array([b"a", b"b"]),
        np.zeros(2, [("a", np.int32)]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, "timedelta64[s]"),
        np.zeros(2, np.complex64),
        np.zeros(2, np.longdouble),
        np.zeros(2, "V4"),
    ],
    ids=lambda x: str(x.dtype),
)
def test_types_that_are_no_tensors_are_refused(tmp_path: Path, x: NDArray[Any]) -> None:
    assert "x.npy" in refused(laid_out(tmp_path, x, [0, 1]))


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.float32(1), [0, 1], "x.npy has shape ()"),
        (np.zeros((0, 3)), np.zeros(0, int), "x.npy has shape (0, 3)"),
        (np.zeros((2, 0)), [0, 1], "x.npy has shape (2, 0)"),
        (np.zeros((3, 2)), [0, 1], "y.npy has shape (2,), but"),
        (np.zeros((2, 2)), [[0], [1]], "y.npy has shape (2, 1), but"),
        (np.zeros((2, 2)), 1, "y.npy has shape (), but"),
        (np.zeros((2, 2)), [0.0, 1.0], "y.npy is of type float64"),
        (np.zeros((2, 2)), [False, True], "y.npy is of type bool"),
        (np.zeros((2, 2)), [0, -1], "y.npy has class -1"),
        (np.zeros((2, 2)), [0, 10**12], "y.npy has class 1000000000000"),
        (np.zeros((2, 2)), np.array([0, 2**64 - 1], np.uint64), "y.npy has class 18446744073709551615"),
        (np.zeros((2, 2)), [0, 0], "at least 2 classes"),
    ],
)
def test_shapes_and_labels_that_fit_nothing_are_refused(tmp_path: Path, x: Any, y: Any, said: str) -> None:
    assert said in refused(laid_out(tmp_path, x, y))


def header(text: str) -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def about(shape: str, descr: str = "'<f4'") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 500,
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x09\x00" + b" " * 200,
        about("(2, 3)"),
        about("(2, 3)") + b"\0" * 23,
        about("(1000000000000, 3)") + b"\0" * 24,
        about("(4000000000, 4000000000, 4000000000)") + b"\0" * 24,
        about("(-2, 3)") + b"\0" * 24,
        about("(-2, -3)") + b"\0" * 24,
        about("'ab'") + b"\0" * 24,
        about("(2, 3)", "'|O'") + b"\0" * 48,
        about("(2, 3)", "'nonsense'") + b"\0" * 48,
        header("{'descr': __import__('os').abort()}") + b"\0" * 24,
        header("((((((((((") + b"\0" * 24,
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_damaged_and_hostile_files_are_refused(tmp_path: Path, content: bytes) -> None:
    laid_out(tmp_path, np.zeros((2, 3), np.float32), [0, 1])
    (tmp_path / "x.npy").write_bytes(content)
    assert "x.npy" in refused(tmp_path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    laid_out(tmp_path, np.zeros((2, 3)), [0, 1])
    np.save(tmp_path / "y.npy", np.array([0, None]), allow_pickle=True)
    assert "y.npy is no .npy file that can be mapped" in refused(tmp_path)


def test_folders_that_lack_something_are_refused(tmp_path: Path) -> None:
    assert "lacks x.npy and y.npy" in refused(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    assert "y.npy cannot be read: No such file" in refused(tmp_path)
    np.save(tmp_path / "y_train.npy", [0, 1])
    assert "Remove one pair" in refused(tmp_path)
    assert "is no folder" in refused(tmp_path / "x.npy")


def test_splits_of_other_samples_are_refused(tmp_path: Path) -> None:
    laid_out(tmp_path, np.zeros((2, 3)), [0, 1])
    laid_out(tmp_path, np.zeros((2, 4)), [0, 1], "_test")
    assert "x_test.npy has samples of shape (4,) and type float64, but" in refused(tmp_path)
