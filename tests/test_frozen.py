"""The frozen prompt: it reads back as written, and a changed byte is refused."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.agent.candidate import Candidate, ContextSettings, Demonstration
from lab.agent.task import Task
from lab.agent.template import PromptTemplate
from lab.environments.config import EnvironmentConfig
from lab.errors import ConfigError, FrozenPromptError, LabError
from lab.files import MOST_BYTES
from lab.llm.sampling import SamplingParams
from lab.submission.freeze import freeze, frozen_text
from lab.submission.frozen import Evidence, FrozenModel, FrozenPrompt, Provenance, read_frozen
from tests.echo_server import ECHO

TEXT = (
    st.lists(
        st.sampled_from(["\r\n", "\r", "\n", '"""', "\\", "\x00", "\ud800", "two words"])
        | st.text(st.characters(exclude_characters="{}")),
        min_size=1,
    )
    .map("".join)
    .filter(str.strip)
)
"""Any Unicode, with more of what TOML must escape."""

FIELDS = st.dictionaries(TEXT | st.just(""), TEXT, max_size=2).map(lambda fields: tuple(fields.items()))
TASK = Task("echo", "test", 8, 150, 120.0, 0.1)
EVIDENCE = Evidence(
    *("winner", 16, 0.95, "t", 600.0, [590.0, 610.0], 400.0, [390.0, 410.0]),
    *(200.0, [1.0, 2.0], 0.001, 1.0, 1.0, 1500.0, 1800.0),
)
PROVENANCE = Provenance("2026-01-01T00:00:00+00:00", "echo", "echo-1", 3, 100, 1000, 500, 1.5, ["openai 3"])

candidates = st.builds(
    Candidate,
    st.builds(PromptTemplate, TEXT, TEXT, TEXT),
    st.builds(
        SamplingParams,
        temperature=st.floats(0, 2),
        top_p=st.floats(0.01, 1),
        max_tokens=st.integers(1, 150),
        presence_penalty=st.floats(-2, 2),
        stop=st.lists(TEXT, max_size=4).map(tuple),
    ),
    st.builds(ContextSettings, st.integers(0, 8), st.sampled_from(["text", "turns"]), st.booleans()),
    st.lists(st.builds(Demonstration, st.integers(1, 8), TEXT, TEXT, FIELDS), max_size=2).map(tuple),
)


def a_frozen_prompt(candidate: Candidate | None = None) -> FrozenPrompt:
    candidate = candidate or Candidate(PromptTemplate("t", "Be long.", "Step {step}\n\n{observation}"))
    return FrozenPrompt(candidate, ECHO, TASK, FrozenModel("embedded", "m"), EVIDENCE, PROVENANCE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts" / "best.toml"
    freeze(a_frozen_prompt(), path)
    return path


@given(candidates, st.none() | st.floats(0, 1e4))
@settings(deadline=None)
def test_any_candidate_comes_back_as_it_was_frozen(
    tmp_path_factory: pytest.TempPathFactory, candidate: Candidate, dollars: float | None
) -> None:
    path = tmp_path_factory.mktemp("frozen") / "best.toml"
    paid = dataclasses.replace(PROVENANCE, dollars=dollars)
    frozen = dataclasses.replace(a_frozen_prompt(candidate), provenance=paid)
    freeze(frozen, path)
    assert read_frozen(path) == frozen
    table = tomllib.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    assert ("dollars" in table["provenance"]) is (dollars is not None)


@given(candidates, candidates)
def test_two_candidates_have_one_digest_only_if_they_are_the_same(one: Candidate, other: Candidate) -> None:
    assert (one.digest == other.digest) == (one == other)


def test_freezing_twice_differs_in_provenance_only() -> None:
    later = dataclasses.replace(
        a_frozen_prompt(), provenance=dataclasses.replace(PROVENANCE, created="later")
    )
    one, other = (frozen_text(frozen).partition("[provenance]") for frozen in (a_frozen_prompt(), later))
    assert one[0] == other[0]
    assert one[2] != other[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Be long.", "Be longer."),
        ("temperature = 0.7", "temperature = 0.8"),
        ("history = 4", "history = 3"),
        ('name = "t"', 'name = "u"'),
    ],
)
def test_a_changed_candidate_is_refused(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(FrozenPromptError, match="changed"):
        read_frozen(file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_steps = 8", 'max_steps = "8"'),
        ("max_steps = 8", "max_step = 8"),
        ("temperature = 0.7", "temperature = 70"),
        ("format = 3", "format = 1"),
        ("[task]", "[tusk]"),
        ("[candidate.template]", "[candidate.templates]"),
        ("digest =", "digest"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(FrozenPromptError) as caught:
        read_frozen(file)
    assert str(file) in str(caught.value)
    assert "python -m lab.tune" in str(caught.value)


def test_all_mistakes_are_reported_at_once_each_with_its_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    wrong = {
        "max_steps": 'max_steps = "8"',
        "success_score": "succes_score = 0.1",
        "temperature": "temperature = 70",
        "max_tokens": 'max_tokens = "many"',
        "history": "histroy = 4",
        "system": 'system = "{max_stepz}"',
        "p_value": 'p_value = "low"',
    }
    at = {name: next(n for n, line in enumerate(lines) if line.startswith(f"{name} =")) for name in wrong}
    for name, line in at.items():
        lines[line] = wrong[name]
    file.write_text("\n".join(lines))
    with pytest.raises(FrozenPromptError) as caught:
        read_frozen(file)
    told = str(caught.value).splitlines()
    assert told[0] == "7 mistakes:"
    for name, line in at.items():
        assert any(one.startswith(f"{file}:{line + 1}: ") for one in told), (name, told)
    assert told[-1] == "  try: python -m lab.tune writes a new one"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "best.toml"
    path.write_bytes(data)
    with pytest.raises(FrozenPromptError):
        read_frozen(path)


def test_an_absent_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FrozenPromptError, match="does not exist"):
        read_frozen(tmp_path / "best.toml")


def test_lines_with_a_carriage_return_read_back_unchanged(file: Path) -> None:
    template = PromptTemplate("t", "Be long.\nVery long.", "Step {step}\r\n\r\n{observation}")
    freeze(a_frozen_prompt(Candidate(template)), file)
    assert "Be long.\nVery long." in file.read_text()
    assert "Step {step}\\r\n\\r\n{observation}" in file.read_text()
    assert b"\r" not in file.read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"task": dataclasses.replace(TASK, name=None)},  # type: ignore[arg-type]  # TOML has no such value
        {"model": FrozenModel("embedded", 7)},  # type: ignore[arg-type]  # it is written, and is not read
        {"candidate": Candidate(PromptTemplate("t", "x" * (MOST_BYTES + 1), "{observation}"))},
    ],
    ids=["not written", "not read", "too large"],
)
def test_a_prompt_that_does_not_read_back_is_not_frozen(file: Path, changes: dict[str, Any]) -> None:
    before = file.read_bytes()
    with pytest.raises(LabError, match="unchanged") as caught:
        freeze(dataclasses.replace(a_frozen_prompt(), **changes), file)
    assert str(file) in str(caught.value)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["best.toml"]


@pytest.mark.parametrize(
    "text",
    [
        "format = 3\nx = " + "[" * 100_000,
        "format = 3\nx = " + "{a = " * 100_000,
        "[task.name]\n" + ".".join("a" * 3_000) + " = 1",
    ],
    ids=["lists", "tables", "a table in place of a text"],
)
def test_a_file_nested_deeply_is_refused(file: Path, text: str) -> None:
    file.write_text(file.read_text().replace('name = "echo"\n', "") + text if "task" in text else text)
    with pytest.raises(FrozenPromptError) as caught:
        read_frozen(file)
    assert str(file) in str(caught.value)


def test_a_refused_write_leaves_what_was_there(file: Path) -> None:
    before = file.read_bytes()
    blocked = file / "below"  # a file is no folder
    with pytest.raises(LabError, match="unchanged"):
        freeze(a_frozen_prompt(), blocked)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["best.toml"]


@pytest.mark.parametrize(
    "table",
    [
        {"temperature": "hot"},
        {"max_tokens": 1.5},
        {"top_p": True},
        {"stop": ["a"] * 5},
        {"temperature": float("nan")},
    ],
)
def test_a_setting_out_of_range_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SamplingParams(**table)  # type: ignore[arg-type]


def test_evidence_without_an_interval_is_still_toml() -> None:
    endless = dataclasses.replace(EVIDENCE, difference_interval=[float("-inf"), float("inf")])
    frozen = dataclasses.replace(a_frozen_prompt(), evidence=endless)
    assert "inf" in tomli_w.dumps(frozen.as_table())


def test_a_file_of_another_format_is_refused_with_both_numbers(file: Path) -> None:
    file.write_text(file.read_text().replace("format = 3", "format = 4"))
    with pytest.raises(FrozenPromptError, match="its format is 4, this version reads 3"):
        read_frozen(file)


def test_credentials_of_a_url_are_not_frozen(file: Path) -> None:
    secret = EnvironmentConfig(url="https://me:canary@host/env?token=canary")
    freeze(dataclasses.replace(a_frozen_prompt(), environment=secret), file)
    assert "canary" not in file.read_text()
    assert read_frozen(file).environment.url == "https://host/env"
