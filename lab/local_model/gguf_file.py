"""A GGUF file's header: its metadata and the place of its tensors, checked against the file's size.

It owns reading them, with the standard library alone; it leaves tensor values to `conversion`.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from lab.errors import LocalModelError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_DIMENSIONS = 4

_SCALARS = dict(enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))) | {10: "<Q", 11: "<q", 12: "<d"}
"""Formats of `struct`, by the type's number in a file."""

_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class TensorType:
    """A type of tensor: `block` values take `size` bytes."""

    name: str
    block: int
    size: int


TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
}
"""The types that the package `gguf` can dequantise, by their number in a file."""


@dataclass(frozen=True)
class Tensor:
    """One tensor's entry in the header.

    Attributes:
        dimensions: Length of each dimension; the first is that of a row.
        offset: Its first byte, from the start of the tensor data.
    """

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int

    def bytes_as(self, number: int) -> int:
        """Its size in bytes, with its values in the type of that number."""
        kind = TYPES[number]
        return prod(self.dimensions) // kind.block * kind.size


@dataclass(frozen=True)
class Header:
    """A file's header.

    Attributes:
        values: Metadata other than arrays, by key.
        metadata: First byte of the metadata, and the byte after the last.
        places: First byte of each of `values`.
        data: First byte of the tensor data.
    """

    version: int
    values: Mapping[str, object]
    places: Mapping[str, int]
    keys: int
    metadata: tuple[int, int]
    tensors: tuple[Tensor, ...]
    alignment: int
    data: int


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises:
        LocalModelError: It cannot be read, is no GGUF file, or is shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start[:4] != MAGIC:
                raise _unreadable(path, f"it begins with {start[:4]!r}, not {MAGIC!r}", "use a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _header(path, _Reader(data))
                _check_size(path, header, len(data))
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), "use a file that you may read") from None
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise _unreadable(path, f"its header is cut off or damaged: {error}", _AGAIN) from None
    return header


_AGAIN = "copy or download the file again, and compare its checksum"


class _Reader:
    """A place in the header, from which values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.at = data, len(MAGIC)

    def number(self, form: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(form, self._data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def count(self, form: str = "<Q") -> int:
        return int(self.number(form))

    def string(self) -> str:
        return self._bytes().decode("utf-8")

    def value(self, kind: int) -> object:
        """A value; None for an array, which is passed over."""
        if kind == _STRING:
            return self._bytes().decode("utf-8", "replace")
        if kind == _ARRAY:
            self._pass_array()
            return None
        if kind not in _SCALARS:
            raise struct.error(f"no value has type {kind}")
        return self.number(_SCALARS[kind])

    def _bytes(self) -> bytes:
        length = self.count()
        if length > len(self._data) - self.at:
            raise struct.error(f"a text of {length:,} bytes at byte {self.at:,}")
        self.at += length
        return self._data[self.at - length : self.at]

    def _pass_array(self) -> None:
        kind, length = self.count("<I"), self.count()
        if kind in _SCALARS:
            self.at += length * struct.calcsize(_SCALARS[kind])
        elif kind == _STRING:  # a vocabulary: 300,000 texts, so the loop is short
            at, length_at = self.at, struct.Struct("<Q").unpack_from
            for _ in range(length):
                at += 8 + length_at(self._data, at)[0]
            self.at = at
        else:
            raise struct.error("an array of arrays")


def _header(path: Path, reader: _Reader) -> Header:
    version = reader.count("<I")
    if version not in _VERSIONS:
        why = f"its version is {version}; versions {_VERSIONS[0]} and {_VERSIONS[1]} can be read"
        raise _unreadable(path, why, "convert the model with a current llama.cpp")
    tensors, keys = reader.count(), reader.count()
    first, values, places = reader.at, dict[str, object](), dict[str, int]()
    for _ in range(keys):
        key, kind = reader.string(), reader.count("<I")
        places[key] = reader.at
        if (value := reader.value(kind)) is not None:
            values[key] = value
    metadata = (first, reader.at)
    found = tuple(_tensor(path, reader) for _ in range(tensors))
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0:
        raise struct.error(f"general.alignment is {alignment!r}")
    return Header(version, values, places, keys, metadata, found, alignment, aligned(reader.at, alignment))


def _tensor(path: Path, reader: _Reader) -> Tensor:
    name, length = reader.string(), reader.count("<I")
    if not 0 < length <= _MOST_DIMENSIONS:
        raise struct.error(f"{name!r} has {length} dimensions")
    dimensions = tuple(reader.count() for _ in range(length))
    tensor = Tensor(name, dimensions, reader.count("<I"), reader.count())
    if tensor.type not in TYPES:
        why = f"the tensor {name} has type {tensor.type}, which is unknown"
        raise _unreadable(path, why, "use the same model in another quantisation, such as Q8_0 or Q4_K_M")
    if dimensions[0] % TYPES[tensor.type].block:
        raise struct.error(f"{name!r} has rows of {dimensions[0]} values in type {TYPES[tensor.type].name}")
    return tensor


def _check_size(path: Path, header: Header, size: int) -> None:
    end = max((one.offset + one.bytes_as(one.type) for one in header.tensors), default=0)
    if header.data + end > size:
        why = f"it is cut off: {size:,} bytes of {header.data + end:,}"
        raise _unreadable(path, why, _AGAIN)


def aligned(at: int, alignment: int) -> int:
    """The first multiple of `alignment` from `at` on."""
    return -(-at // alignment) * alignment


def _unreadable(path: Path, why: str, do: str) -> LocalModelError:
    return LocalModelError("The model file cannot be read", where=str(path), why=why, do=do)
