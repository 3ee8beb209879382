"""Read numbers out of a Python pickle without running anything that it asks for.

A pickle is a program: it names functions ("globals") and has them called. Data sets of numpy arrays use seven. Each of
them is replaced here by a class that only keeps what it is given; arrays are made afterwards, from bytes whose number
fits a shape, by ``numpy.frombuffer``. Every other global is refused by name, before anything is called, and so are
structured types. What may come out: numbers, text, bytes, None, lists, tuples, dictionaries and numpy arrays of
numbers or of these.
"""

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import DataError

NUMBERS = re.compile(r"[biufc]\d{1,2}")
DANGER = (
    "holds Python objects (a pickle), which can run any program when they are loaded; if you want it read, say so with "
    "allow_pickle=True (--allow-pickle): then arrays, numbers, lists and dictionaries are taken and all else refused"
)


def load_pickle(content: bytes, path: Path) -> Any:
    """The object of a pickle of ``content``, which came from ``path``.

    Raises `DataError` for a global that is not needed for arrays (naming it), for types of array that are not numbers,
    and for damaged contents.
    """
    try:
        return _plain(_Unpickler(content, path).load(), {})
    except DataError:
        raise
    except Exception as error:  # whatever a damaged pickle makes the machine stumble over
        raise DataError(f"{path} cannot be read, its pickle is damaged ({type(error).__name__}: {error})") from error


class _Unpickler(pickle._Unpickler):  # in Python: the one in C lets four bytes of a file ask for 64 GB of memory
    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content))
        self._path, self._most = path, len(content)

    def load_bytearray8(self) -> None:
        """Writable bytes; the original makes room for as many as the file says before it looks for them."""
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(min(size, self._most))))

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global."""
        found = GLOBALS.get((module.replace("numpy.core", "numpy._core"), name))
        if found is None:
            raise DataError(
                f"{self._path} is refused: its pickle asks for {module}.{name}, which is not needed to hold arrays, "
                "numbers, lists and dictionaries; nothing of it was run. Save it again as plain arrays (numpy.savez), "
                "with a program that you trust"
            )
        return found


class _Kept:
    """What stands in for a global: called with arguments, it keeps them. ``__setstate__`` is defined for all, so that
    a pickle cannot change attributes (that is what unpickling does to objects without it)."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _NoType(_Kept):
    """``numpy.ndarray``, which is only ever an argument."""


class _DType(_Kept):
    """``numpy.dtype(name, align, copy)`` with the state (version, byte order, ...)."""

    def resolve(self) -> np.dtype:
        name = self.arguments[0]
        if name in ("O", "O8", "O4"):
            return np.dtype(object)
        state = self.state or (3, "=", None, None, None, -1, -1, 0)
        if not NUMBERS.fullmatch(name) or state[1] not in "<>=|" or any(part is not None for part in state[2:5]):
            raise DataError(f"an array of the type {name!r} is refused: expected numbers, or objects of numbers")
        return np.dtype(state[1] + name)


class _Array(_Kept):
    """``_reconstruct(ndarray, ...)`` with the state (version, shape, type, Fortran order, bytes or list)."""

    def resolve(self, seen: dict[int, Any]) -> np.ndarray:
        _, shape, kind, fortran, data = self.state
        return _array(kind, shape, "F" if fortran else "C", data, seen)


class _FromBuffer(_Kept):
    """``_frombuffer(bytes, type, shape, order)``: arrays of protocol 5."""

    def resolve(self, seen: dict[int, Any]) -> np.ndarray:
        data, kind, shape, order = self.arguments
        return _array(kind, shape, order, data, seen)


class _Scalar(_Kept):
    """``scalar(type, bytes)``: one number."""

    def resolve(self, seen: dict[int, Any]) -> Any:
        kind, data = self.arguments
        return _array(kind, (), "C", data, seen)[()]


class _Latin1(_Kept):
    """``_codecs.encode(text, "latin1")``: bytes in the protocols 0 to 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        return text.encode("latin1")


class _Empty(_Kept):
    """``bytes()``: no bytes, in the protocols 0 to 2."""

    def __new__(cls) -> bytes:  # type: ignore[misc]
        return b""


GLOBALS = {
    ("numpy", "ndarray"): _NoType,
    ("numpy", "dtype"): _DType,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
    ("_codecs", "encode"): _Latin1,
    ("__builtin__", "bytes"): _Empty,
}


def _array(kind: _DType, shape: tuple[int, ...], order: str, data: Any, seen: dict[int, Any]) -> np.ndarray:
    dtype, count = kind.resolve(), math.prod(shape)
    if dtype.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise DataError(f"an array of objects of shape {shape} does not have {count} of them")
        out = np.empty(count, dtype=object)
        for index, value in enumerate(data):
            out[index] = _plain(value, seen)
        return out.reshape(shape)  # objects are listed in C order whatever the memory's
    if not isinstance(data, (bytes, bytearray)) or len(data) != count * dtype.itemsize:
        raise DataError(f"an array of shape {shape} and type {dtype} does not have {count * dtype.itemsize} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C").copy()


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """``value`` with arrays in the place of what was kept; ``seen``: what is done, by identity (with the original,
    so that no identity is used twice)."""
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, (_Array, _FromBuffer, _Scalar)):
        result = value.resolve(seen)
    elif isinstance(value, (list, tuple)):
        result = type(value)(_plain(each, seen) for each in value)
    elif isinstance(value, dict):
        result = {_plain(key, seen): _plain(each, seen) for key, each in value.items()}
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, bytearray)):
        return value
    else:
        raise DataError(f"a pickle of arrays does not hold {type(value).__name__.strip('_')} by itself")
    seen[id(value)] = (value, result)
    return result
