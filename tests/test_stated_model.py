"""What an experiment states of a model: its dialect, and every setting of a request, fixed or searched."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab.submission.frozen import read_frozen
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_any_environment import EXPERIMENT as VAULT_EXPERIMENT
from tests.test_any_environment import GUESS, RECKON, VAULT
from tests.test_quirks import EXPERIMENT, PLAY, TUNE, Done, completion, refusal, run, system_of, truth

STATED = """
[model.dialect]
token_limit = "max_completion_tokens"
system = "user"
omit = ["presence_penalty"]
"""

BASELINE = """[baseline]
presence_penalty = 0.3
min_p = 0.1
repetition_penalty = 1.1
extra = { top_a = 0.2, reasoning = { max_tokens = 500 } }
"""

SPACE = """[space]
top_k = { low = 5, high = 50 }
reasoning_effort = ["low", "high"]
seed = [1, 2, 3]
stop = [[], ["END", "\\n\\n"]]
extra = { top_a = { low = 0.1, high = 0.5 } }
"""


@dataclass
class Studied:
    """A study whose experiment states the endpoint's dialect, and searches settings of all kinds."""

    project: Project
    endpoint: FakeEndpoint
    done: Done
    bodies: list[Body]

    def values(self, name: str) -> set[Any]:
        """What was sent of a setting."""
        return {json.dumps(body[name]) for body in self.bodies if name in body}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studied]:
    project = Project.make(tmp_path_factory.mktemp("stated") / "project", tracked=True).untracked
    text = EXPERIMENT.replace("[baseline]\n", f"{STATED}\n{BASELINE}").replace("[space]\n", SPACE)
    project.write("experiments/known.toml", text)

    def picky(body: Body) -> Reply:
        wrong = system_of(body) or {"max_tokens", "presence_penalty"} & body.keys()
        return refusal(400, "no.") if wrong else truth(body)

    with fake_endpoint(picky) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
        assert done.code == 0, done.err
        yield Studied(project, endpoint, done, list(endpoint.requests))


def test_a_dialect_that_is_stated_is_shown_at_the_start_and_nothing_is_refused(studied: Studied) -> None:
    said = "max_completion_tokens as token limit; system text in the first user message"
    assert f"Requests are: {said}; without presence_penalty." in studied.done.err
    result = json.loads(studied.done.out)
    assert (result["failures"], result["cost"]["calls"]) == ({}, len(studied.bodies))
    stated = {"token_limit": "max_completion_tokens", "system": "user", "omit": ["presence_penalty"]}
    assert read_frozen(studied.project.folder / "best.toml").model.dialect == stated


def test_every_setting_is_sent_fixed_or_searched(studied: Studied) -> None:
    assert studied.values("min_p") == {"0.1"}
    assert studied.values("repetition_penalty") == {"1.1"}
    assert studied.values("reasoning") == {'{"max_tokens": 500}'}
    assert studied.values("reasoning_effort") == {'"low"', '"high"'}
    assert studied.values("seed") == {"1", "2", "3"}
    assert studied.values("stop") == {'["END", "\\n\\n"]'}
    assert any("stop" not in body for body in studied.bodies)
    for name, low, high in (("top_k", 5, 50), ("top_a", 0.1, 0.5)):
        sent = [json.loads(one) for one in studied.values(name)]
        assert len(sent) > 2
        assert low <= min(sent) < max(sent) <= high


def test_the_submission_sends_the_settings_that_won(studied: Studied) -> None:
    sampling = read_frozen(studied.project.folder / "best.toml").candidate.sampling
    played = run(studied.project, studied.endpoint, "inference.py", "best.toml")
    assert (played.code, played.requests) == (0, 4), played.err
    for body in studied.endpoint.requests[-4:]:
        assert body["top_a"] == json.loads(dict(sampling.extra)["top_a"])
        assert tuple(body.get("stop", ())) == sampling.stop
        for name in ("top_k", "seed", "reasoning_effort"):
            assert body.get(name, getattr(type(sampling)(), name)) == getattr(sampling, name)


def test_an_unfinished_study_goes_on_in_the_dialect_that_it_has_learnt(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project", tracked=True).untracked
    project.write("experiments/known.toml", EXPERIMENT.replace("calls = 150", "tokens = 200"))
    picky = refusal(400, "Unsupported parameter: max_tokens")
    with fake_endpoint(lambda body: picky if "max_tokens" in body else truth(body)) as endpoint:
        ended = run(project, endpoint, *TUNE)
        project.write("experiments/known.toml", EXPERIMENT)
        done = run(project, endpoint, *TUNE)
        assert sum("max_tokens" in body for body in endpoint.requests) == 1
    assert (ended.code, done.code) == (5, 0), ended.err
    assert ended.err.count("Requests are adapted to the endpoint") == 1
    assert "Resuming: " in done.err
    assert "Requests are: max_completion_tokens as token limit." in done.err


def vault(folder: Path, dialect: str) -> Project:
    """A project whose environment takes actions by a schema."""
    project = Project.make(folder).untracked
    project.write("experiments/vault.py", VAULT)
    project.write("prompts/templates/guess.toml", GUESS)
    project.write("prompts/templates/reckon.toml", RECKON)
    text = VAULT_EXPERIMENT.format(place='python = "vault.py:Vault"', judge="mean")
    project.write("experiments/known.toml", text.replace("[baseline]", f"{dialect}\n[baseline]"))
    return project


ACTION = '{"way":"right","clicks":1}'


def test_a_schema_is_sent_as_a_tool_where_that_is_stated(tmp_path: Path) -> None:
    project = vault(tmp_path / "project", '[model.dialect]\nschema = "tools"\n')
    call = {"id": "1", "type": "function", "function": {"name": "action", "arguments": ACTION}}
    with fake_endpoint(lambda _: completion({"content": None, "tool_calls": [call]})) as endpoint:
        done = run(project, endpoint, *PLAY)
    assert done.code == 0, done.err
    assert done.out.count(f"[action]\n{ACTION}\n") == done.requests > 2
    assert all(body["tool_choice"]["function"]["name"] == "action" for body in endpoint.requests)
    assert not any("response_format" in body for body in endpoint.requests)


def test_the_doctor_sends_the_schema_and_shows_that_it_is_refused(tmp_path: Path) -> None:
    project = vault(tmp_path / "project", "")

    def script(body: Body) -> Reply:
        return refusal(500, "no grammar") if "response_format" in body else Reply(ACTION)

    with fake_endpoint(script) as endpoint:
        done = run(replace(project, tracks=True), endpoint, "-m", "lab.doctor", "experiments/known.toml")
    assert done.code == 0, done.out
    assert sum("response_format" in body for body in endpoint.requests) == 1
    assert "ok    dialect      no schema\n" in done.out


@pytest.mark.parametrize("command", [PLAY, TUNE])
def test_a_model_without_an_endpoint_is_refused_at_once_where_the_embedded_one_plays(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    project = Project.make(tmp_path / "project").untracked
    project.write("experiments/known.toml", EXPERIMENT)
    done = project.run(*command, MODEL_NAME="gpt-9")
    assert done.returncode == 2
    assert "No endpoint is set for 'gpt-9'." in done.stderr
    assert "set API_BASE_URL to this model's endpoint, or unset MODEL_NAME" in done.stderr
