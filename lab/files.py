"""Files: written so that a reader sees the old or the new one, and never a part; and where one is wrong."""

import os
import re
import tempfile
import tomllib
from pathlib import Path

from lab.errors import LabError


def place(path: Path, error: Exception) -> str:
    """Where `error` is in the file at `path`: with the line, where a TOML parser names it."""
    # Before Python 3.14 the line is in the message alone.
    line = re.search(r"\(at line (\d+)", str(error)) if isinstance(error, tomllib.TOMLDecodeError) else None
    return f"{path}, line {line[1]}" if line else str(path)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, making its folder, by way of a temporary file beside it.

    Raises:
        LabError: the disk or the folder refused; what was at `path` is still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        what = "A file cannot be written; what was there before is untouched."
        raise LabError(what, where=str(path), why=error.strerror or str(error)) from error
