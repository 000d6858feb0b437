"""Servers of any kind: OpenEnv's protocol, or HTTP applications of any form."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest

from lab.environments.action import ActionError
from lab.environments.config import EnvironmentConfig
from lab.environments.environment import Environment, open_environment
from lab.environments.keys import space_headers
from lab.errors import ConfigError, EnvError, LabError
from lab.llm.keys import refuse_secret
from tests.echo_server import ROOT, server
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.fake_environment import fake_environment
from tests.project import TIMEOUT_S, Project

NUMBER = '{"number": NUMBER}'

EXPERIMENT = """
about = "Count up."

[environment]
{environment}

[task]
name = "count"
benchmark = "counting"
max_steps = 4
max_tokens = 40
max_return = 3.0
success_score = 0.4
{tasks}

[model]
endpoint = "embedded"
name = "fake"

[baseline]
template = "count"
temperature = 0.7
max_tokens = 40
history = 0

[space]
temperature = {{ low = 0.5, high = 1.0 }}

[budget]
calls = 1000

[verdict]
episodes = 2
"""

HOOK = """
from typing import Any


def parse(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"number": int(text)}
"""

COUNT = """
about = "Count."
system = "Count up from the last number."
turn = "{observation}"
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server("-m", "tests.applications", cwd=ROOT) as url:
        yield url


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "project").untracked
    project.write("prompts/templates/count.toml", COUNT)
    return project


Done = subprocess.CompletedProcess[str]


def play(project: Project, environment: str, form: str = "", tasks: str = "", **settings: str) -> Done:
    """Play an episode with a model that says the number after the last one."""

    def script(body: Body) -> Reply:
        last = int(re.findall(r"last\W+(\d+)", body["messages"][-1]["content"])[-1])
        word = ("ONE", "two", "Three", "")[last % 4]
        return Reply(form.replace("NUMBER", str(last + 1)).replace("WORD", word))

    project.write("experiments/count.toml", EXPERIMENT.format(environment=environment, tasks=tasks))
    with fake_endpoint(script) as endpoint:
        command = ("-m", "lab.play", "baseline", "experiments/count.toml", "--seed", "1")
        return project.run(*command, API_BASE_URL=endpoint.url, MODEL_NAME="fake", **settings)


FORMS = {
    "flat": NUMBER,
    "gym": NUMBER,
    "stated": NUMBER,
    "wrapped": NUMBER,
    "limited": NUMBER,
    "older": NUMBER,
    "words": '"WORD".',
    "union": '{"kind": "say", "number": NUMBER}',
    "spelled": "WORD",
    "headed": NUMBER,
    "imitated": NUMBER,
    "numbered": NUMBER,
    "enveloped": NUMBER,
    "paid": NUMBER,
    "twofold": '{"action": {"number": NUMBER}, "reason": "it is next"}',
}


@pytest.mark.parametrize("name", FORMS)
def test_an_application_is_played_in_its_own_form(project: Project, url: str, name: str) -> None:
    done = play(project, f'url = "{url}/{name}"', FORMS[name])
    assert "Return 3.00 in 3 steps, score 1.000" in done.stdout, done.stdout + done.stderr


def test_tasks_are_arguments_of_an_applications_reset(project: Project, url: str) -> None:
    tasks = '[[tasks]]\nname = "low"\nreset = { start = 2 }\n[[tasks]]\nname = "high"\nreset = { start = 40 }'
    done = play(project, f'url = "{url}/flat"', NUMBER, tasks)
    assert "last: 40" in done.stdout
    assert "Return 3.00 in 3 steps" in done.stdout
    done = play(project, f'url = "{url}/flat"', NUMBER, tasks.replace("start", "begin"))
    assert (done.returncode, "no argument 'begin'" in done.stderr) == (2, True)


@pytest.mark.parametrize(("name", "score"), [("several", "state.score"), ("beside", "metadata.final_score")])
def test_a_step_is_played_in_the_task_of_its_reset(project: Project, url: str, name: str, score: str) -> None:
    """Its application has a default for the task that each request names; the model does not choose it."""
    tasks = f'score = "{score}"'
    tasks += "".join(
        f'\n[[tasks]]\nname = "{one}"\nreset = {{ task = "{one}" }}' for one in ("from_ten", "from_twenty")
    )
    environment = f'url = "{url}/{name}"'
    done = play(project, environment, NUMBER, tasks)
    assert "last: 20" in done.stdout
    assert "Return 3.00 in 3 steps, score 0.250" in done.stdout, done.stdout + done.stderr
    assert "from_zero" not in done.stdout
    done = play(project, environment, NUMBER)  # without tasks, the application's own default
    assert "Return 3.00 in 3 steps" in done.stdout, done.stdout + done.stderr


def test_calls_stand_below_a_prefix_and_have_arguments_in_their_paths(project: Project, url: str) -> None:
    """The task is in the path of reset, and the session that it answers with in those of step and state."""
    task = '\n[[tasks]]\nname = "ten"\nreset = { task_name = "from_ten" }'
    done = play(project, f'url = "{url}/below"', NUMBER, f'score = "state.graded.points"{task}')
    assert "last: 10" in done.stdout
    assert "Return 3.00 in 3 steps, score 0.500" in done.stdout, done.stdout + done.stderr
    none = play(project, f'url = "{url}/below"', NUMBER)
    assert (none.returncode, "/env/reset/{task_name} requires task_name" in none.stderr) == (4, True)
    assert "[[tasks]]" in none.stderr


@pytest.mark.parametrize(
    ("name", "form", "place", "score"),
    [
        ("below", NUMBER, "grader.score", "0.250"),
        ("spelled", "WORD", "grader.score", "0.250"),
        ("headed", NUMBER, "metadata.reward.score", "0.250"),
    ],
)
def test_the_score_may_be_that_of_a_grader_or_a_part_of_the_reward(
    project: Project, url: str, name: str, form: str, place: str, score: str
) -> None:
    task = '\n[[tasks]]\nname = "zero"\nreset = { task_name = "from_zero" }' if name == "below" else ""
    done = play(project, f'url = "{url}/{name}"', form, f'score = "{place}"{task}')
    assert f"Return 3.00 in 3 steps, score {score}" in done.stdout, done.stdout + done.stderr


def test_a_grader_that_requires_an_unknown_task_is_reported(project: Project, url: str) -> None:
    place, score = f'url = "{url}/judged"', 'score = "grader.score"'
    task = '[[tasks]]\nname = "zero"\nreset = { task = "from_zero" }'
    done = play(project, place, NUMBER, f"{score}\n{task}")
    assert "Return 3.00 in 3 steps, score 0.250" in done.stdout, done.stdout + done.stderr
    none = play(project, place, NUMBER, score)
    assert (none.returncode, "/grader/{task} requires task" in none.stderr) == (4, True), none.stderr


def test_an_environment_without_a_grader_is_reported(project: Project, url: str) -> None:
    done = play(project, f'url = "{url}/flat"', NUMBER, 'score = "grader.score"')
    assert (done.returncode, "names no /grader" in done.stderr) == (4, True), done.stderr

    async def grade() -> None:
        echo = "lab.environments.echo.server.echo_environment:EchoEnvironment"
        async with open_environment(EnvironmentConfig(python=echo)) as opened, opened.session() as session:
            await session.grade()

    with pytest.raises(EnvError, match="grader cannot be called"):
        asyncio.run(grade())


@pytest.mark.parametrize("answer", ["..", ".", "", "one/../../reset", "four", "one?again=1", "%2e%2e"])
def test_an_action_in_a_path_cannot_reach_another_call(url: str, answer: str) -> None:
    async def steps() -> float:
        async with (
            open_environment(EnvironmentConfig(url=f"{url}/spelled")) as opened,
            opened.session() as session,
        ):
            await session.reset(0, {})
            await session.step({"action": "one"})
            with pytest.raises(ActionError):
                await session.step({"action": answer})
            return (await session.step({"action": "two"})).reward

    assert asyncio.run(steps()) == 1.0, "the episode goes on where it was"


def test_an_observation_that_is_called_a_state_has_its_own_names(project: Project, url: str) -> None:
    project.write("prompts/templates/count.toml", 'system = "Count."\nturn = "last: {observation.last}"')
    done = play(project, f'url = "{url}/stated"', NUMBER)
    assert "Return 3.00 in 3 steps" in done.stdout, done.stdout + done.stderr


def test_a_template_shows_the_info_of_an_application(project: Project, url: str) -> None:
    turn = "{observation.told}, after {observation.last}, last 7\\n\\nYou said: {observation.metadata.said}"
    project.write("prompts/templates/count.toml", f'system = "Count."\nturn = "{turn}"')
    done = play(project, f'url = "{url}/flat"', NUMBER)
    assert done.returncode == 0, done.stderr
    first, second, *_ = re.findall(r"\[user\]\n(.*?)\n\[action\]", done.stdout, re.DOTALL)
    assert (first, second) == ("count up, after 0, last 7", "go on, after 0, last 7\n\nYou said: 8")


def test_a_template_shows_what_the_episode_began_with(project: Project, url: str) -> None:
    """The system text shows it from the start, the turn text as soon as the observation is another one."""
    project.write(
        "prompts/templates/count.toml",
        'system = "Count.\\n\\nFrom {opening.last}."\nturn = "last {observation.last}\\n\\n{opening.told}"',
    )
    done = play(project, f'url = "{url}/flat"', NUMBER)
    assert "Return 3.00 in 3 steps" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("[system]\nCount.\n\nFrom 0.\n") == 3
    turns = re.findall(r"\[user\]\n(.*?)\n\[action\]", done.stdout, re.DOTALL)
    assert turns == ["last 0", "last 1\n\ncount up", "last 2\n\ncount up"]
    project.write("prompts/templates/count.toml", 'system = "{opening.absent}"\nturn = "last 0"')
    wrong = play(project, f'url = "{url}/flat"', NUMBER)
    assert (wrong.returncode, "no {opening.absent}" in wrong.stderr) == (2, True), wrong.stderr
    assert "{opening.last}" in wrong.stderr


@pytest.mark.parametrize(("name", "status"), [("flat", "HTTP 400: "), ("enveloped", "")])
def test_a_refused_step_counts_and_is_reported_in_the_applications_words(
    project: Project, url: str, name: str, status: str
) -> None:
    done = play(project, f'url = "{url}/{name}"', '{"number": -1}')
    assert done.returncode == 0, done.stderr
    assert "Return 0.00 in 4 steps" in done.stdout
    assert f"{status}there are no negative numbers here" in done.stdout


def test_an_episodes_name_in_the_path_of_reset_is_in_that_of_each_step(project: Project, url: str) -> None:
    task = '\n[[tasks]]\nname = "one"\nreset = { sid = "room 1" }'
    done = play(project, f'url = "{url}/moved"', NUMBER, task)
    assert "Return 3.00 in 3 steps, score 1.000" in done.stdout, done.stdout + done.stderr


def test_a_server_that_closes_the_connection_after_an_exception_is_still_reached(url: str) -> None:
    async def steps() -> list[str]:
        environment = EnvironmentConfig(url=f"{url}/older")
        async with open_environment(environment) as opened, opened.session() as session:
            await session.reset(0, {})
            told = []
            for _ in range(10):
                with pytest.raises(LabError) as caught:
                    await session.step({"number": -1})
                told.append(caught.value.why)
            return told

    assert set(asyncio.run(steps())) == {"HTTP 500: Internal Server Error"}


def test_the_error_of_a_step_may_be_a_field_of_its_info(url: str) -> None:
    async def errors() -> list[str | None]:
        config = EnvironmentConfig(url=f"{url}/flat", error="metadata.wrong")
        async with open_environment(config) as environment, environment.session() as session:
            await session.reset(0, {})
            return [(await session.step({"number": number})).error for number in (9, 1)]

    assert asyncio.run(errors()) == ["9 is not the next number", None]


@pytest.mark.parametrize("name", ["flat", "wrapped"])
def test_the_score_may_be_in_the_state_of_an_application(project: Project, url: str, name: str) -> None:
    done = play(project, f'url = "{url}/{name}"', NUMBER, 'score = "state.graded.points"')
    assert "Return 3.00 in 3 steps, score 0.500" in done.stdout, done.stdout + done.stderr


def test_an_application_without_a_state_is_reported(project: Project, url: str) -> None:
    project.write("experiments/reads.py", HOOK)
    done = play(project, f'url = "{url}/unnamed"\nhooks = "reads.py"', "NUMBER", 'score = "state.share"')
    assert (done.returncode, "/openapi.json names no /state" in done.stderr) == (4, True), done.stderr


@pytest.mark.parametrize("name", ["unnamed", "anything", "oldest"])
def test_a_hook_parses_actions_that_an_application_does_not_publish(
    project: Project, url: str, name: str
) -> None:
    project.write("experiments/reads.py", HOOK)
    done = play(project, f'url = "{url}/{name}"\nhooks = "reads.py"', "NUMBER")
    assert "Return 3.00 in 3 steps, score 1.000" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "at_once"),
    [("flat", 1), ("wrapped", 3), ("gym", 3), ("headed", 3), ("numbered", 3), ("enveloped", 3)],
)
def test_episodes_are_concurrent_only_if_the_application_identifies_them(
    url: str, name: str, at_once: int
) -> None:
    said, inside, most = list[str](), 0, 0

    async def one(environment: Environment, seed: int) -> float:
        nonlocal inside, most
        async with environment.session() as session:
            inside, most = inside + 1, max(most, inside + 1)
            seen = await session.reset(seed, {})
            rewards = []
            for _ in range(3):
                await asyncio.sleep(0.05)
                number = int(seen.fields["last"] or 0) + 1
                seen = await session.step(session.form.read(f'{{"number": {number}}}').values)
                rewards.append(seen.reward)
            assert seen.done
            inside -= 1
        return sum(rewards)

    async def several() -> list[float]:
        config = EnvironmentConfig(url=f"{url}/{name}")
        async with open_environment(config, say=said.append) as environment:
            return await asyncio.gather(*(one(environment, seed) for seed in range(3)))

    assert asyncio.run(several()) == [3.0, 3.0, 3.0]
    assert most == at_once
    assert len(said) == (at_once == 1)


ISOLATION = {
    "gym": ("ok    sessions ", "the same when it is repeated, and beside another"),
    "flat": ("ok    sessions ", "one episode is played at a time"),
    "mixed": ("FAIL  sessions ", "sessions are not separate.; try: set search.in_flight = 1"),
    "below": ("-     sessions ", "not tested"),
    "RANDOM": ("warn  sessions ", "episodes of one seed differ"),
}

RANDOM = """
import random
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Guess(Action):
    number: int


class Dice(Environment[Guess, Observation, State]):
    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Observation:
        return Observation(metadata={"last": 0})

    def step(self, action: Guess, timeout_s: float | None = None, **_: Any) -> Observation:
        return Observation(reward=random.random(), metadata={"last": 0})

    @property
    def state(self) -> State:
        return State()
"""


@pytest.mark.parametrize("name", ISOLATION)
def test_the_doctor_sees_whether_concurrent_episodes_are_separate(
    project: Project, url: str, name: str
) -> None:
    project.write("experiments/dice.py", RANDOM)
    environment = 'python = "dice.py:Dice"' if name == "RANDOM" else f'url = "{url}/{name}"'
    task = '[[tasks]]\nname = "ten"\nreset = { task_name = "from_ten" }' if name == "below" else ""
    project.write("experiments/count.toml", EXPERIMENT.format(environment=environment, tasks=task))
    with fake_endpoint(lambda _: Reply(NUMBER.replace("NUMBER", "1"))) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        done = project.run("-m", "lab.doctor", "experiments/count.toml", **settings)
    (line,) = [line for line in done.stdout.splitlines() if " sessions " in line]
    mark, told = ISOLATION[name]
    assert line.startswith(mark)
    assert told in line
    assert (done.returncode == 4) is (name == "mixed"), done.stdout


HEADERS = 'url = "{url}"\nheaders = {{ "X-API-Key" = "{value}" }}'


def test_a_header_contains_the_value_of_a_variable_and_no_file_does(project: Project, url: str) -> None:
    place = HEADERS.format(url=f"{url}/locked", value="env:COUNT_KEY")
    assert "Return 3.00" in play(project, place, NUMBER, COUNT_KEY="open sesame").stdout
    unset = play(project, place, NUMBER)
    assert (unset.returncode, "COUNT_KEY is not set" in unset.stderr) == (2, True)
    written = play(project, HEADERS.format(url=f"{url}/locked", value="open sesame"), NUMBER)
    assert (written.returncode, "must not contain a key" in written.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((name, True) for name in ("Authorization", "apikey", "Ocp-Apim-Subscription-Key", "X-OAuth")),
        *((name, True) for name in ("Set-Cookie", "x-portkey-api-key", "X_Secret_2", "Proxy-Authorization")),
        *((name, True) for name in ("X-Max-Tokens", "X-Author", "X-Bypass-Cache", "X-Passphrase")),
        *((name, False) for name in ("x-portkey-provider", "x-portkey-custom-host", "x-tenant")),
    ],
)
def test_a_header_is_secret_by_a_part_of_its_name_and_portkey_is_no_key(name: str, secret: bool) -> None:
    with pytest.raises(ConfigError) if secret else nullcontext():
        refuse_secret(name, "open sesame", "headers")


def test_a_key_is_sent_only_to_the_host_that_is_set_beside_it(project: Project) -> None:
    place = HEADERS.format(url="https://elsewhere.invalid", value="env:COUNT_KEY")
    told = play(project, place, NUMBER, COUNT_KEY="open sesame")
    assert (told.returncode, "COUNT_KEY was not sent" in told.stderr) == (3, True)
    assert "set ENV_BASE_URL=https://elsewhere.invalid" in told.stderr
    settings = {"COUNT_KEY": "open sesame", "ENV_BASE_URL": "https://elsewhere.invalid"}
    assert "cannot be reached" in play(project, place, NUMBER, **settings).stderr


def test_the_token_of_a_space_is_sent_to_private_ones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"/api/spaces/me/mine": {"private": True}, "/api/spaces/others/open": {"private": False}}
    asked = list[str]()

    def hub(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.url.host} {request.headers['Authorization']}")
        found = known.get(request.url.path)
        return httpx.Response(200 if found else 401, stream=httpx.ByteStream(json.dumps(found).encode()))

    transport, client = httpx.MockTransport(hub), httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **given: client(transport=transport, **given))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert asyncio.run(space_headers("me/mine", TIMEOUT_S)) == {"Authorization": "Bearer hf_mine"}
    for other in ("others/open", "others/none"):
        assert asyncio.run(space_headers(other, TIMEOUT_S)) == {}
    assert set(asked) == {"huggingface.co Bearer hf_mine"}
    monkeypatch.delenv("HF_TOKEN")
    assert asyncio.run(space_headers("me/mine", TIMEOUT_S)) == {}


TOLD = {
    "status-401": ("requires a token", "[environment] headers"),
    "status-503": ("asleep, or still starting", "until it answers"),
    "status-404": ("is not an OpenEnv environment", "the server's root URL"),
    "status-500": ("environment failed", ""),
    "oldest": ("an older protocol", "parse hook"),
    "unnamed": ("publishes no usable action schema", "parse hook"),
    "anything": ("publishes no usable action schema", "parse hook"),
}


@pytest.mark.parametrize("name", TOLD)
def test_each_kind_of_server_that_cannot_be_played_has_its_own_error(
    project: Project, url: str, name: str
) -> None:
    done = play(project, f'url = "{url}/{name}"')
    told, do = TOLD[name]
    assert done.returncode == 4
    assert told in done.stderr
    assert do in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_an_async_reset_is_explained() -> None:
    words = "'coroutine' object has no attribute 'model_dump'"
    frame = json.dumps({"type": "error", "data": {"message": words, "code": "EXECUTION_ERROR"}})

    async def reset(url: str) -> None:
        async with (
            open_environment(EnvironmentConfig(url=url)) as environment,
            environment.session() as session,
        ):
            await session.reset(0, {})

    with fake_environment(lambda *_: frame) as url, pytest.raises(EnvError, match="is async") as caught:
        asyncio.run(reset(url))
    assert "reset_async" in caught.value.do
