"""`python -m lab.check`: what an evaluator accepts, and the faults of the rest, line by line."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.submission.checker import Checked, check
from lab.submission.contract import end_line, start_line, step_line
from tests.echo_server import ROOT
from tests.fake_endpoint import fake_endpoint
from tests.project import TIMEOUT_S, Project

ANY_TEXT = st.text(st.characters())
GOOD = """[START] task=echo env=test model=m
[STEP] step=1 action=hello there reward=1.10 done=false error=null
[STEP] step=2 action=bye reward=0.30 done=true error=null
[END] success=true steps=2 score=0.010 rewards=1.10,0.30
"""


def faults(text: str) -> list[str]:
    return [f"{fault.line}: {fault.what}" for fault in check(text.encode("utf-8", "surrogatepass")).faults]


def test_the_example_of_the_rules_is_accepted() -> None:
    assert check(GOOD.encode()) == Checked(1, 2, ())


@pytest.mark.parametrize("score", [" score=0.01", " score=0.010", ""])
def test_both_forms_of_the_score_and_the_older_end_are_accepted(score: str) -> None:
    assert faults(GOOD.replace(" score=0.010", score)) == []


def test_several_episodes_may_follow_each_other() -> None:
    assert check((GOOD * 3).encode()) == Checked(3, 6, ())


def test_an_episode_without_a_step_is_accepted() -> None:
    assert faults("[START] task=a env=b model=c\n[END] success=false steps=0 score=0.000 rewards=\n") == []


WRONG = {
    "a stray line": (
        ("[STEP] step=1", "[DEBUG] thinking\n[STEP] step=1"),
        "2: not a START, STEP or END line",
    ),
    "a raw newline": (("hello there", "hello\nthere"), "2: STEP must contain step, action"),
    "a raw line separator": (("hello there", "hello\u2028there"), "2: a raw '\\u2028' splits the line"),
    "a carriage return": (("hello there", "hello\rthere"), "2: a raw '\\r'"),
    "one decimal": (
        ("reward=1.10 done", "reward=1.1 done"),
        "2: reward is '1.1': use a number with 2 decimals",
    ),
    "no number": (("reward=1.10 done", "reward=nan done"), "2: reward is 'nan'"),
    "Python's bool": (("done=false", "done=False"), "2: done is 'False': use true or false"),
    "an empty error": (("done=false error=null", "done=false error="), "2: error is empty"),
    "a field in the action": (("hello there", "a reward=1.00 done=true error=null b"), "2: the action or"),
    "a step left out": (("step=2", "step=3"), "3: expected step=2, got '3'"),
    "a step after done": (("done=false", "done=true"), "3: STEP after done=true"),
    "no END": (("[END] success=true steps=2 score=0.010 rewards=1.10,0.30\n", ""), "3: the output ends"),
    "a torn END": (("rewards=1.10,0.30\n", "rewards=1.10,0."), "4: the last line has no newline"),
    "no START": (("[START] task=echo env=test model=m\n", ""), "1: STEP before START"),
    "START again": (
        ("[STEP] step=1", "[START] task=a env=b model=c\n[STEP] step=1"),
        "2: a second START before END",
    ),
    "an empty model": (("model=m", "model="), "1: model is empty"),
    "a wrong count": (("steps=2", "steps=8"), "4: expected steps=2, got '8'"),
    "other rewards": (
        ("rewards=1.10,0.30", "rewards=1.10,0.40"),
        "4: rewards differ from those of the steps",
    ),
    "a score over 1": (("score=0.010", "score=1.200"), "4: score is '1.200'"),
    "a score of one decimal": (("score=0.010", "score=0.1"), "4: score is '0.1'"),
    "an escape": (("reward=1.10 done", "reward=\x1b[31m done"), "2: reward is '\\x1b[31m'"),
    "nothing": ((GOOD, ""), "1: there is no START line"),
}


@pytest.mark.parametrize(("change", "told"), WRONG.values(), ids=WRONG)
def test_each_fault_is_reported_with_its_line(change: tuple[str, str], told: str) -> None:
    assert change[0] in GOOD
    assert any(fault.startswith(told) for fault in faults(GOOD.replace(*change))), faults(
        GOOD.replace(*change)
    )


def test_invalid_utf_8_is_reported() -> None:
    assert check(GOOD.encode().replace(b"hello", b"hell\xff")).faults[0].what == "the line is not valid UTF-8"


@given(
    st.binary()
    | st.lists(st.sampled_from(GOOD.splitlines(keepends=True)) | ANY_TEXT).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
    )
)
def test_any_bytes_are_accepted_or_refused_with_a_reason(data: bytes) -> None:
    checked = check(data)
    assert all(fault.line > 0 and fault.what.isprintable() for fault in checked.faults)
    assert checked.faults or checked.episodes


REWARDS = st.floats(-1e6, 1e6)


@given(
    st.tuples(ANY_TEXT.filter(str.strip), ANY_TEXT.filter(str.strip), ANY_TEXT.filter(str.strip)),
    st.lists(st.tuples(ANY_TEXT, REWARDS, st.none() | ANY_TEXT.filter(bool)), max_size=6),
    st.floats(0, 1),
)
def test_whatever_the_lab_prints_is_accepted(
    names: tuple[str, str, str], steps: list[tuple[str, float, str | None]], score: float
) -> None:
    lines = [start_line(*names)]
    lines += [
        step_line(number, action, reward, False, error)
        for number, (action, reward, error) in enumerate(steps, 1)
    ]
    lines.append(end_line(True, score, [reward for _, reward, _ in steps]))
    assert faults("\n".join(lines) + "\n") == []


def run(argument: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "lab.check", argument]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False)


def test_the_command_says_accepted_or_not_by_its_exit_code() -> None:
    done = run("-", GOOD.encode())
    assert (done.returncode, done.stdout) == (0, b"Accepted: 1 episode, 2 steps.\n")
    done = run("-", b"\x1b[31m\n" * 100)
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 22
    done = run("absent.txt")
    assert done.returncode == 2
    assert b"absent.txt" in done.stderr


def test_the_output_of_the_submission_is_accepted(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    with fake_endpoint() as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m", HF_TOKEN="k")
    assert faults(done.stdout) == []


@pytest.mark.parametrize(
    "mark", [" reward=0.10 done=true", " reward=", " done=true error=", " action=", " env=x"]
)
def test_a_line_that_is_full_of_marks_is_checked_at_once(mark: str) -> None:
    """The ways to split it grow with the cube of its length: 7 s for 9,000 characters if all are tried."""
    line = f"[STEP] step=1 action={mark * 20_000} reward=0.10 done=true error=null"
    capture = (
        f"[START] task=a env=b model=c{mark * 20_000}\n{line}\n[END] success=true steps=1 rewards=0.10\n"
    )
    began = time.process_time()
    check(capture.encode())
    assert time.process_time() - began < 5
