"""Reading the official CIFAR pickles without running anything that they contain.

The few names that these files need are replaced by recorders. So a pickle can call neither
Python nor NumPy; arrays are built afterwards, from what was recorded and then checked.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.source import SourceError

VALUES = 3072
CLASS_COUNT = 10

_NUMBER_CODES = frozenset({"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"})
_BYTE_ORDERS = frozenset("<>|=")
_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
# Of those that no call consumes, a batch has about ten.
_TUPLE_OPCODES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
_MAX_TUPLES = 200
# Whatever the unpickler and our recorders raise on broken or contrived input.
_FAULTS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


class _Recorded:
    """Remembers what a pickle would have built."""

    __slots__ = ("args", "state")

    def __init__(self, *args: object) -> None:
        self.args = args
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Array(_Recorded):
    __slots__ = ()


class _Dtype(_Recorded):
    __slots__ = ()


class _Name:
    """Something importable that a pickle may call, but not alter."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *args: object) -> object:
        return self._make(*args)

    def __setstate__(self, state: object) -> None:
        # Without this method, a pickle could set any attribute of ours.
        raise pickle.UnpicklingError("state for a name")


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(encoding)
    return text.encode("latin1")


def _not_called(*args: object) -> object:
    raise TypeError(f"called with {len(args)} arguments")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Name(_Array),
    ("numpy._core.multiarray", "_reconstruct"): _Name(_Array),
    ("numpy", "dtype"): _Name(_Dtype),
    ("numpy", "ndarray"): _Name(_not_called),
    ("_codecs", "encode"): _Name(_encoded),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._where = where

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            name = ascii(f"{module_name}.{global_name}"[:80])[1:-1]
            raise SourceError(
                f"{self._where} contains foreign content ({name}); it is not a CIFAR batch and was not loaded."
            ) from None


def load_batch(data: bytes, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pixels ``(n, 3072)`` and labels ``(n,)`` of a pickled batch; ``where`` is for errors.

    Raises:
        SourceError: the pickle is damaged, or is anything but a batch.
    """
    content = _loaded(data, where)
    pixels, labels = _entry(content, "data", where), _entry(content, "labels", where)
    try:
        x = _array(pixels)
        y = _array(labels) if isinstance(labels, _Array) else _integers(labels)
    except _FAULTS as error:
        raise _not_a_batch(where, "its arrays are malformed") from error
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != VALUES or len(x) == 0:
        raise _not_a_batch(where, f"its data is {x.dtype} {x.shape}, not uint8 (n, {VALUES})")
    if y.shape != (len(x),):
        raise _not_a_batch(where, f"it has {y.size} labels for {len(x)} images")
    if y.min() < 0 or y.max() >= CLASS_COUNT:
        raise _not_a_batch(where, f"its labels are not all within 0 to {CLASS_COUNT - 1}")
    return x, y.astype(np.int64)


def load_class_names(data: bytes, where: str) -> tuple[str, ...]:
    """Return the names in a pickled ``batches.meta``.

    Raises:
        SourceError: the pickle is damaged, or is anything but that file.
    """
    names = _entry(_loaded(data, where), "label_names", where)
    if not isinstance(names, list) or len(names) != CLASS_COUNT:
        raise _not_a_batch(where, f"it does not name {CLASS_COUNT} classes")
    texts = [name.decode("ascii", "replace") if isinstance(name, bytes) else name for name in names]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise _not_a_batch(where, "its class names are not text")
    return tuple(texts)


def _loaded(data: bytes, where: str) -> dict[Any, Any]:
    try:
        _require_shallow(data)
        content = _Unpickler(data, where).load()
    except _FAULTS as error:
        raise SourceError(f"{where} is truncated or damaged; replace it with a fresh copy.") from error
    if not isinstance(content, dict):
        raise _not_a_batch(where, "it holds no dictionary")
    return content


def _require_shallow(data: bytes) -> None:
    """Refuse tuples inside tuples without end: hashing them would overflow the stack of the interpreter.

    A tuple that a call consumes at once, as those of 10,000 file names, cannot be part of a nest.
    """
    kept = 0
    pending = False
    for opcode, _, _ in pickletools.genops(data):
        if opcode.name in _MEMO_OPCODES:
            continue
        kept += pending and opcode.name != "REDUCE"
        if kept > _MAX_TUPLES:
            raise ValueError("tuples")
        pending = opcode.name in _TUPLE_OPCODES


def _entry(content: dict[Any, Any], key: str, where: str) -> object:
    # Pickles of Python 2 have keys of bytes.
    for spelling in (key.encode(), key):
        if spelling in content:
            return content[spelling]
    raise _not_a_batch(where, f"it has no {key!r}")


def _array(recorded: object) -> NDArray[Any]:
    if not isinstance(recorded, _Array):
        raise TypeError(type(recorded).__name__)
    match recorded.state:
        case (int(), tuple(shape), _Dtype() as dtype, bool() | int() as fortran, bytes(raw)):
            flat = np.frombuffer(raw, _number_type(dtype))
        case _:
            raise TypeError("state of an array")
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != flat.size:
        raise ValueError(shape)
    # The copy owns its memory and may be written to; the bytes of the pickle can go.
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def _number_type(recorded: _Dtype) -> np.dtype[Any]:
    match recorded.args, recorded.state:
        case (code, *_), (int(), order, *_):
            code, order = _text(code), _text(order)
        case _:
            raise TypeError("state of a dtype")
    if code not in _NUMBER_CODES or order not in _BYTE_ORDERS:
        raise ValueError(order + code)
    return np.dtype(order + code)


def _text(value: object) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _integers(labels: object) -> NDArray[np.int64]:
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise TypeError("labels")
    return np.array(labels, np.int64)


def _not_a_batch(where: str, reason: str) -> SourceError:
    return SourceError(f"{where} is not a CIFAR file: {reason}. Replace it with a fresh copy.")
