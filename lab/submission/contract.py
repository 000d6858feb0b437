r"""The three kinds of line that a submission prints, and nothing else: START, STEP, END.

It owns their exact form and the escaping that keeps any text on one line and readable back.

Escaping of an action or an error: a backslash is doubled; what Python calls unprintable (controls, line and
paragraph separators, format characters, surrogates, any space but the plain one) becomes `\n`, `\r`, `\t`,
`\xNN`, `\uNNNN` or `\UNNNNNNNN`; and the space before `reward=`, `done=`, `error=` or another field's name
becomes `\x20`, so that a text never reads as the line's next field. `unescape` undoes it.
"""

import re
from collections.abc import Sequence

SCORE_STEP = 0.001
"""The smallest difference between two printed scores."""

_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[\\nrt])")
_FIELD = re.compile(r" (?=(?:task|env|model|step|action|reward|done|error|success|steps|score|rewards)=)")


def start_line(task: str, env: str, model: str) -> str:
    """`[START] task=... env=... model=...`."""
    task, env, model = (escape(start_name(name)) for name in (task, env, model))
    return f"[START] task={task} env={env} model={model}"


def start_name(name: str) -> str:
    """`name` as printed on START: without spaces, which would end it for parsers."""
    return re.sub(r"\s+", "_", name)


def step_line(step: int, action: str, reward: float, done: bool, error: str | None) -> str:
    """`[STEP] step=... action=... reward=0.00 done=true|false error=...|null`."""
    told = escape(error) if error else "null"
    return (
        f"[STEP] step={step} action={escape(action)} reward={_money(reward)} done={_bool(done)} error={told}"
    )


def end_line(success: bool, score: float, rewards: Sequence[float], *, open_bounds: bool = False) -> str:
    """`[END] success=true|false steps=... score=0.000 rewards=0.00,...`.

    Args:
        open_bounds: Whether the score is printed within (0, 1), not [0, 1].
    """
    if open_bounds:
        score = min(max(score, SCORE_STEP), 1 - SCORE_STEP)
    listed = ",".join(_money(reward) for reward in rewards)
    return f"[END] success={_bool(success)} steps={len(rewards)} score={score:.3f} rewards={listed}"


def escape(text: str) -> str:
    """`text` on one line, as described in the module; works for any `str`, and gives valid UTF-8."""
    return _FIELD.sub(r"\\x20", "".join(map(_escape_char, text)))


def unescape(text: str) -> str:
    """The inverse of `escape`.

    Raises:
        ValueError: `text` contains a backslash that `escape` does not write.
    """
    if "\\" in _ESCAPE.sub("", text):
        raise ValueError(f"not an escaped text: {text!r}")
    return _ESCAPE.sub(lambda match: match[0].encode().decode("unicode_escape"), text)


def _escape_char(char: str) -> str:
    is_plain = char.isprintable() and char != "\\"
    return char if is_plain else char.encode("unicode_escape").decode()


def _money(value: float) -> str:
    return f"{value:z.2f}"  # never -0.00


def _bool(value: bool) -> str:
    return "true" if value else "false"
