"""Templates: values are inserted unchanged, and errors name file and key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agent.template import PromptTemplate, load_template, paragraphs
from lab.errors import ConfigError

TEMPLATES = sorted(Path("prompts/templates").glob("*.toml"))
VALUES = {"step": "1", "max_steps": "8", "observation": "ready", "reward": None, "history": None}


@given(st.text())
def test_an_observation_comes_out_as_it_went_in(text: str) -> None:
    template = PromptTemplate("t", "s", "before {observation} {{literal}} after")
    assert template.render_turn({**VALUES, "observation": text}) == f"before {text} {{literal}} after"


def test_template_syntax_in_a_value_is_not_looked_at() -> None:
    template = PromptTemplate("t", "s", "{observation}|{reward}")
    shown = template.render_turn({**VALUES, "observation": "{reward}{x.__class__}%s$y", "reward": "{step}"})
    assert shown == "{reward}{x.__class__}%s$y|{step}"


def test_a_paragraph_without_its_value_is_left_out() -> None:
    template = PromptTemplate("t", "s", "Step {step}\n\nEarlier:\n{history}\n\nReward {reward}\n\nGo.")
    assert template.render_turn(VALUES) == "Step 1\n\nGo."
    assert template.render_turn({**VALUES, "history": "a\n\nb"}) == "Step 1\n\nEarlier:\na\n\nb\n\nGo."


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        ("{nothing}", "Unknown placeholder {nothing}"),
        ("{step.real}", "must be a plain name"),
        ("{step!r}", "must be a plain name"),
        ("{step:>9}", "must be a plain name"),
        ("{", "braces do not match"),
        ("  ", "non-empty string"),
    ],
)
def test_a_wrong_turn_text_is_refused_by_name(turn: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PromptTemplate("mine", "system", turn)
    assert told in str(caught.value)
    assert "template 'mine', turn" in str(caught.value)


def test_the_system_text_cannot_change_within_an_episode() -> None:
    with pytest.raises(ConfigError, match="Unknown placeholder"):
        PromptTemplate("t", "Step {step}", "go")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"system = 'a'", "keys about, system and turn"),
        (b"system = 'a'\nturn = 'b'\nextra = 1", "keys are about, system, turn"),
        (b"system = 3\nturn = 'b'", "must be a non-empty string"),
        (b"system = ", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_template(file)
    assert told in str(caught.value)
    assert "mine" in str(caught.value)


def test_all_mistakes_of_a_template_are_reported_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'about = "x"\nsystem = """\nOne {step}.\n\nTwo {max_stepz} of {max_steps}."""\ntrun = """Now\n'
        '{ go\n{observaton} {observation.any.name}\n"""\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_template(file)
    assert str(caught.value).replace(str(file), "mine.toml").splitlines() == [
        "5 mistakes:",
        "mine.toml:3: system: Unknown placeholder {step}; did you mean {max_steps}?",
        "mine.toml:5: system: Unknown placeholder {max_stepz}; did you mean {max_steps}?",
        "mine.toml:6: Unknown key 'trun'; did you mean turn?",
        "mine.toml:7: turn: A template's braces do not match (expected '}' before end of string);"
        " escape literal braces as {{ and }}",
        "mine.toml:8: turn: Unknown placeholder {observaton}; did you mean {observation}?",
    ]


PIECES = st.text(alphabet="a \n\t{}!:.[]\r\x0b\u2028", max_size=20) | st.sampled_from(
    ["{step}", "{a.b}", "{{"]
)


@given(st.lists(PIECES, max_size=6).map("".join))
def test_a_text_is_refused_exactly_if_it_cannot_be_rendered(text: str) -> None:
    try:
        known = {name for part in paragraphs(text) for _, name in part if name} <= set(VALUES)
    except ValueError:
        known = False
    try:
        template = PromptTemplate("t", "s", text)
    except ConfigError:
        assert not known or not text.strip()
    else:
        assert known
        template.render_turn(dict.fromkeys(VALUES, "x"))


def test_an_absent_template_lists_the_existing_ones() -> None:
    with pytest.raises(ConfigError, match="storyteller"):
        load_template(Path("prompts/templates/story.toml"))


def test_the_library_has_eight_templates_or_more_and_each_differs() -> None:
    templates = [load_template(path) for path in TEMPLATES]
    assert len({(template.system, template.turn) for template in templates}) == len(templates) >= 8
    assert "reference" in {template.name for template in templates}
