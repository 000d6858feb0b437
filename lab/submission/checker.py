"""The checker of a submission's stdout, from `inference.py` or any other script, line by line.

It owns what is accepted, by the rules of the sample script and of public validators; `docs/contract.md` has
their sources. The lab's own format is `lab.submission.contract`'s.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

Rules = Literal["sample", "phase1", "phase2"]
"""Sets of rules: the sample script's; those of the first phase's validators, which require three tasks and
parse strictly; those of the second phase, which reads only each task's name and score."""

RULES: tuple[Rules, ...] = get_args(Rules)

LEAST_TASKS = 3

SHOWN = 60
"""Characters of a wrong value that are shown."""

_FORM: tuple[Rules, ...] = ("sample", "phase1")
_AFTER_ACTION = (" reward=", " done=", " error=")
_MONEY, _SCORE = re.compile(r"-?\d+\.\d\d"), re.compile(r"\d\.\d{2,3}")
_ANY_SCORE = re.compile(r"(?:0(?:\.\d+)?|1(?:\.0+)?)")
_BREAKS = re.compile("[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029\x00]")


@dataclass(frozen=True)
class Finding:
    """A remark on a line; lines count from 1.

    Attributes:
        refused_by: The rules that do not accept it; the others accept it, and it is a warning.
    """

    line: int
    what: str
    refused_by: tuple[Rules, ...]


@dataclass(frozen=True)
class Checked:
    """The result of checking a capture.

    Attributes:
        tasks: The score of each task that has START and END, as printed, by its name; empty without one.
    """

    episodes: int
    steps: int
    tasks: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def accepted_by(self) -> list[Rules]:
        """The rules that accept it."""
        refusing = {rules for finding in self.findings for rules in finding.refused_by}
        return [rules for rules in RULES if rules not in refusing]


def check(data: bytes) -> Checked:
    """Check a capture by all rules; any bytes give a result."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    ended = lines.pop() == ""
    reader = _Reader()
    for line in lines:
        reader.read(line)
    if not ended:
        reader.line += 1
        reader.find("the last line has no newline", *_FORM)
    if reader.open and ended:
        reader.find("the output ends without END", *RULES)
    elif not reader.episodes:
        reader.line = 1
        reader.find("there is no START line", *RULES)
    if len(reader.tasks) < LEAST_TASKS:
        found = f"{len(reader.tasks)} {'task' if len(reader.tasks) == 1 else 'tasks'} with START and END"
        reader.find(f"{found}: evaluators want at least {LEAST_TASKS} in one run", "phase1", "phase2")
    return Checked(reader.episodes, reader.steps, reader.tasks, tuple(reader.findings))


class _Reader:
    """Reads the lines of episodes: START, the steps in order, END."""

    def __init__(self) -> None:
        self.open, self.line = False, 0
        self.episodes = self.steps = 0
        self.tasks, self.findings = dict[str, str](), list[Finding]()
        self._task, self._rewards, self._done = "", list[str](), False

    def find(self, what: str, *refused_by: Rules) -> None:
        """Add a finding about the current line."""
        self.findings.append(Finding(max(self.line, 1), what, refused_by))

    def read(self, line: str) -> None:
        """Check the next line."""
        self.line += 1
        if line.endswith("\r"):
            self.find("the line ends in a carriage return, which parsers keep", *_FORM)
            line = line[:-1]
        if any("\udc80" <= char <= "\udcff" for char in line):
            self.find("the line is not valid UTF-8", *RULES)
        elif found := _BREAKS.search(line):
            self.find(f"a raw {found[0]!r} splits the line for some parsers: escape it", *RULES)
        elif line.startswith("[START]"):
            self._start(line)
        elif line.startswith("[STEP]"):
            self._step(line)
        elif line.startswith("[END]"):
            self._end(line)
        elif not line.strip():
            self.find("a blank line, which most validators skip")
        else:
            told = f"not a START, STEP or END line: {_shown(line)}; print anything else to stderr"
            self.find(told, "sample")

    def _check_money(self, name: str, value: str) -> bool:
        """Check a reward; returns whether it is right."""
        right = _MONEY.fullmatch(value) is not None
        if not right:
            self.find(f"{name} is {_shown(value)}: use a number with 2 decimals", *_FORM)
        return right

    def _check_bool(self, name: str, value: str) -> None:
        if value not in ("true", "false"):
            self.find(f"{name} is {_shown(value)}: use true or false", *_FORM)

    def _start(self, line: str) -> None:
        if self.open:
            self.find("a second START before END", *RULES)
        self.open, self._rewards, self._done = True, [], False
        self.episodes += 1
        values = _fields(line, "task=", " env=", " model=")
        self._task = values[0] if values else ""
        if values is None:
            self.find("START must contain task, env, model in this order, separated by a space", *_FORM)
            return
        for name, value in zip(("task", "env", "model"), values, strict=True):
            if not value.strip():
                self.find(f"{name} is empty", *RULES)
            elif re.search(r"\s", value):
                self.find(f"{name} is {_shown(value)}: parsers read it up to the blank", "phase1")

    def _step(self, line: str) -> None:
        if not self.open:
            self.find("STEP before START", *RULES)
        if self._done:
            self.find("STEP after done=true", *_FORM)
        self.steps += 1
        values = _fields(line, "step=", " action=", *_AFTER_ACTION)
        if values is None:
            order = "step, action, reward, done, error"
            self.find(f"STEP must contain {order} in this order, separated by a space", *_FORM)
            self._rewards.append("")
            return
        number = values[0]
        _, reward, done, error = longest = _longest_action(line.partition(" action=")[2])
        self._rewards.append(reward)
        self._done = done == "true"
        if longest != values[1:]:
            self.find("the action or the error contains text that looks like a field: escape it")
        if number != str(len(self._rewards)):
            self.find(f"expected step={len(self._rewards)}, got {_shown(number)}", *_FORM)
        self._check_money("reward", reward)
        self._check_bool("done", done)
        if not error:
            self.find("error is empty: use null, or a message", *_FORM)

    def _end(self, line: str) -> None:
        if not self.open:
            self.find("END before START", *RULES)
        score = next((part[6:] for part in line.split(" ") if part.startswith("score=")), None)
        if self.open:
            self.tasks.setdefault(self._task, score or "")
        self.open = False
        if score is not None:
            self._score(score)
        else:
            self.find("END has no score, as in an older sample", "phase1", "phase2")
        values = _fields(line, "success=", " steps=", " rewards=")
        if values is None:
            order = "success, steps, score, rewards"
            self.find(f"END must contain {order} in this order, separated by a space", *_FORM)
            return
        success, steps, rewards = values
        steps = steps.partition(" score=")[0]
        rewards, _, more = rewards.partition(" ")
        if more:
            self.find(f"after rewards comes {_shown(more)}: nothing may follow", *_FORM)
        self._check_bool("success", success)
        if steps != str(len(self._rewards)):
            self.find(f"expected steps={len(self._rewards)}, got {_shown(steps)}", *_FORM)
        listed = rewards.split(",") if rewards else []
        if all(self._check_money("a reward", reward) for reward in listed) and listed != self._rewards:
            self.find("rewards differ from those of the steps", *_FORM)
        if not rewards:
            self.find("rewards is empty, which parsers of numbers do not read", "phase1")

    def _score(self, score: str) -> None:
        if not _ANY_SCORE.fullmatch(score):
            self.find(f"score is {_shown(score)}: use 0.000 to 1.000, with 2 or 3 decimals", *RULES)
            return
        if not _SCORE.fullmatch(score):
            self.find(f"score is {_shown(score)}: use 2 or 3 decimals", *_FORM)
        elif len(score) < len("0.000"):
            self.find(f"score is {_shown(score)}: some validators want 3 decimals", "phase1")
        if float(score) in (0.0, 1.0):
            self.find(f"score is {_shown(score)}: the second phase wants it strictly within (0, 1)", "phase2")


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


def _shown(text: str) -> str:
    """Foreign text, shortened, without terminal escapes."""
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + " ...")
