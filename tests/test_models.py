"""Several models: candidates that are played on others, and the model as a dimension of the space."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import NoKeyError
from lab.llm.keys import Origins
from lab.llm.settings import ModelChoice, hosted_endpoint
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_tune import EXPERIMENT

OURS, THEIRS = "https://api.ours.example/v1", "https://api.theirs.example/v1"

COMPARE = ("-m", "lab.compare", "frozen", "baseline", "experiments/known.toml", "--episodes", "8", "--model")


def tables(small: FakeEndpoint, large: FakeEndpoint) -> str:
    """Two models: the large one costs ten times as much."""
    return f"""
[models.small]
endpoint = "{small.url}"
name = "org/small-1b"
dollars_in = 10.0
dollars_out = 10.0

[models.large]
endpoint = "{large.url}"
name = "org/large-70b"
dollars_in = 100.0
dollars_out = 100.0
"""


def is_reference(body: Body) -> bool:
    return "plain echo environment" in body["messages"][0]["content"]


def small_truth(body: Body) -> Reply:
    """On the small model the frozen prompt returns twice as much as the baseline."""
    return Reply("x" * (100 if is_reference(body) else 200))


def large_truth(_: Body) -> Reply:
    """On the large model the prompt makes no difference."""
    return Reply("x" * 210)


@pytest.fixture
def endpoints() -> Iterator[tuple[FakeEndpoint, FakeEndpoint]]:
    with fake_endpoint(small_truth) as small, fake_endpoint(large_truth) as large:
        yield small, large


@pytest.fixture
def project(tmp_path: Path, endpoints: tuple[FakeEndpoint, FakeEndpoint]) -> Project:
    project = Project.make(tmp_path / "project", tracked=True)
    project.write("experiments/known.toml", EXPERIMENT + tables(*endpoints))
    return project


def names(endpoint: FakeEndpoint) -> set[str]:
    return {body["model"] for body in endpoint.requests}


def keys(endpoint: FakeEndpoint) -> set[str]:
    return {head["authorization"].removeprefix("Bearer ") for head in endpoint.heads}


def test_two_candidates_are_compared_on_other_models(
    project: Project, endpoints: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    small, large = endpoints
    done = project.run(
        *(*COMPARE, "small,large"),
        **{"SMALL_BASE_URL": small.url, "SMALL_API_KEY": "canary-small"},
        **{"API_BASE_URL": large.url, "MODEL_NAME": "other", "HF_TOKEN": "canary-large"},
    )
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert (names(small), names(large)) == ({"org/small-1b"}, {"org/large-70b"})
    assert (keys(small), keys(large)) == ({"canary-small"}, {"canary-large"})
    told = done.stdout
    assert re.search(r"^ +frozen +baseline$", told, re.MULTILINE)
    assert re.search(
        r"^small: return +80\.0 \[80\.0, 80\.0\], n = 8 +40\.0 \[40\.0, 40\.0\], n = 8$", told, re.MULTILINE
    )
    assert re.search(r"^large: return +84\.0 \[84\.0, 84\.0\], n = 8 +84\.0 ", told, re.MULTILINE)
    assert re.search(r"^small: dollars per episode +\$0\.0006 +\$0\.0006$", told, re.MULTILINE)
    assert re.search(r"^large: dollars per episode +\$0\.0060 +\$0\.0060$", told, re.MULTILINE)
    assert "The intervals hold for all 2 models together, at 95 % confidence." in told
    assert (
        "small: frozen returns more than baseline: 80.0 (+40.0 vs. baseline, +100 %; 98 % interval"
        " [+40.0, +40.0]), n = 8 episodes each, p = 0.0078." in told
    )
    assert "large: No difference between frozen and baseline is shown: 84.0" in told


def test_a_plain_name_is_a_model_at_the_experiments_endpoint(
    project: Project, endpoints: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    small, large = endpoints
    settings = {"API_BASE_URL": small.url, "MODEL_NAME": "org/today"}
    done = project.run(*COMPARE, "org/next", **settings)
    assert done.returncode == 0, done.stderr
    assert (names(small), names(large)) == ({"org/next"}, set())
    assert re.search(r"^org/next: dollars per episode +price unknown +price unknown$", done.stdout, re.M)
    assert "together" not in done.stdout
    assert (
        "org/next: frozen returns more than baseline: 80.0 (+40.0 vs. baseline, +100 %; 95 %" in done.stdout
    )


def test_a_model_without_an_endpoint_is_unknown(project: Project) -> None:
    done = project.run(*COMPARE, "smal")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Unknown model 'smal'." in done.stderr
    assert "use one of fake, small, large, add a table [models.NAME], or set API_BASE_URL" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "org/small-1b"', 'nmae = "x"', "models.small.nmae\n  try: did you mean name?"),
        ('name = "org/small-1b"', "", "models.small.name is missing."),
        ("[models.small]", '[models."a,b"]', "'a,b' is not a valid name of a model."),
        ("http://", "ftp://", "is not a valid endpoint URL."),
        ("http://", "http://me:word@", "must not contain a user and password."),
        ("dollars_in = 10.0", 'headers = { api-key = "x" }', "models.small.headers.api-key"),
        ("dollars_in = 10.0", 'dialect = { sistem = "user" }', "models.small.dialect.sistem"),
    ],
)
def test_a_mistake_in_a_table_is_named(project: Project, old: str, new: str, told: str) -> None:
    path = project.folder / "experiments/known.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    done = project.run(*COMPARE, "small")
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def key(url: str, environ: dict[str, str], file: dict[str, str]) -> str:
    """The key for `[models.my-model]` at `url` if the shell sets `environ` and `.env` contains `file`."""
    origins = Origins(file, frozenset(file.keys() - environ.keys()))
    return hosted_endpoint(ModelChoice(url, "m", table="my-model"), {**file, **environ}, origins).api_key


MINE = {"MY_MODEL_BASE_URL": OURS, "MY_MODEL_API_KEY": "mine"}


@pytest.mark.parametrize(
    ("environ", "file", "sent"),
    [
        (MINE, {}, "mine"),
        ({}, MINE, "mine"),
        ({**MINE, "API_BASE_URL": OURS, "HF_TOKEN": "usual"}, {}, "mine"),
        ({**MINE, "API_BASE_URL": THEIRS, "HF_TOKEN": "theirs"}, {}, "mine"),
        ({"API_BASE_URL": OURS, "HF_TOKEN": "usual"}, {}, "usual"),
        ({"API_BASE_URL": OURS, "MY_MODEL_API_KEY": "mine"}, {}, "mine"),
    ],
)
def test_a_tables_key_is_sent_to_its_host(environ: dict[str, str], file: dict[str, str], sent: str) -> None:
    assert key(OURS, environ, file) == sent


@pytest.mark.parametrize(
    ("environ", "file"),
    [
        ({"MY_MODEL_API_KEY": "mine"}, {}),
        ({"MY_MODEL_API_KEY": "mine"}, {"MY_MODEL_BASE_URL": OURS}),
        ({"MY_MODEL_BASE_URL": THEIRS, "MY_MODEL_API_KEY": "mine"}, {}),
        ({"API_BASE_URL": THEIRS, "HF_TOKEN": "theirs"}, {}),
        ({"MY_MODEL_BASE_URL": OURS, "API_BASE_URL": THEIRS, "HF_TOKEN": "theirs"}, {}),
        ({}, {}),
    ],
)
def test_a_key_is_not_sent_to_the_host_of_another_model(
    environ: dict[str, str], file: dict[str, str]
) -> None:
    with pytest.raises(NoKeyError) as told:
        key(OURS, environ, file)
    assert "MY_MODEL_" in str(told.value)
