"""The conversion of a GGUF file whose tensor types the runtime cannot read, once, into a cache.

It owns the types, the cache and its lock; it leaves the arithmetic to the package `gguf`. A converted file
ends with the SHA-256 of what precedes it, so that a damaged one is recognised and made again.
"""

import fcntl
import hashlib
import mmap
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lab.errors import LocalModelError
from lab.local_model.gguf_file import MAGIC, TYPES, Header, Tensor, aligned
from lab.local_model.weights import check_converter, needs_conversion, target_of

_FILE_TYPE, _MOSTLY_Q8_0 = "general.file_type", 7
_VALUES_AT_ONCE = 2**22
_SPARE_BYTES = 2**26
_DIGEST_BYTES = 32
_WAIT_S = 0.5
_SAY_EVERY_S = 5.0

Say = Callable[[str], None]


def converted(path: Path, header: Header, say: Say) -> Path:
    """The file in types that the runtime reads: itself, or converted now, earlier, or by another process.

    Its name in the cache is the SHA-256 of the original: the same bytes are converted once wherever they
    lie, and other bytes at the same path and time never pass for them. 491 MB take 0.3 s.

    Raises:
        LocalModelError: There is no converter, too little disk, or the disk refused.
    """
    if not needs_conversion(header):
        return path
    home = os.environ.get("XDG_CACHE_HOME", "").strip()
    folder = Path(home or "~/.cache").expanduser() / "prompt-lab" / "models"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        made = folder / f"{digest}.gguf"
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{digest}.lock", say):
            if not _whole(made):
                check_converter(path, header)
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


def _whole(path: Path) -> bool:
    """Whether a converted file is there, and is as it was written."""
    if not path.is_file() or (size := path.stat().st_size) <= _DIGEST_BYTES:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        with memoryview(data) as view, view[: size - _DIGEST_BYTES] as content:
            digest.update(content)
        return bool(data[-_DIGEST_BYTES:] == digest.digest())


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
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            part.open("w+b") as out,
        ):
            out.write(_new_header(data, header, offsets))
            _write_tensors(data, header, out, needed, say)
            out.seek(0)
            out.write(hashlib.file_digest(out, "sha256").digest())
            out.flush()
            os.fsync(out.fileno())
        part.replace(made)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _new_header(data: mmap.mmap, header: Header, offsets: list[int]) -> bytes:
    """The header with the tensors' new types and places; the metadata is kept byte by byte, but its type."""
    first, end = header.metadata
    metadata, keys = bytearray(data[first:end]), header.keys
    if (place := header.places.get(_FILE_TYPE)) is not None:
        struct.pack_into("<I", metadata, place - first, _MOSTLY_Q8_0)
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


def _write_tensors(data: mmap.mmap, header: Header, out: IO[bytes], needed: int, say: Say) -> None:
    said_s = time.monotonic()
    for tensor in header.tensors:
        begin = header.data + tensor.offset
        for piece in _pieces(data, begin, tensor):
            out.write(piece)
            if time.monotonic() - said_s > _SAY_EVERY_S:
                say(f"converting {100 * out.tell() // needed} %")
                said_s = time.monotonic()
        out.write(_padding(out.tell(), header))


def _pieces(data: mmap.mmap, begin: int, tensor: Tensor) -> Iterator[bytes]:
    """A tensor's bytes in its new type, some rows at a time: the whole may be larger than the memory."""
    kind, target = TYPES[tensor.type], target_of(tensor)
    row_bytes = tensor.dimensions[0] // kind.block * kind.size
    size = tensor.bytes_as(tensor.type)
    step = max(1, _VALUES_AT_ONCE // tensor.dimensions[0]) * row_bytes
    for at in range(begin, begin + size, step):
        rows = data[at : min(at + step, begin + size)]
        yield rows if target == tensor.type else _requantised(rows, row_bytes, tensor.type, target)


def _requantised(rows: bytes, row_bytes: int, source: int, target: int) -> bytes:
    import numpy as np
    from gguf import GGMLQuantizationType, quants

    packed: Any = np.frombuffer(rows, np.uint8).reshape(-1, row_bytes)
    values = quants.dequantize(packed, GGMLQuantizationType(source))
    return bytes(quants.quantize(values, GGMLQuantizationType(target)).tobytes())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
