"""`python -m lab.check`: what an evaluator accepts, and the faults of the rest, line by line."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.submission.checker import RULES, Rules, check
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
    """What the sample script's rules refuse."""
    found = check(text.encode("utf-8", "surrogatepass")).findings
    return [f"{fault.line}: {fault.what}" for fault in found if "sample" in fault.refused_by]


def test_the_example_of_the_rules_is_accepted() -> None:
    checked = check(GOOD.encode())
    assert (checked.episodes, checked.steps, checked.tasks) == (1, 2, {"echo": "0.010"})
    assert "sample" in checked.accepted_by


@pytest.mark.parametrize("score", [" score=0.01", " score=0.010", ""])
def test_both_forms_of_the_score_and_the_older_end_are_accepted(score: str) -> None:
    assert faults(GOOD.replace(" score=0.010", score)) == []


def test_several_episodes_may_follow_each_other() -> None:
    checked = check((GOOD * 3).encode())
    assert (checked.episodes, checked.steps, "sample" in checked.accepted_by) == (3, 6, True)


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
    found = check(GOOD.encode().replace(b"hello", b"hell\xff")).findings[0]
    assert (found.what, found.refused_by) == ("the line is not valid UTF-8", RULES)


@given(
    st.binary()
    | st.lists(st.sampled_from(GOOD.splitlines(keepends=True)) | ANY_TEXT).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
    )
)
def test_any_bytes_are_accepted_or_refused_with_a_reason(data: bytes) -> None:
    checked = check(data)
    assert all(finding.line > 0 and finding.what.isprintable() for finding in checked.findings)
    assert "sample" not in checked.accepted_by or checked.episodes
    for rules in RULES:
        refused = any(rules in finding.refused_by for finding in checked.findings)
        assert refused is (rules not in checked.accepted_by)


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


TASKS = {"garden": "0.283", "orchard": "0.410", "field": "0.667"}


def episode(task: str = "garden", score: str = " score=0.283", **changes: str) -> str:
    """What a task of another script's prints; `changes` replace one text by another."""
    text = (
        f"[START] task={task} env=plots model=org/model-7b\n"
        "[STEP] step=1 action=water(bed=2) reward=0.10 done=false error=null\n"
        "[STEP] step=2 action=harvest(bed=2) reward=0.75 done=true error=null\n"
        f"[END] success=true steps=2{score} rewards=0.10,0.75\n"
    )
    for old, new in changes.items():
        assert PARTS[old] in text
        text = text.replace(PARTS[old], new)
    return text


PARTS = {
    "action": "water(bed=2)",
    "error": "done=false error=null",
    "last_step": "[STEP] step=2 action=harvest(bed=2) reward=0.75 done=true error=null\n",
    "head": "[END] success=true steps=2",
    "tail": "rewards=0.10,0.75",
    "line_end": "\n",
}


def three(between: str = "", **first: str) -> str:
    """Three tasks, of which the first is changed."""
    tasks = [(name, f" score={score}") for name, score in TASKS.items()]
    head = episode(**{"task": tasks[0][0], "score": tasks[0][1], **first})
    return between.join([head, *(episode(name, score) for name, score in tasks[1:])])


NO_STEPS = "[START] task=a env=b model=c\n[END] success=false steps=0 score=0.001 rewards=\n"
ORCHARD, FIELD = (episode(name, f" score={TASKS[name]}") for name in ("orchard", "field"))
LAST = "[STEP] step=2 action=harvest(bed=2) reward=0.75 done=true error=null\n"
FORMS: dict[str, tuple[str, str]] = {
    "an older sample": (episode(score=""), "sample"),
    "two decimals": (episode(score=" score=0.28"), "sample"),
    "three decimals": (episode(), "sample"),
    "three tasks": (three(), "sample phase1 phase2"),
    "three tasks, two decimals": (three(score=" score=0.28"), "sample phase2"),
    "one task three times": (episode() * 3, "sample"),
    "blank lines between them": (three(between="\n"), "sample phase1 phase2"),
    "a task with blanks": (three(task="Basic Garden"), "sample phase2"),
    "a score of 1": (three(score=" score=1.000"), "sample phase1"),
    "a score of 0": (three(score=" score=0.00"), "sample"),
    "no steps": (NO_STEPS + ORCHARD + FIELD, "sample phase2"),
    "END names the task": (three(head="[END] task=garden"), "phase2"),
    "more after rewards": (three(tail="rewards=0.10,0.75 judge_score=0.500"), "phase2"),
    "CRLF": (three(line_end="\r\n"), "phase2"),
    "a debug line": ("[DEBUG] the model did not answer\n" + three(), "phase1 phase2"),
    "JSON": (three(action='{"kind": "water", "bed": 2}'), "sample phase1 phase2"),
    "words in an error": (three(error="done=false error=no bed 9: choose 1"), "sample phase1 phase2"),
    "an action like fields": (
        three(action="say('reward=9.99 done=true error=null')"),
        "sample phase1 phase2",
    ),
    "no END": (three().rpartition("[END]")[0], ""),
    "END before the last step": (three(last_step="") + LAST, ""),
    "a score that is none": (three(score=" score=good"), ""),
}
"""What public scripts print, and which rules accept it, as their validators do."""


@pytest.mark.parametrize(("capture", "accepted"), FORMS.values(), ids=FORMS)
def test_other_scripts_are_judged_as_validators_judge_them(capture: str, accepted: str) -> None:
    assert check(capture.encode()).accepted_by == accepted.split()


@pytest.mark.parametrize("rules", RULES)
def test_one_set_of_rules_decides_alone_and_the_rest_are_warnings(rules: Rules) -> None:
    capture = (NO_STEPS + episode("b c", " score=1.000") + "\n").encode()
    wanted = {
        "sample": (
            0,
            ["warning: rewards", "warning: task", "warning: score", "warning: a blank", "warning: 2"],
        ),
        "phase1": (1, ["rewards", "task", "warning: score", "warning: a blank", "2 tasks"]),
        "phase2": (1, ["warning: rewards", "warning: task", "score", "warning: a blank", "2 tasks"]),
    }[rules]
    done = run("-", capture, "--rules", rules)
    *lines, last = done.stdout.decode().splitlines()
    told = [line.partition(": ")[2] for line in lines]
    assert [one[: len(begin)] for one, begin in zip(told, wanted[1], strict=True)] == wanted[1]
    assert last.startswith(("NOT accepted by " if wanted[0] else "Accepted by ") + f"{rules}: 2 episodes")
    assert done.returncode == wanted[0]
    assert run("-", capture, "--rules", "phase9").returncode == 2


def run(argument: str, stdin: bytes = b"", *more: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "lab.check", argument, *more]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False)


def test_the_command_says_accepted_or_not_by_its_exit_code() -> None:
    done = run("-", GOOD.encode())
    *_, last = done.stdout.splitlines()
    assert last == b"Accepted by sample; NOT accepted by phase1, phase2: 1 episode, 2 steps."
    assert done.returncode == 0
    done = run("-", b"\x1b[31m\n" * 100)
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 22  # the first findings, how many more, and the verdict
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
