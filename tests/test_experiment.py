"""Experiment files: they define the space; errors name file, key and allowed values."""

import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from lab.agent.candidate import Demonstration
from lab.agent.template import find_template
from lab.errors import ConfigError, MistakeError, MistakesError
from lab.experiment.experiment import load_experiment
from lab.experiment.space import Choices, Range, read_space
from lab.files import line_of
from lab.llm.sampling import LIMITS
from tests.echo_server import ROOT
from tests.project import Project

ECHO = Path("experiments/echo.toml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("experiment")
    project = Project.make(folder / "project")
    outside = folder / "stray.toml"
    outside.write_text('system = "Speak."\nturn = "{observation}"\n')
    (project.folder / "prompts/templates/link.toml").symlink_to(outside)
    return project


def changed(project: Project, old: str, new: str) -> Path:
    text = ECHO.read_text()
    assert old in text
    return project.write("experiments/mine.toml", text.replace(old, new, 1))


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.toml")), ids=str)
def test_the_included_experiments_are_valid(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.name == path.stem


def test_the_baseline_of_echo_is_the_reference_at_its_settings() -> None:
    settings = load_experiment(ECHO).baseline.settings
    expected = {"temperature": 0.7, "max_tokens": 150, "history": 4, "layout": "text", "show_rewards": True}
    assert {key: settings[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("old", "new", "key", "told"),
    [
        ("[search]\nepisodes = ", "[search]\nepisode = ", "search.episode", "did you mean episodes?"),
        ("temperature = {", "temprature = {", "space.temprature", "did you mean temperature?"),
        ("seed = 0", "sede = 0", "sede", "did you mean seed?"),
        ("seed = 0\n", "seed = -1\n", "seed", "greater than or equal to 0"),
        ("max_steps = 8", 'max_steps = "8"', "task.max_steps", "valid integer"),
        ("max_return = 120.0", "", "task.max_return", "missing"),
        ('text = "echoed_message"', 'txet = "x"', "environment.txet", "did you mean text?"),
        ('text = "echoed_message"', 'url = "http://127.0.0.1:8000"', "environment", "keep one"),
        ("echo_environment:Echo", "echo_environment.Echo", "environment.python", "file.py:Name"),
        ('text = "echoed_message"', 'hooks = "none.py"', "environment.hooks", "The file does not exist"),
        ('text = "echoed_message"', 'hooks = "../../x.py"', "environment.hooks", "project's own folder"),
        (
            "success_score = 0.1",
            'success_score = 0.1\nscore = "mean"',
            "task.score",
            "use sum, last, max, observation.FIELD",
        ),
        ("success_score = 0.1", "success_score = 0.1\nmin_return = 200.0", "task.min_return", "not below"),
        ("[model]", '[[tasks]]\nname = "a"\nresets = {}\n[model]', "tasks.0.resets", "did you mean reset?"),
        (
            "[model]",
            '[[tasks]]\nname = "a"\nreset = { seed = 1 }\n[model]',
            "tasks.0.reset",
            "the study chooses them",
        ),
        (
            "[model]",
            "".join(f'[[tasks]]\nname = "{n}"\n' for n in "abcd") + "[model]",
            "confirmation.episodes",
            "multiple of 4",
        ),
        ("low = 0.2, high = 1.2", "low = 1.2, high = 0.2", "space.temperature", "empty range"),
        ("low = 0.2, high = 1.2", "low = 0.2, high = 2.5", "space.temperature", "from 0 to 2"),
        ("low = 0.2, high = 1.2", "low = 0.2, hi = 1.4", "space.temperature", "low = ..., high = ..."),
        ("history = [0, 1]", "history = []", "space.history", "a list of values"),
        ("history = [0, 1]", "history = [0, 9]", "space.history", "from 0 to 8"),
        ("history = [0, 1]", "history = { low = 0, high = 2.5 }", "space.history", "whole number"),
        ("history = [0, 1]", "max_tokens = [100, 200]", "max_tokens", "at most 150"),
        (
            "max_tokens = 150\nhistory = 4",
            "max_tokens = 151\nhistory = 4",
            "baseline.max_tokens",
            "at most 150",
        ),
        ("temperature = 0.7", "temperature = 7", "baseline.temperature", "from 0 to 2"),
        ('layout = ["text", "turns"]', 'layout = ["prose"]', "space.layout", "text or turns"),
        ('layout = ["text", "turns"]', "layout = { low = 0, high = 1 }", "space.layout", "cannot be a range"),
        ('"reference", "word_count"', '"reference", "word_cuont"', "space.template", "word_count"),
        ('template = "reference"', 'template = "../../../stray"', "baseline.", "outside the project"),
        ('"reference", "word_count"', '"../../../stray"', "space.template", "outside the project"),
        ('"reference", "word_count"', '"/etc/stray"', "space.template", "outside the project"),
        ('"reference", "word_count"', '"link"', "space.template", "outside the project"),
        ('endpoint = "embedded"', 'endpoint = "embedded', "mine.toml", "cannot be read"),
        ("episodes = 8 ", "episodes = 3.5 ", "search.episodes", "valid integer"),
        ("calls = 1000\nminutes = 10", "", "budget", "set one of calls, tokens, dollars, minutes"),
        ("calls = 1000", "calls = 400", "budget.calls", "use at least 480"),
        ("minutes = 10", "dollars = 1.5", "model", "dollars_in"),
        ("finalists = 1", "finalists = 4", "verdict.finalists", "at most confirmation.candidates = 3"),
        ("[search]", '[objective]\ncost = "time"\nwithin = 0.1\n\n[search]', "objective.cost", "'tokens'"),
        ("[search]", '[objective]\ncost = "tokens"\nwithn = 0.1\n\n[search]', "objective.withn", "within"),
        ("[search]", '[proposals]\nproposer = "magic"\n\n[search]', "proposals.proposer", "'gepa'"),
        ("history = [0, 1]", "demonstrations = [0, 9]", "space.demonstrations", "from 0 to 8"),
    ],
)
def test_a_mistake_is_reported_with_file_key_and_remedy(
    project: Project, old: str, new: str, key: str, told: str
) -> None:
    path = changed(project, old, new)
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    message = str(caught.value)
    assert str(path) in message
    assert key in message
    assert told in message
    assert "\n  try: " in message
    assert len(message.splitlines()) <= 4


def keys(table: dict[str, object], before: str = "") -> Iterator[str]:
    """Every key below a table, as an error names it."""
    for name, value in table.items():
        yield before + name
        if isinstance(value, dict):
            yield from keys(value, f"{before}{name}.")


BROKEN = 'about = "x"\nsystem = "Go."\nturn = """\nNow {observaton}.\n\nThen { }."""\n'

MISTAKES = {
    "seed = 0": ("sede = 0", "sede", "did you mean seed?"),
    "max_steps = 8": ('max_steps = "8"', '"8"', "input should be a valid integer"),
    "success_score = 0.1": ('success_score = 0.1\nscore = "mean"', '"mean"', "use sum, last, max,"),
    'name = "SmolLM2-135M-Instruct"': ("", "[model]", "model.name is missing; set it"),
    "temperature = 0.7": ("temperature = 7", "temperature = 7", "use a number from 0 to 2"),
    "history = 4": ("hystory = 4", "hystory", "did you mean history?"),
    '"storyteller",': ('"storytellr",', '"storytellr"', "did you mean storyteller?"),
    '"manual",': ('"missing_one",', '"missing_one"', "'missing_one' does not exist; "),
    "top_p = {": ("topp = {", "topp", "did you mean top_p?"),
    "presence_penalty = { low = 0.0,": (
        "presence_penalty = { low = 3.0,",
        "low = 3.0",
        "use a low below high",
    ),
    "history = [0, 1]": ("history = [0, 9]", "[0, 9]", "use a whole number from 0 to 8"),
    "minutes = 10": ("minutes = 0", "minutes = 0", "greater than 0"),
    "candidates = 3": ("", None, ""),
    "episodes = 6": ("episodes = 1", "episodes = 1 ", "greater than or equal to 2"),
    "finalists = 1": ("finalists = 5", "finalists = 5", "use at most confirmation.candidates = "),
    "confidence = 0.95": ("confidence = true", "confidence = true", "valid number"),
    '"encyclopedia"': ('"broken"', None, ""),
}
"""By what it replaces in the file: a mistake, what its line then contains, and what is told.

Without a mistake of its own: an absent key that has a default; a template, whose mistakes are in its file."""


@given(st.sets(st.sampled_from(sorted(MISTAKES))))
def test_any_set_of_mistakes_is_reported_whole_and_nothing_else(project: Project, chosen: set[str]) -> None:
    project.write("prompts/templates/broken.toml", BROKEN)
    text = ECHO.read_text() + " \n"
    for old in chosen:
        assert old in text
        text = text.replace(old, MISTAKES[old][0], 1)
    path = project.write("experiments/many.toml", text.replace("episodes = 1\n", "episodes = 1 \n"))
    lines = path.read_text().splitlines()
    expected = {
        (f"{path}:{1 + next(i for i, line in enumerate(lines) if held in line + ' ')}: ", told)
        for _, held, told in (MISTAKES[old] for old in chosen)
        if held is not None
    }
    if '"encyclopedia"' in chosen:
        broken = project.folder / "prompts/templates/broken.toml"
        expected |= {(f"{broken}:4: ", "{observation}?"), (f"{broken}:6: ", "escape literal braces")}
    found = mistakes_of(path)
    assert len(found) == len(expected)
    for place, told in expected:
        assert any(one.startswith(place) and told in one for one in found), (place, told, found)


def mistakes_of(path: Path) -> list[str]:
    """The lines that are told about an experiment file."""
    try:
        load_experiment(path)
    except MistakesError as error:
        head, *lines = str(error).splitlines()
        assert head == f"{len(lines)} mistakes:"
        return lines
    except MistakeError as error:
        return [error.told]
    return []


TABLES = st.recursive(
    st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
KEYS = sorted(
    {*keys(tomllib.loads(ECHO.read_text())), "tasks", "proposals", "objective", "other", "task.other"}
)


@given(st.dictionaries(st.sampled_from(KEYS), st.none() | TABLES, max_size=4))
def test_any_values_in_an_experiment_are_an_experiment_or_mistakes(
    project: Project, changes: dict[str, object]
) -> None:
    table = tomllib.loads(ECHO.read_text())
    for key, value in changes.items():
        *tables, name = key.split(".")
        holder: object = table
        for one in tables:
            holder = holder.get(one) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(name, None)
            holder |= {} if value is None else {name: value}
    path = project.folder / "experiments/any.toml"
    path.write_text(tomli_w.dumps(table))
    mistakes_of(path)


def test_the_command_line_reports_all_mistakes_of_the_files_at_once(project: Project) -> None:
    project.write("prompts/templates/broken.toml", BROKEN)
    text = ECHO.read_text()
    for old in ("max_steps = 8", '"storyteller",', "top_p = {", "minutes = 10", '"encyclopedia"'):
        text = text.replace(old, MISTAKES[old][0], 1)
    project.write("experiments/many.toml", text)
    done = project.run("-m", "lab.tune", "experiments/many.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "6 mistakes:",
        "experiments/many.toml:12: task.max_steps is '8'; input should be a valid integer",
        "experiments/many.toml:32: The template 'storytellr' does not exist; did you mean storyteller?",
        "experiments/many.toml:36: Unknown key 'topp'; did you mean top_p?",
        "experiments/many.toml:45: budget.minutes is 0; input should be greater than 0",
        "prompts/templates/broken.toml:4: turn: Unknown placeholder {observaton};"
        " did you mean {observation}?",
        "prompts/templates/broken.toml:6: turn: A template's braces do not match ({ } must be a plain name);"
        " escape literal braces as {{ and }}",
    ]
    found = project.run("-m", "lab.doctor", "experiments/many.toml")
    assert found.returncode == 2
    assert "FAIL  experiment   6 mistakes:\n" + "\n".join(done.stderr.splitlines()[1:]) in found.stdout


EXTRA = {"[space]": "[space]\nextra = { model = [1] }", "history = 4": "history = 4\nextra = { model = 1 }"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"[search]": '[objective]\ncost = "time"\nwithin = 0.1\n[search]'}, "objective.cost is 'time'"),
        ({"calls = 1000": "calls = 'many'", "minutes = 10": ""}, "budget.calls is 'many'"),
        ({'python = "lab': 'python = 3 # "lab'}, "environment.python is 3"),
        (EXTRA, "extra.model is not an unknown setting"),
        ({'template = "reference"': "template = 3"}, "baseline.template is 3"),
        ({"[baseline]": "[base]"}, "Unknown key 'base'"),
        ({"[verdict]": "[judgement]"}, "Unknown key 'judgement'"),
    ],
)
def test_what_only_follows_from_a_mistake_is_not_reported(
    project: Project, changes: dict[str, str], told: str
) -> None:
    text = ECHO.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    found = mistakes_of(project.write("experiments/mine.toml", text))
    own = [one for one in found if "is missing" not in one]  # of a table whose name does not resemble its own
    assert len(own) == 1
    assert told in own[0]


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/**/*.toml")), ids=lambda path: path.stem)
def test_a_key_is_found_in_its_line(path: Path) -> None:
    text = path.read_text()
    lines, found = text.splitlines(), 0
    for key in keys(tomllib.loads(text)):
        if line := line_of(text, key):
            found += 1
            at = lines[line - 1].strip()
            name = key.rpartition(".")[2]
            assert at.startswith((f"{name} =", f"{name}=", f"[{key}", f"[[{key}")) or f"{name} =" in at, (
                key,
                at,
            )
    assert found >= 20


def test_the_line_of_a_mistake_is_reported(project: Project) -> None:
    path = changed(project, "calls = ", "calls = 'many' # ")
    (number,) = [n for n, line in enumerate(path.read_text().splitlines(), 1) if "many" in line]
    with pytest.raises(ConfigError, match=rf"mine\.toml:{number}, budget\.calls"):
        load_experiment(path)


def test_an_absent_experiment_lists_the_existing_ones() -> None:
    with pytest.raises(ConfigError, match=r"experiments/echo\.toml"):
        load_experiment(Path("experiments/ecco.toml"))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_experiment_or_an_error(project: Project, data: bytes) -> None:
    path = project.folder / "experiments/bytes.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        load_experiment(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["low", "high", "x"]), inner),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from([*LIMITS, "template", "layout", "show_rewards", "stop"]), VALUES, max_size=3
    )
)
def test_any_table_is_a_space_or_an_error(project: Project, table: dict[str, object]) -> None:
    baseline = load_experiment(ECHO).baseline
    with suppress(ConfigError):
        read_space(
            table, baseline, partial(find_template, project.folder / "prompts/templates")
        ).distributions()


@given(st.data(), st.integers(0, 8), st.sets(st.integers(0, 8), min_size=2) | st.integers(1, 8))
def test_a_candidate_of_the_space_keeps_to_it_and_is_found_again(
    data: st.DataObject, known: int, asked: set[int] | int
) -> None:
    """Also with fewer demonstrations than asked for, because no more were found."""
    space = load_experiment(ECHO).space
    number = Range(0, asked) if isinstance(asked, int) else Choices(tuple(sorted(asked)))
    shown = tuple(Demonstration(step, "seen", f"action {step}") for step in range(1, known + 1))
    space = replace(space, free={**space.free, "demonstrations": number}, demonstrations=shown)
    params = {name: data.draw(st.sampled_from(dimension.ends)) for name, dimension in space.free.items()}
    candidate = space.candidate(params)
    kept = {name: candidate.settings[name] for name in params if name != "demonstrations"}
    assert all(value in space.free[name] for name, value in kept.items())
    found = space.params(candidate)
    assert found is not None
    assert all(value in space.free[name] for name, value in found.items())
    assert space.candidate(found) == candidate


def test_settings_outside_the_space_keep_the_baselines_value(project: Project) -> None:
    text = ECHO.read_text()
    table = tomllib.loads(text)["space"]
    start = text.index("[space]")
    path = project.write(
        "experiments/mine.toml",
        text[:start] + "[space]\ntop_p = 0.9\ntemperature = [0.1, 0.2]\n" + text[text.index("[budget]") :],
    )
    assert len(table) > 2
    space = load_experiment(path).space
    assert list(space.free) == ["temperature"]
    assert space.start.sampling.top_p == 0.9
    assert space.start.context.history == 4
    assert space.params(load_experiment(path).baseline) is None  # top_p is fixed elsewhere
