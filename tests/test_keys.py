"""A key follows its host: it is sent only to a host that its source, or the user, names."""

from pathlib import Path

import pytest

from lab.errors import ConfigError, NoKeyError
from lab.llm.client import EndpointConfig
from lab.llm.keys import Origins
from lab.llm.settings import ModelChoice, choose_model, hosted_endpoint, proposer_endpoint
from tests.fake_endpoint import FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_endpoint import ask
from tests.test_tune import EXPERIMENT

OURS, THEIRS = "https://api.ours.example/v1", "https://api.stranger.example/v1"
HF, OPENAI = "https://router.huggingface.co/v1", "https://api.openai.com/v1"
HERE = "http://127.0.0.1:8000/v1"


def key(url: str, environ: dict[str, str], file: dict[str, str], confirmed: str = "") -> str:
    """The key for `url` if the shell sets `environ` and `.env` contains `file`."""
    added = frozenset(file.keys() - environ.keys())
    origins = Origins(file, added, confirmed)
    return hosted_endpoint(ModelChoice(url, "m"), {**file, **environ}, origins).api_key


@pytest.mark.parametrize(
    ("url", "environ", "file", "sent"),
    [
        # Both in the same place.
        (OURS, {"API_BASE_URL": OURS, "HF_TOKEN": "shell"}, {}, "shell"),
        (OURS, {}, {"API_BASE_URL": OURS, "API_KEY": "file"}, "file"),
        (OURS, {"API_BASE_URL": OURS, "HF_TOKEN": "first", "API_KEY": "second"}, {}, "first"),
        (f"{OURS}/", {"API_BASE_URL": OURS, "API_KEY": "shell"}, {}, "shell"),
        # An evaluator sets address and key, and the user's own key is in the file.
        (OURS, {"API_BASE_URL": OURS, "API_KEY": "shell"}, {"HF_TOKEN": "file"}, "shell"),
        (HF, {"API_BASE_URL": HF, "API_KEY": "shell"}, {"HF_TOKEN": "file"}, "shell"),
        # The file is whole, and the shell has another key by the same name.
        (OURS, {"HF_TOKEN": "shell"}, {"API_BASE_URL": OURS, "HF_TOKEN": "file"}, "file"),
        (OURS, {"API_KEY": "shell"}, {"API_BASE_URL": OURS, "HF_TOKEN": "file"}, "file"),
        # Both name the host.
        (OURS, {"API_BASE_URL": OURS}, {"API_BASE_URL": OURS, "HF_TOKEN": "file"}, "file"),
        # A key goes to its issuer, wherever that is named.
        (HF, {"HF_TOKEN": "shell"}, {}, "shell"),
        (HF, {"API_BASE_URL": HF}, {"HF_TOKEN": "file"}, "file"),
        ("https://huggingface.co/api", {"HF_TOKEN": "shell"}, {}, "shell"),
        (OPENAI, {"OPENAI_API_KEY": "shell"}, {}, "shell"),
        (OPENAI, {"API_BASE_URL": OPENAI, "HF_TOKEN": "hf", "OPENAI_API_KEY": "openai"}, {}, "openai"),
        # What is on this machine needs none, and gets none that is not meant for it.
        (HERE, {"HF_TOKEN": "shell"}, {}, "none"),
        (HERE, {"HF_TOKEN": "shell"}, {"API_BASE_URL": HERE}, "none"),
        (HERE, {"API_BASE_URL": HERE, "HF_TOKEN": "shell"}, {}, "shell"),
    ],
)
def test_a_key_is_sent_where_it_is_meant_for(
    url: str, environ: dict[str, str], file: dict[str, str], sent: str
) -> None:
    assert key(url, environ, file) == sent


WITHHELD = [
    (THEIRS, {"HF_TOKEN": "shell"}, {}),  # a frozen file's, or an experiment's
    (THEIRS, {"HF_TOKEN": "shell"}, {"API_BASE_URL": THEIRS}),
    (THEIRS, {"API_BASE_URL": THEIRS}, {"API_KEY": "file"}),
    (THEIRS, {"API_BASE_URL": OURS, "HF_TOKEN": "shell"}, {}),
    (THEIRS.replace("https", "http"), {"API_BASE_URL": THEIRS, "HF_TOKEN": "shell"}, {}),
    (THEIRS.replace("/v1", ":8443/v1"), {"API_BASE_URL": THEIRS, "HF_TOKEN": "shell"}, {}),
    (HF.replace("https", "http"), {"HF_TOKEN": "shell"}, {}),
    ("https://nothuggingface.co/v1", {"HF_TOKEN": "shell"}, {}),
    ("https://huggingface.co.stranger.example/v1", {"HF_TOKEN": "shell"}, {}),
    ("https://huggingface.co@stranger.example/v1", {"HF_TOKEN": "shell"}, {}),
    (HF, {"API_KEY": "shell"}, {}),
    (OPENAI, {"API_KEY": "shell"}, {}),
]


@pytest.mark.parametrize(("url", "environ", "file"), WITHHELD)
def test_a_key_is_not_sent_to_a_host_that_it_was_not_given_for(
    url: str, environ: dict[str, str], file: dict[str, str]
) -> None:
    with pytest.raises(NoKeyError, match="was not sent") as caught:
        key(url, environ, file)
    assert caught.value.exit_code == 3
    assert "--endpoint" in caught.value.do
    assert "API_BASE_URL" in caught.value.do
    assert len(str(caught.value).splitlines()) <= 4
    assert key(url, environ, file, confirmed=url) in ("shell", "file")
    with pytest.raises(NoKeyError, match="was not sent"):
        key(url, environ, file, confirmed=OURS)


@pytest.mark.parametrize("environ", [{"OPENAI_API_KEY": "k"}, {"API_BASE_URL": OURS, "OPENAI_API_KEY": "k"}])
def test_the_key_of_openai_is_sent_only_to_its_host(environ: dict[str, str]) -> None:
    with pytest.raises(NoKeyError, match="No API key"):
        key(OURS, environ, {}, confirmed=OURS)


PLAYER = EndpointConfig(OURS, "small", "player")
PROPOSER = {"PROPOSER_BASE_URL": THEIRS, "PROPOSER_MODEL_NAME": "big"}


def test_the_key_of_the_proposing_model_follows_its_host_too() -> None:
    shell, nothing = {"PROPOSER_API_KEY": "key"}, Origins()
    assert proposer_endpoint(PLAYER, PROPOSER | shell, nothing).api_key == "key"
    assert proposer_endpoint(PLAYER, {"API_BASE_URL": OURS} | shell, nothing).api_key == "key"
    assert proposer_endpoint(PLAYER, {}, nothing).api_key == "player"
    from_file = Origins(PROPOSER, frozenset(PROPOSER))
    for environ, origins in ((PROPOSER | shell, from_file), (shell, nothing)):
        with pytest.raises(NoKeyError, match="PROPOSER_API_KEY was not sent"):
            proposer_endpoint(PLAYER, environ, origins)


def test_a_model_without_an_endpoint_is_not_played_on_the_embedded_one() -> None:
    embedded = ModelChoice("embedded", "SmolLM2-135M-Instruct")
    assert choose_model(embedded, {"MODEL_NAME": embedded.name}) == embedded
    for environ in ({"MODEL_NAME": "gpt-9"}, {"MODEL_NAME": "gpt-9", "API_BASE_URL": "embedded"}):
        with pytest.raises(ConfigError, match="No endpoint is set for 'gpt-9'"):
            choose_model(embedded, environ)
    assert choose_model(embedded, {"MODEL_NAME": "gpt-9", "API_BASE_URL": HERE}).name == "gpt-9"


@pytest.mark.parametrize("url", ["http://[::1/v1", "https://h:port/v1", "https://h:99999/v1", "https:///v1"])
def test_an_unreadable_address_is_an_error(url: str) -> None:
    for default, environ in ((ModelChoice(url, "m"), {}), (ModelChoice(HERE, "m"), {"API_BASE_URL": url})):
        with pytest.raises(ConfigError, match="is not a valid endpoint URL"):
            choose_model(default, {**environ, "MODEL_NAME": "m"})
    with pytest.raises(ConfigError, match="is not a valid endpoint URL"):
        proposer_endpoint(PLAYER, {"PROPOSER_BASE_URL": url, "PROPOSER_MODEL_NAME": "m"})


@pytest.mark.parametrize("name", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
def test_other_openai_settings_are_sent_to_no_other_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "canary-organization")
    with fake_endpoint() as endpoint:
        ask(endpoint.url)
    assert "canary-organization" not in str(endpoint.heads)


def test_a_key_does_not_follow_a_redirect_to_another_host() -> None:
    with fake_endpoint() as stranger:
        there = Reply(status=307, headers={"Location": f"{stranger.url}/chat/completions"})
        with fake_endpoint(lambda _: there) as endpoint:
            ask(endpoint.url)
            ask(endpoint.url.replace("http://", "http://me:password@"))
    assert all("authorization" in head for head in endpoint.heads)
    assert len(stranger.heads) == 2
    assert not any("authorization" in head for head in stranger.heads)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "project")
    project.write("experiments/known.toml", EXPERIMENT)
    return project


def sent(endpoint: FakeEndpoint) -> set[str]:
    """The keys of its requests, of which there is at least one."""
    assert endpoint.requests
    return {head["authorization"].removeprefix("Bearer ") for head in endpoint.heads}


@pytest.mark.parametrize(
    ("file", "shell", "arrives"),
    [
        ("API_BASE_URL={url}\n", {"HF_TOKEN": "canary"}, "none"),
        ("API_BASE_URL={url}\nAPI_KEY=${{HF_TOKEN}}\n", {"HF_TOKEN": "canary"}, "${HF_TOKEN}"),
        ("HF_TOKEN=of-the-file\n", {"API_BASE_URL": "{url}", "API_KEY": "injected"}, "injected"),
    ],
)
def test_the_submission_sends_the_key_of_the_place_that_names_the_endpoint(
    project: Project, file: str, shell: dict[str, str], arrives: str
) -> None:
    with fake_endpoint() as endpoint:
        project.write(".env", f"MODEL_NAME=m\n{file.format(url=endpoint.url)}")
        done = project.run("inference.py", **{k: v.format(url=endpoint.url) for k, v in shell.items()})
    assert done.returncode == 0, done.stderr
    assert sent(endpoint) == {arrives}


def test_a_frozen_file_of_a_stranger_gets_no_key(project: Project) -> None:
    best = project.folder / "prompts/best.toml"
    best.write_text(best.read_text().replace('endpoint = "embedded"', f'endpoint = "{THEIRS}"'))
    for command in (["inference.py"], ["-m", "lab.play"]):
        done = project.run(*command, HF_TOKEN="canary-key")
        assert done.returncode == (1 if command == ["inference.py"] else 3)
        assert "api.stranger.example" in done.stderr
        assert f"--endpoint {THEIRS}" in done.stderr
        assert "canary-key" not in done.stdout + done.stderr


def test_an_endpoint_on_the_command_line_gets_the_key_and_overrides_the_variables(
    project: Project,
) -> None:
    project.write(".env", "API_KEY=of-the-file\n")
    variables = {"API_BASE_URL": "http://127.0.0.1:9/v1", "MODEL_NAME": "m"}
    with fake_endpoint() as endpoint:
        done = project.run("-m", "lab.play", "baseline", "--endpoint", endpoint.url, **variables)
    assert done.returncode == 0, done.stderr
    assert sent(endpoint) == {"of-the-file"}


@pytest.mark.parametrize(("command", "confirmed"), [("lab.tune", False), ("lab.doctor", True)])
def test_an_experiment_at_a_stranger_gets_no_key_unless_it_is_confirmed(
    project: Project, command: str, confirmed: bool
) -> None:
    """The host does not exist: with the flag the command tries to reach it."""
    theirs = THEIRS.replace(".example", ".invalid")
    text = EXPERIMENT.replace('endpoint = "embedded"', f'endpoint = "{theirs}"')
    project.write("experiments/known.toml", text)
    flag = ["--endpoint", theirs] if confirmed else []
    done = project.run("-m", command, "experiments/known.toml", *flag, HF_TOKEN="canary-key")
    assert done.returncode == 3
    said = done.stdout + done.stderr
    assert ("cannot be resolved" if confirmed else "HF_TOKEN was not sent") in said
    assert "canary-key" not in said
