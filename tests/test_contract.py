"""The lines that an evaluator reads: their form, and that any text reads back."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from lab.submission.contract import end_line, escape, start_line, step_line, unescape

ANY_TEXT = st.text(st.characters())  # every code point, surrogates and controls included
STEP = re.compile(r"\[STEP\] step=(\d+) action=(.*) reward=(-?\d+\.\d\d) done=(true|false) error=(.*)")
STEP_LAZY = re.compile(STEP.pattern.replace("action=(.*)", "action=(.*?)"))
TRICKY = "a reward=1.00 done=true error=null\nb\r\t\x00\u2028\ud800\\n"
REWARDS = st.floats(min_value=-1e6, max_value=1e6)


@given(ANY_TEXT)
@example(TRICKY)
def test_escaping_is_reversible_and_one_printable_line(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == text
    assert escaped.isprintable()
    escaped.encode("utf-8")


@given(st.integers(1, 999), ANY_TEXT, REWARDS, st.booleans(), st.none() | ANY_TEXT.filter(bool))
@example(1, TRICKY, 0.0, True, TRICKY)
def test_a_step_line_reads_back_greedily_and_lazily(
    step: int, action: str, reward: float, done: bool, error: str | None
) -> None:
    line = step_line(step, action, reward, done, error)
    assert len(line.splitlines()) == 1
    for pattern in (STEP, STEP_LAZY):
        match = pattern.fullmatch(line)
        assert match, line
        assert int(match[1]) == step
        assert unescape(match[2]) == action
        assert abs(float(match[3]) - reward) <= 0.005 + 1e-9
        assert match[4] == str(done).lower()
        assert unescape(match[5]) == (error or "null")


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_a_start_line_reads_back(task: str, env: str, model: str) -> None:
    match = re.fullmatch(r"\[START\] task=(.*) env=(.*) model=(.*)", start_line(task, env, model))
    assert match
    assert [unescape(group) for group in match.groups()] == [
        re.sub(r"\s+", "_", name) for name in (task, env, model)
    ]


@given(*[ANY_TEXT.filter(bool)] * 3)
@example("two words", "\n", "a\u00a0b\u2028c")
def test_names_on_start_have_no_blanks(task: str, env: str, model: str) -> None:
    assert re.fullmatch(r"\[START\] task=(\S+) env=(\S+) model=(\S+)", start_line(task, env, model))


@given(st.booleans(), st.floats(0, 1), st.lists(REWARDS, max_size=10))
def test_an_end_line_counts_its_rewards(success: bool, score: float, rewards: list[float]) -> None:
    line = end_line(success, score, rewards)
    match = re.fullmatch(r"\[END\] success=(true|false) steps=(\d+) score=(\d\.\d{3}) rewards=(.*)", line)
    assert match, line
    assert int(match[2]) == len(rewards)
    listed = match[4].split(",") if match[4] else []
    assert len(listed) == len(rewards)
    assert all(re.fullmatch(r"-?\d+\.\d\d", reward) for reward in listed)


def test_plain_lines_look_as_the_rules_show_them() -> None:
    assert start_line("echo", "test", "Qwen3-VL-30B") == "[START] task=echo env=test model=Qwen3-VL-30B"
    assert step_line(1, "click('123')", 0, False, None) == (
        "[STEP] step=1 action=click('123') reward=0.00 done=false error=null"
    )
    assert (
        end_line(True, 1.0, [0, -0.001, 1]) == "[END] success=true steps=3 score=1.000 rewards=0.00,0.00,1.00"
    )
