"""Freezing: writes a FrozenPrompt to a file that is readable in a diff and reads back unchanged."""

from pathlib import Path
from typing import Any

import tomli_w

from lab.agent.episode import Start
from lab.agent.messages import chat
from lab.errors import LabError
from lab.files import write_atomically
from lab.submission.frozen import FrozenPrompt, read_frozen

_HEADER = """\
# The prompt and sampling that `python inference.py` plays, frozen by `python -m lab.tune`.
# A change in [candidate] is refused: tune again, or write an experiment.

"""


def freeze(frozen: FrozenPrompt, path: Path) -> None:
    """Write `frozen` to `path` atomically. The same winner gives the same bytes except for provenance.

    The file is read back, and the first step's messages are rendered, before it replaces the previous file.

    Raises:
        LabError: The file cannot be written, or does not read back; the previous file is unchanged.
    """
    what = "The frozen prompt does not read back as written; the previous file is unchanged."
    try:
        text = frozen_text(frozen)
    except (TypeError, ValueError, RecursionError) as error:
        raise LabError(what, where=str(path), why=f"{type(error).__name__}: {error}") from error

    def check(written: Path) -> None:
        try:
            read = read_frozen(written)
            chat(read.candidate, read.task, Start("", schema="{}"), ())
        except LabError as error:
            raise LabError(what, where=str(path), why=": ".join([error.what, error.why])) from error
        if frozen_text(read) != text:
            raise LabError(what, where=str(path), why="it reads back differently")

    write_atomically(path, text, check)


def frozen_text(frozen: FrozenPrompt) -> str:
    """The file's text."""
    table = frozen.as_table()
    plain = tomli_w.dumps(table)
    # tomli_w drops the CR of a CRLF in multi-line strings, so another character replaces it meanwhile.
    stand_in = next(char for char in map(chr, range(0xF0000, 0xFFFFE)) if char not in plain)
    told = tomli_w.dumps(_replaced(table, "\r", stand_in), multiline_strings=True)
    return _HEADER + told.replace(stand_in, "\\r")


def _replaced(value: Any, old: str, new: str) -> Any:  # noqa: ANN401  # a TOML value
    """`value` with `old` replaced in all strings and keys."""
    match value:
        case str():
            return value.replace(old, new)
        case dict():
            return {_replaced(key, old, new): _replaced(one, old, new) for key, one in value.items()}
        case list() | tuple():
            return [_replaced(one, old, new) for one in value]
    return value
