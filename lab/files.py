"""Files: atomic writes, bounded reads, one command at a time in a folder, the place of an error in a file."""

import errno
import fcntl
import os
import re
import stat
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.errors import ConfigError, LabError


def toml_line(error: Exception) -> int:
    """The line that the TOML parser names in its error, from 1; 0 if it names none."""
    # Before Python 3.14 only the message contains the line.
    line = re.search(r"\(at line (\d+)", str(error)) if isinstance(error, tomllib.TOMLDecodeError) else None
    return int(line[1]) if line else 0


MOST_BYTES = 16 * 1024 * 1024
"""Maximum size in bytes of a file that is read before START is printed."""


def read_bounded(path: Path) -> bytes:
    """The content of a file, read without blocking.

    Raises:
        OSError: The file cannot be read, is a folder, a FIFO or a socket, or is larger than `MOST_BYTES`.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        mode = os.fstat(file.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise OSError(errno.EINVAL, "not a regular file")
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MOST_BYTES // 1024**2} MiB")
    return data


def line_of(text: str, key: str) -> int:
    """The line of a key such as `search.episodes` or `tasks.1.name` in a TOML file, else that of its table.

    Returns:
        The line, from 1; 0 if the file has neither.
    """
    *tables, name = [part for part in key.split(".") if not part.isdecimal()] or [""]
    table, index = ".".join(tables), next((int(part) for part in key.split(".") if part.isdecimal()), 0)
    within, in_string, header_line, headers = "", False, 0, Counter[str]()
    for number, line in enumerate(text.splitlines(), 1):
        quotes = line.count('"""') + line.count("'''")
        was_in_string, in_string = in_string, in_string ^ bool(quotes % 2)
        if was_in_string:
            continue
        if header := re.match(r"\s*(\[?)\[\s*([\w.-]+)\s*\]", line):
            headers[header[2]] += 1
            within = header[2] if not header[1] or headers[header[2]] == index + 1 else ""
            if within and within == ".".join([*tables, name]):
                return number
            header_line = number if within and within == table else header_line
        elif within == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return number
    return header_line or (line_of(text, ".".join(tables)) if tables else 0)


def line_with(text: str, part: str, first: int) -> int:
    """The first line from line `first` on that contains `part`; 0 if none does."""
    lines = enumerate(text.splitlines(), 1)
    return next((number for number, line in lines if number >= first and part in line), 0)


def check_writable(path: Path) -> None:
    """Raise a ConfigError unless a file can be written to `path`; leaves none."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        what, why = "The file cannot be written.", error.strerror or str(error)
        raise ConfigError(what, where=str(path), why=why, do="name another file") from None


def write_atomically(path: Path, text: str, check: Callable[[Path], None] | None = None) -> None:
    """Write `text` as UTF-8 to `path` through a temporary file beside it; create the folder.

    Args:
        check: Reads the temporary file, and raises if it must not replace the file at `path`.

    Raises:
        LabError: The disk or the folder refused; the previous file is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("utf-8", "surrogatepass"))
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        what = "The file cannot be written; the previous one is unchanged."
        raise LabError(what, where=str(path), why=error.strerror or str(error)) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other commands of the lab from creating a database in this folder at the same time.

    It locks the folder itself, where `filelock` would leave a file.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
