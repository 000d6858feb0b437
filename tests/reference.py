"""Makes `docs/library.md` from the docstrings of the public API: `python -m tests.reference`."""

import inspect
import re
from collections.abc import Iterator
from functools import cached_property

import lab
from tests.echo_server import ROOT

PAGE = ROOT / "docs/library.md"

HEAD = """\
# The library

```python
import lab

frozen = lab.load_frozen("prompts/best.toml")
print(frozen.messages("Hello")[-1]["content"])
```

`import lab` is light: each name below is imported when it is first used, and type checkers see its types. The
commands are modules beside them, such as `lab.tune`. Run your program in the project's folder, where
`experiments/`, `prompts/` and `.env` are. [A notebook](notebook.ipynb) runs a study, reads its episodes,
freezes the winner and plays it.

Expected errors are `lab.LabError`s, which say what happened, where, why, and what to do. The names on this
page keep their meaning; everything else in the package may change. The page is made from the docstrings, by
`python -m tests.reference`.
"""

SECTION = re.compile(r"(Args|Attributes|Raises|Returns):")


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    for name in lab.__all__:
        parts += entry(name, getattr(lab, name), "##")
        for member, value in members(getattr(lab, name)).items():
            if not member.startswith("_") and documented(value):
                parts += entry(f"{name}.{member}", value, "###")
    return "\n".join(parts)


def members(value: object) -> dict[str, object]:
    """A class's members, and those that it inherits from a class without an entry."""
    if not inspect.isclass(value):
        return {}
    entries = {getattr(lab, name) for name in lab.__all__} - {value}
    owners = [one for one in value.__mro__ if one.__module__.startswith("lab.") and one not in entries]
    return {member: one for owner in owners for member, one in vars(owner).items()}


def documented(value: object) -> bool:
    kinds = (property, cached_property, classmethod)
    return (inspect.isfunction(value) or isinstance(value, kinds)) and bool(value.__doc__)


def entry(name: str, value: object, level: str) -> Iterator[str]:
    """One name: its heading, its signature if it is called, its docstring."""
    yield f"{level} {name}\n"
    function = value.__func__ if isinstance(value, classmethod) else value
    if inspect.isfunction(function):
        waits = "await " if inspect.iscoroutinefunction(function) else ""
        yield f"```\n{waits}{name.rpartition('.')[2]}{called(function)}\n```\n"
    yield prose(inspect.getdoc(function) or "") + "\n"


def called(function: object) -> str:
    """A signature without modules, quotes, and what is passed by itself."""
    assert callable(function)
    signature = inspect.signature(function)
    given = [one for name, one in signature.parameters.items() if name not in ("self", "cls")]
    shown = str(signature.replace(parameters=given))
    shown = re.sub(r"\w+Path\(('[^']*')\)", r"\1", re.sub(r"'([A-Z]\w+)'", r"\1", shown))
    return re.sub(r"(?<![\w'/])(?:[a-z_]\w*\.)+(?=\w)", "", shown)


def prose(doc: str) -> str:
    """A docstring as Markdown: its sections as lists."""
    lines = list[str]()
    inside = False
    for line in inspect.cleandoc(doc).splitlines():
        if SECTION.fullmatch(line):
            lines += [f"**{line.removesuffix(':')}**", ""]
            inside = True
        elif inside and line.strip():
            text, is_new = line.strip(), re.match(r" {4}\S", line)
            named = re.match(r"((?:\w+, )*\w+): (.*)", text)
            shown = f"`{named[1].replace(', ', '`, `')}`: {named[2]}" if is_new and named else text
            lines.append(f"- {shown}" if is_new and named else f"  {shown}" if lines[-1] else f"- {shown}")
        else:
            inside = inside and bool(line.strip())
            lines.append(line)
    return "\n".join(lines).strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
