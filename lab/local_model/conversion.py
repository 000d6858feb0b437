"""The conversion of a GGUF file whose tensor types the runtime cannot read, once, into a cache.

It owns the types, the cache and its lock; it leaves the arithmetic to the package `gguf`. Beside a converted
file lies its SHA-256, so that a damaged one is recognised and made again.
"""

import fcntl
import hashlib
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

from lab.errors import LocalModelError
from lab.local_model.gguf_file import MAGIC, Header, Tensor, aligned
from lab.local_model.weights import target_of

_FILE_TYPE, _MOSTLY_Q8_0 = "general.file_type", 7
_VALUES_AT_ONCE = 2**22
_SPARE_BYTES = 2**26
_WAIT_S = 0.5
_SAY_EVERY_S = 5.0

Say = Callable[[str], None]


def converted(path: Path, header: Header, say: Say) -> Path:
    """The file in types that the runtime reads, converted now, earlier, or by another process.

    Its name in the cache is the SHA-256 of the original: the same bytes are converted once wherever they
    lie, and other bytes at the same path and time never pass for them. 491 MB take 0.3 s.

    Raises:
        LocalModelError: There is too little disk, or the disk refused.
    """
    home = os.environ.get("XDG_CACHE_HOME", "").strip()
    folder = Path(home or "~/.cache").expanduser() / "prompt-lab" / "models"
    try:
        made = folder / f"{_digest(path)}.gguf"
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(made.with_suffix(".lock"), say):
            if not _whole(made):
                _convert(path, header, made, say)
    except OSError as error:
        raise LocalModelError(
            "The model file cannot be converted",
            where=str(path),
            why=f"{error.filename or folder}: {error.strerror or error}",
            do="make room there, or set XDG_CACHE_HOME to another folder",
        ) from error
    return made


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """Hold a file's lock, which the system releases even if this process is killed."""
    with path.open("ab") as file:
        said_s = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - said_s > _SAY_EVERY_S:
                    say("another process is converting the model")
                    said_s = time.monotonic()
                time.sleep(_WAIT_S)
        yield


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_file(made: Path) -> Path:
    return made.with_suffix(".sha256")


def _whole(made: Path) -> bool:
    """Whether a converted file is there, and is as it was written."""
    return made.is_file() and _digest_file(made).is_file() and _digest(made) == _digest_file(made).read_text()


def _convert(path: Path, header: Header, made: Path, say: Say) -> None:
    offsets, end = list[int](), 0
    for tensor in header.tensors:
        offsets.append(end)
        end = aligned(end + tensor.bytes_as(target_of(tensor)), header.alignment)
    needed, free = header.data + end, shutil.disk_usage(made.parent).free
    if needed + _SPARE_BYTES > free:
        raise LocalModelError(
            "The model file cannot be converted",
            where=str(made.parent),
            why=f"it needs {_megabytes(needed)} of disk, and {_megabytes(free)} are free",
            do="make room there, or set XDG_CACHE_HOME to a folder on another disk",
        )
    say(f"converting {path.name} once, to {_megabytes(needed)} in {made.parent}")
    part = made.with_suffix(".part")
    try:
        with part.open("wb") as out:
            _write(path, header, offsets, out, say)
            out.flush()
            os.fsync(out.fileno())
        _digest_file(made).write_text(_digest(part))
        part.replace(made)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _new_header(metadata: bytearray, header: Header, offsets: list[int]) -> bytes:
    """The header with the tensors' new types and places; the metadata is kept byte by byte, but its type."""
    keys = header.keys
    if (place := header.places.get(_FILE_TYPE)) is not None:
        struct.pack_into("<I", metadata, place - header.metadata[0], _MOSTLY_Q8_0)
    else:
        metadata += _text(_FILE_TYPE) + struct.pack("<II", 4, _MOSTLY_Q8_0)
        keys += 1
    entries = [
        _text(tensor.name)
        + struct.pack(f"<I{len(tensor.dimensions)}Q", len(tensor.dimensions), *tensor.dimensions)
        + struct.pack("<IQ", target_of(tensor), offset)
        for tensor, offset in zip(header.tensors, offsets, strict=True)
    ]
    start = MAGIC + struct.pack("<IQQ", header.version, len(header.tensors), keys)
    new = start + metadata + b"".join(entries)
    return new + _padding(len(new), header)


def _padding(length: int, header: Header) -> bytes:
    return b"\0" * (aligned(length, header.alignment) - length)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _write(path: Path, header: Header, offsets: list[int], out: IO[bytes], say: Say) -> None:
    import numpy as np

    data, said_s = np.memmap(path, np.uint8, mode="r"), time.monotonic()
    out.write(_new_header(bytearray(data[slice(*header.metadata)]), header, offsets))
    for number, tensor in enumerate(header.tensors):
        for piece in _pieces(data[header.data + tensor.offset :], tensor):
            out.write(piece)
            if time.monotonic() - said_s > _SAY_EVERY_S:
                say(f"converting, tensor {number + 1} of {len(header.tensors)}")
                said_s = time.monotonic()
        out.write(_padding(out.tell(), header))


def _pieces(data: Any, tensor: Tensor) -> Iterator[Any]:  # noqa: ANN401  # arrays of bytes
    """A tensor's bytes in its new type, some rows at a time: the whole may be larger than the memory."""
    from gguf import GGMLQuantizationType, quants

    source, target = GGMLQuantizationType(tensor.type), GGMLQuantizationType(target_of(tensor))
    rows = data[: tensor.bytes_as(source)].reshape(prod(tensor.dimensions[1:]), -1)
    step = max(1, _VALUES_AT_ONCE // tensor.dimensions[0])
    for at in range(0, len(rows), step):
        some = rows[at : at + step]
        yield some if source == target else quants.quantize(quants.dequantize(some, source), target)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
