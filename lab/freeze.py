"""Freezing: a FrozenPrompt becomes a file that people can read in a diff."""

from pathlib import Path

import tomli_w

from lab.files import write_atomically
from lab.frozen import FrozenPrompt

_HEADER = """\
# The prompt and sampling that `python inference.py` plays, frozen by `python -m lab.tune`.
# A change in [candidate] is refused: tune again, or write an experiment.

"""


def freeze(frozen: FrozenPrompt, path: Path) -> None:
    """Write `frozen` to `path`, whole or not at all. The same winner gives the same bytes but for provenance.

    Raises:
        LabError: the file cannot be written.
    """
    write_atomically(path, frozen_text(frozen))


def frozen_text(frozen: FrozenPrompt) -> str:
    """The file's text."""
    return _HEADER + tomli_w.dumps(frozen.as_table(), multiline_strings=True)
