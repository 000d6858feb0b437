"""Ten thousand damaged files of each kind that the lab reads; ten thousand printed episodes of any Unicode.

`python -m benchmarks.fuzz` takes about three minutes. A randomly damaged frozen prompt, experiment file or
capture must be accepted, or refused with its place; a submission's output must read back exactly.
"""

# ruff: noqa: T201 - the figures are for people
import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Row, table
from lab.errors import LabError
from lab.experiment.experiment import load_experiment
from lab.submission.checker import check
from lab.submission.contract import end_line, start_line, step_line, unescape
from lab.submission.frozen import read_frozen
from lab.submission.stdout import Output
from tests.project import Project

FILES, EPISODES, STEPS = 10_000, 10_000, 8

PIECES = (
    "=",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    '"""',
    "\n",
    "#",
    ".",
    ",",
    "-1",
    "nan",
    "1e999",
    "true",
    "0x",
    "é",
    "\u2028",
    "\x00",
)


def damaged(text: bytes, chance: random.Random) -> bytes:
    """`text` with one to four defects: bytes cut, doubled, moved, overwritten or inserted."""
    for _ in range(chance.randint(1, 4)):
        first, last = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        last = min(last, first + chance.choice((1, 4, 30, 300)))
        piece = chance.choice(
            (chance.choice(PIECES).encode(), chance.randbytes(3), text[first:last] * 2, b"")
        )
        text = text[:first] + piece + text[last:]
    return text


def read_all(path: Path, read: Callable[[Path], object], chance: random.Random) -> Counter[str]:
    """Count the damaged forms of a file that were accepted, refused with the file's name, or neither."""
    whole, ends = path.read_bytes(), Counter[str]()
    for _ in range(FILES):
        path.write_bytes(damaged(whole, chance))
        try:
            read(path)
            ends["taken"] += 1
        except LabError as error:
            ends["refused" if path.name in str(error) else "refused without a place"] += 1
        except Exception as error:  # what must never happen
            ends[f"traceback: {type(error).__name__}"] += 1
    path.write_bytes(whole)
    return ends


def checked(chance: random.Random) -> Counter[str]:
    """As `read_all`, for captures of a submission's stdout."""
    steps = [step_line(number, any_text(chance), 1.5, False, None) for number in range(1, STEPS + 1)]
    lines = [start_line("echo", "test", "m"), *steps, end_line(True, 0.5, [1.5] * STEPS)]
    whole, ends = ("\n".join(lines) + "\n").encode(), Counter[str]()
    for _ in range(FILES):
        found = check(damaged(whole, chance))
        placed = all(fault.line > 0 and fault.what for fault in found.findings)
        taken = "sample" in found.accepted_by
        ends["taken" if taken else "refused" if placed else "refused without a place"] += 1
    return ends


def any_text(chance: random.Random) -> str:
    """Up to 40 code points: controls, separators and surrogates as often as letters."""
    ranges = ((0x00, 0x20), (0x20, 0x7F), (0x7F, 0x250), (0x2000, 0x2070), (0xD800, 0xE000), (0x0, 0x110000))
    picked = (chance.choice(ranges) for _ in range(chance.randint(0, 40)))
    text = "".join(chr(chance.randrange(*one)) for one in picked)
    return chance.choice((text, f"{text} reward=1.00 done=true error=null", f"\\n{text}\\"))


def printed(chance: random.Random, descriptor: int) -> list[str]:
    """Print one episode as the submission does, and return its actions."""
    output, actions = Output(descriptor), [any_text(chance) for _ in range(STEPS)]
    rewards = [0.1 * number for number in range(1, STEPS + 1)]
    output.show(start_line(any_text(chance) or "task", "test", "m"))
    for number, (action, reward) in enumerate(zip(actions, rewards, strict=True), 1):
        output.show(step_line(number, action, reward, False, any_text(chance) or None))
    output.show(end_line(True, 0.5, rewards))
    output.end()
    while not output.over:
        time.sleep(0.0005)
    return actions


def round_trip(chance: random.Random) -> Counter[str]:
    """Print episodes, and read them back as an evaluator does; every action must be equal."""
    ends = Counter[str]()
    for _ in range(EPISODES):
        with tempfile.TemporaryFile() as file:
            actions = printed(chance, file.fileno())
            file.seek(0)
            capture = file.read()
        lines = [line for line in capture.decode().split("\n") if line.startswith("[STEP]")]
        back = [unescape(line.split(" action=", 1)[1].split(" reward=", 1)[0]) for line in lines]
        same = back == actions and "sample" in check(capture).accepted_by
        ends["read back exactly" if same else "not read back"] += 1
    return ends


def measure() -> list[Row]:
    """Measure, and return the rows of the table."""
    chance = random.Random(4)
    with tempfile.TemporaryDirectory() as folder:
        project = Project.make(Path(folder) / "project").folder
        frozen = read_all(project / "prompts/best.toml", read_frozen, chance)
        experiments = read_all(project / "experiments/echo.toml", load_experiment, chance)
    found = {"frozen files": frozen, "experiment files": experiments, "stdout captures": checked(chance)}
    rows = [
        Row(f"{FILES:,} damaged {name}", _counts(ends), "no traceback, no refusal without a place")
        for name, ends in found.items()
    ]
    what = (
        f"{EPISODES:,} episodes of any Unicode through `lab.submission.contract` and `lab.submission.stdout`"
    )
    return [*rows, Row(what, _counts(round_trip(chance)), "all read back exactly")]


def _counts(ends: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in ends.most_common())


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table(measure()))
