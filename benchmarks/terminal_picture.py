"""A picture of a terminal: converts the output of `tmux capture-pane -e -p` to a self-contained SVG.

tmux capture-pane -e -p | python benchmarks/terminal_picture.py docs/live.svg
"""

import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

TITLE = "python -m lab.tune"

# Rich's template loads its font from a server; use the reader's fonts.
FORM = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FORM = FORM.replace("font-variant-east-asian: full-width;", "")
FORM = FORM.replace("Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono")


def picture(ansi: str) -> str:
    """The SVG; as wide as the longest line."""
    text = Text.from_ansi(ansi.rstrip())
    width = max(line.cell_len for line in text.split())
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(text, no_wrap=True, overflow="crop")
    return console.export_svg(title=TITLE, code_format=FORM)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(sys.stdin.read()), encoding="utf-8")
