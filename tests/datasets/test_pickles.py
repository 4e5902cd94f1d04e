from __future__ import annotations

import codecs
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.contracts.source import SourceError
from bench.datasets.pickles import load_batch, load_class_names

RECONSTRUCT = np.zeros(1).__reduce__()[0]  # its import path depends on NumPy's version
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def images(count: int = 300) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 3072), np.uint8)


def labels(count: int = 300) -> list[int]:
    return [n * 7 % 10 for n in range(count)]


def short(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def python2_batch(x: NDArray[np.uint8], y: list[int]) -> bytes:
    """The opcodes of the official files: strings of Python 2, and the names of NumPy 1."""
    dtype = b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + short(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + short(b"b") + b"\x87R"
    array += b"(K\x01" + b"M" + struct.pack("<H", len(x)) + b"M" + struct.pack("<H", x.shape[1]) + b"\x86"
    array += dtype + b"\x89" + b"T" + struct.pack("<i", x.size) + x.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in y) + b"e"
    return b"\x80\x02}(" + short(b"labels") + numbers + short(b"data") + array + b"u."


class Crafted:
    """Pickles as a call of ``make`` that is then given ``state``."""

    def __init__(self, make: Any, args: tuple[Any, ...], state: Any = None) -> None:
        self.reduced = (make, args) if state is None else (make, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def crafted_array(shape: Any, dtype: Any, raw: Any) -> Crafted:
    return Crafted(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, raw))


def batch(data: Any, numbers: Any) -> bytes:
    return pickle.dumps({b"data": data, b"labels": numbers}, protocol=2)


def test_reads_pickles_of_python_2() -> None:
    x, y = load_batch(python2_batch(images(), labels()), "batch")
    np.testing.assert_array_equal(x, images())
    assert y.tolist() == labels()
    assert y.dtype == np.int64


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("keys", [("data", "labels"), (b"data", b"labels")])
def test_reads_pickles_of_python_3(protocol: int, keys: tuple[Any, Any]) -> None:
    x, y = load_batch(pickle.dumps({keys[0]: images(), keys[1]: labels()}, protocol), "batch")
    np.testing.assert_array_equal(x, images())
    assert y.tolist() == labels()


def test_arrays_are_contiguous_and_writable() -> None:
    x, _ = load_batch(batch(np.asfortranarray(images()), labels()), "batch")
    np.testing.assert_array_equal(x, images())
    assert x.flags.c_contiguous
    assert x.flags.writeable


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i8", "<i8"])
def test_labels_may_be_an_array(dtype: str) -> None:
    _, y = load_batch(batch(images(), np.array(labels(), dtype)), "batch")
    assert y.tolist() == labels()
    assert y.dtype == np.int64


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_names_of_classes(protocol: int) -> None:
    assert load_class_names(pickle.dumps({"label_names": NAMES}, protocol), "meta") == tuple(NAMES)
    as_bytes = [name.encode() for name in NAMES]
    assert load_class_names(pickle.dumps({b"label_names": as_bytes}, protocol), "meta") == tuple(NAMES)


@pytest.mark.parametrize("names", [NAMES[:9], "airplane", [*NAMES[:9], 3], [*NAMES[:9], "a\nb"], None])
def test_refuses_other_names_of_classes(names: object) -> None:
    with pytest.raises(SourceError, match="meta is not a CIFAR file"):
        load_class_names(pickle.dumps({"label_names": names}), "meta")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("nested", [False, True])
def test_foreign_calls_are_refused_and_not_made(tmp_path: Path, protocol: int, nested: bool) -> None:
    mark = tmp_path / "executed"
    calls = {f"{os.name}.system": (os.system, f"touch {mark}"), "eval": (eval, f"open({str(mark)!r}, 'w').close()")}
    for name, (make, argument) in calls.items():
        call = Crafted(make, (argument,))
        content = {b"data": images(), b"labels": [labels(), {"deep": (call,)}]} if nested else call
        with pytest.raises(SourceError, match=rf"^some/batch contains foreign content \([a-z_.]*{name}\); it is not"):
            load_batch(pickle.dumps(content, protocol), "some/batch")
        assert not mark.exists()
        # The pickle itself works: else the test would prove nothing.
        pickle.loads(pickle.dumps(content, protocol))
        assert mark.exists()
        mark.unlink()


def test_other_encodings_are_refused() -> None:
    with pytest.raises(SourceError, match="truncated or damaged"):
        load_batch(pickle.dumps(Crafted(codecs.encode, ("text", "utf-8")), 2), "batch")


def test_foreign_names_stay_on_one_line() -> None:
    hostile = b"\x80\x04\x8c\x04o\x1b[2\x8c\x09sys\ntem\nx\x93."
    with pytest.raises(SourceError) as caught:
        load_batch(hostile, "batch")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", [b"_codecs\nencode", b"numpy\ndtype", b"numpy\nndarray", b"numpy.core.multiarray\n_reconstruct"]
)
@pytest.mark.parametrize("state", [b"}U\x05_makeNs", b"N}U\x05_makeNs\x86", b"}U\x0d__class__NamesNs", b"K\x01"])
def test_allowed_names_cannot_be_altered(name: bytes, state: bytes) -> None:
    with pytest.raises(SourceError, match="truncated or damaged"):
        load_batch(b"\x80\x02c" + name + b"\n" + state + b"b.", "batch")
    test_reads_pickles_of_python_3(2, ("data", "labels"))


@pytest.mark.parametrize("keep", [0, 1, 50, 2000, -100, -1])
def test_truncated(keep: int) -> None:
    for whole in (python2_batch(images(), labels()), batch(images(), labels())):
        with pytest.raises(SourceError, match="batch is truncated or damaged"):
            load_batch(whole[:keep], "batch")


U1 = np.dtype("u1")
BAD_ARRAYS = {
    "objects": np.array([[None] * 3072] * 2, object),
    "floats": np.zeros((2, 3072), np.float32),
    "signed": np.zeros((2, 3072), np.int8),
    "text": np.zeros((2, 3072), "S1"),
    "structured": np.zeros((2, 3072), [("a", "u1")]),
    "narrow": np.zeros((2, 3071), np.uint8),
    "flat": np.zeros(2 * 3072, np.uint8),
    "four axes": np.zeros((2, 3, 32, 32), np.uint8),
    "empty": np.zeros((0, 3072), np.uint8),
    "too few bytes": crafted_array((2, 3072), U1, bytes(2 * 3072 - 1)),
    "too many bytes": crafted_array((2, 3072), U1, bytes(2 * 3072 + 1)),
    "huge shape": crafted_array((1 << 62, 3072), U1, bytes(2 * 3072)),
    "negative shape": crafted_array((-2, -3072), U1, bytes(2 * 3072)),
    "shape of text": crafted_array("ab", U1, bytes(2 * 3072)),
    "raw objects": crafted_array((2, 3072), np.dtype("O"), [None] * 2 * 3072),
    "object pointers": crafted_array((2, 3072), np.dtype("O"), bytes(2 * 3072 * 8)),
    "dtype without a code": crafted_array((2, 3072), Crafted(np.dtype, (), (3, "|")), bytes(2 * 3072)),
    "no state": Crafted(RECONSTRUCT, (np.ndarray, (0,), b"b")),
    "dtype as data": np.dtype("u1"),
    "ndarray called": Crafted(np.ndarray, ((2, 3072), "O")),
    "a list": [[0] * 3072] * 2,
    "bytes": bytes(2 * 3072),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_refuses_other_data(kind: str) -> None:
    with pytest.raises(SourceError, match=r"batch is (not a CIFAR file|truncated or damaged)"):
        # With protocol 2, empty bytes would be a call of "bytes".
        load_batch(pickle.dumps({"data": BAD_ARRAYS[kind], "labels": [0, 1]}, 4), "batch")


BAD_LABELS = {
    "above": [0, 10],
    "below": [0, -1],
    "too few": [0],
    "too many": [0, 1, 2],
    "floats": [0.0, 1.0],
    "truth": [False, True],
    "huge": [0, 1 << 70],
    "nested": [[0], [1]],
    "text": "01",
    "bytes": b"\x00\x01",
    "none": None,
    "two axes": np.zeros((2, 1), np.int64),
    "array of floats": np.zeros(2),
    "array above": np.array([0, 200], np.uint8),
    "array wraps": np.array([0, (1 << 64) - 1], np.uint64),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_refuses_other_labels(kind: str) -> None:
    with pytest.raises(SourceError, match="batch is not a CIFAR file"):
        load_batch(batch(images(2), BAD_LABELS[kind]), "batch")


@pytest.mark.parametrize("content", [[1, 2], None, {}, {b"data": 1}, {b"labels": [0]}, {"fine_labels": [1], "data": 1}])
def test_refuses_other_pickles(content: object) -> None:
    with pytest.raises(SourceError, match="batch is not a CIFAR file"):
        load_batch(pickle.dumps(content, 2), "batch")


def test_refuses_a_batch_of_nothing() -> None:
    with pytest.raises(SourceError, match=r"its data is uint8 \(0, 3072\)"):
        load_batch(pickle.dumps({"data": np.zeros((0, 3072), np.uint8), "labels": []}, 4), "batch")


def test_numpy_never_sees_flags_from_the_pickle() -> None:
    # With these flags NumPy itself would take pixels for pointers to objects.
    dtype = Crafted(np.dtype, ("u1", False, True), (3, "|", None, None, None, -1, -1, 63))
    x, _ = load_batch(batch(crafted_array((2, 3072), dtype, bytes(2 * 3072)), [0, 1]), "batch")
    assert x.dtype == np.uint8
    assert not x.dtype.hasobject


@pytest.mark.parametrize("nest", [b"\x85", b"(\x85t"], ids=["tuple1", "mark"])
def test_tuples_without_end_are_refused_before_they_can_crash_the_interpreter(nest: bytes) -> None:
    hostile = b"\x80\x02}(" + b")" + nest * 200_000 + b"K\x01u."
    with pytest.raises(SourceError, match="truncated or damaged"):
        load_batch(hostile, "data_batch_1")
