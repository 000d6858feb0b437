"""The checker of a submission's stdout, from `inference.py` or any other script, line by line.

It owns what is accepted; the format is `lab.submission.contract`'s. It accepts a score with 2 or 3 decimals,
and an END without a score, as in older rules.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

SHOWN = 60
"""Characters of a wrong value that are shown."""

_AFTER_ACTION = (" reward=", " done=", " error=")
_MONEY, _SCORE = re.compile(r"-?\d+\.\d\d"), re.compile(r"\d\.\d{2,3}")
_BREAKS = re.compile("[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029\x00]")


@dataclass(frozen=True)
class Fault:
    """An error in a line; lines count from 1."""

    line: int
    what: str


@dataclass(frozen=True)
class Checked:
    """The result of checking a capture."""

    episodes: int
    steps: int
    faults: tuple[Fault, ...]


def check(data: bytes) -> Checked:
    """Check a capture; any bytes give either no faults or faults with a message."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    ended = lines.pop() == ""
    reader = _Reader()
    faults = [Fault(number, what) for number, line in enumerate(lines, 1) for what in reader.read(line)]
    if not ended:
        faults.append(Fault(len(lines) + 1, "the last line has no newline"))
    elif reader.open:
        faults.append(Fault(len(lines), "the output ends without END"))
    elif not reader.episodes:
        faults.append(Fault(1, "there is no START line"))
    return Checked(reader.episodes, reader.steps, tuple(faults))


class _Reader:
    """Reads the lines of episodes: START, the steps in order, END."""

    def __init__(self) -> None:
        self.open = False
        self.episodes = self.steps = 0
        self._rewards: list[str] = []
        self._done = False

    def read(self, line: str) -> Iterator[str]:
        """The faults of the next line."""
        if any("\udc80" <= char <= "\udcff" for char in line):
            yield "the line is not valid UTF-8"
        elif found := _BREAKS.search(line):
            yield f"a raw {found[0]!r} splits the line for some parsers: escape it"
        elif line.startswith("[START]"):
            yield from self._start(line)
        elif line.startswith("[STEP]"):
            yield from self._step(line)
        elif line.startswith("[END]"):
            yield from self._end(line)
        else:
            yield f"not a START, STEP or END line: {_shown(line)}; print anything else to stderr"

    def _start(self, line: str) -> Iterator[str]:
        if self.open:
            yield "a second START before END"
        self.open, self._rewards, self._done = True, [], False
        self.episodes += 1
        values = _fields(line, "task=", " env=", " model=")
        if values is None:
            yield "START must contain task, env, model in this order, separated by a space"
            return
        for name, value in zip(("task", "env", "model"), values, strict=True):
            if not value.strip():
                yield f"{name} is empty"

    def _step(self, line: str) -> Iterator[str]:
        if not self.open:
            yield "STEP before START"
        if self._done:
            yield "STEP after done=true"
        self.steps += 1
        values = _fields(line, "step=", " action=", *_AFTER_ACTION)
        if values is None:
            yield "STEP must contain step, action, reward, done, error in this order, separated by a space"
            self._rewards.append("")
            return
        number = values[0]
        _, reward, done, error = longest = _longest_action(line.partition(" action=")[2])
        self._rewards.append(reward)
        self._done = done == "true"
        if longest != values[1:]:
            yield "the action or the error contains text that looks like a field: escape it"
        if number != str(len(self._rewards)):
            yield f"expected step={len(self._rewards)}, got {_shown(number)}"
        yield from _wrong_money("reward", reward)
        yield from _wrong_bool("done", done)
        if not error:
            yield "error is empty: use null, or a message"

    def _end(self, line: str) -> Iterator[str]:
        if not self.open:
            yield "END before START"
        self.open = False
        values = _fields(line, "success=", " steps=", " rewards=")
        if values is None:
            yield "END must contain success, steps, score, rewards in this order, separated by a space"
            return
        success, steps, rewards = values
        steps, scored, score = steps.partition(" score=")
        yield from _wrong_bool("success", success)
        if steps != str(len(self._rewards)):
            yield f"expected steps={len(self._rewards)}, got {_shown(steps)}"
        if scored and (not _SCORE.fullmatch(score) or float(score) > 1):
            yield f"score is {_shown(score)}: use 0.000 to 1.000, with 2 or 3 decimals"
        listed = rewards.split(",") if rewards else []
        wrong = [what for reward in listed for what in _wrong_money("a reward", reward)]
        yield from wrong[:1]
        if not wrong and listed != self._rewards:
            yield "rewards differ from those of the steps"


def _fields(line: str, first: str, *marks: str) -> list[str] | None:
    """The values of a line's fields, each up to the next field's mark; None if one is missing.

    By hand, because a regular expression would backtrack for hours on a line full of marks.
    """
    _, _, rest = line.partition("]")
    values, before, rest = list[str](), *rest.partition(first)[::2]
    if not before or before.strip(" "):
        return None
    for mark in marks:
        value, found, rest = rest.partition(mark)
        if not found:
            return None
        values.append(value)
    return [*values, rest]


def _longest_action(text: str) -> list[str]:
    """Action, reward, done and error, with the longest possible action."""
    end = len(text)
    for mark in reversed(_AFTER_ACTION):
        end = text.rfind(mark, 0, end)
    rest = text[end + len(_AFTER_ACTION[0]) :]
    reward, _, rest = rest.partition(_AFTER_ACTION[1])
    done, _, error = rest.partition(_AFTER_ACTION[2])
    return [text[:end], reward, done, error]


def _wrong_money(name: str, value: str) -> Iterator[str]:
    if not _MONEY.fullmatch(value):
        yield f"{name} is {_shown(value)}: use a number with 2 decimals"


def _wrong_bool(name: str, value: str) -> Iterator[str]:
    if value not in ("true", "false"):
        yield f"{name} is {_shown(value)}: use true or false"


def _shown(text: str) -> str:
    """Foreign text, shortened, without terminal escapes."""
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + " ...")
