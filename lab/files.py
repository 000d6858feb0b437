"""Files: written so that a reader sees the old or the new one, and never a part; and where one is wrong."""

import os
import re
import tempfile
import tomllib
from pathlib import Path

from lab.errors import ConfigError, LabError


def place(path: Path, error: Exception) -> str:
    """Where `error` is in the file at `path`: with the line, where a TOML parser names it."""
    # Before Python 3.14 the line is in the message alone.
    line = re.search(r"\(at line (\d+)", str(error)) if isinstance(error, tomllib.TOMLDecodeError) else None
    return f"{path}, line {line[1]}" if line else str(path)


def key_place(path: Path, text: str, key: str) -> str:
    """Where a key such as `search.episodes` is in the TOML file at `path`: with its line, or its table's."""
    line = _line_of(text, key)
    return ", ".join(filter(None, [str(path), f"line {line}" if line else "", key]))


def _line_of(text: str, key: str) -> int | None:
    *tables, name = [part for part in key.split(".") if not part.isdecimal()] or [""]
    table, within, in_string, header_line = ".".join(tables), "", False, None
    for number, line in enumerate(text.splitlines(), 1):
        was_in_string, in_string = in_string, in_string ^ bool(line.count('"""') % 2)
        if was_in_string:
            continue
        if header := re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]", line):
            within = header[1]
            if within == key:
                return number
            header_line = number if within == table else header_line
        elif within == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return number
    return header_line


def check_writable(path: Path) -> None:
    """Pass where a file could be written to `path`; nothing is left behind.

    Raises:
        ConfigError: it could not.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(
            "A file cannot be written there.", where=str(path), why=why, do="name another"
        ) from None


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
