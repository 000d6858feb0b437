"""Several models: candidates that are played on others, and the model as a dimension of the space."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lab.agent.candidate import Candidate
from lab.errors import NoKeyError
from lab.llm.keys import Origins
from lab.llm.settings import ModelChoice, hosted_endpoint
from lab.local_model.weights import MODEL_ID
from lab.submission.frozen import read_frozen
from tests.echo_server import ROOT
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_resume import optuna_trials
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
    path = project.folder / "experiments/known.toml"
    path.write_text(path.read_text().replace('name = "fake"', f'name = "{MODEL_ID}"', 1))
    done = project.run(*COMPARE, "smal")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Unknown model 'smal'." in done.stderr
    assert (
        "use one of SmolLM2-135M-Instruct, small, large, add a table [models.NAME], or set API_BASE_URL"
        in done.stderr
    )


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


TUNE = ("-m", "lab.tune", "experiments/models.toml")


def varied(length: int) -> Reply:
    return Reply("x" * random.randint(length - 10, length + 10))


def small_can(body: Body) -> Reply:
    """With the storyteller the small model returns almost as much as the large one."""
    return varied(200 if "storyteller" in body["messages"][0]["content"] else 60)


def large_can(body: Body) -> Reply:
    return varied(206 if "storyteller" in body["messages"][0]["content"] else 120)


def of_models(small: FakeEndpoint, large: FakeEndpoint, within: float = 0.1) -> str:
    """A study over both models, whose baseline is the large one's."""
    text = re.sub(r"\[model\].*?\n\n", "", EXPERIMENT, flags=re.DOTALL)
    text = text.replace("[baseline]\n", '[baseline]\nmodel = "large"\n')
    text = text.replace("[space]\n", '[space]\nmodel = ["small", "large"]\n')
    text = text.replace("finalists = 2", "finalists = 1")
    return f'{text}\n[objective]\ncost = "dollars"\nwithin = {within}\n{tables(small, large)}'


@dataclass
class Tuned:
    """A finished study over two models: what was printed, and the requests of each endpoint by then."""

    project: Project
    small: FakeEndpoint
    large: FakeEndpoint
    out: str
    err: str
    requests: tuple[int, int]

    def run(self, *command: str) -> str:
        done = self.project.run(*command)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuned]:
    project = Project.make(tmp_path_factory.mktemp("models") / "project", tracked=True)
    with fake_endpoint(small_can) as small, fake_endpoint(large_can) as large:
        project.write("experiments/models.toml", of_models(small, large))
        done = project.run(*TUNE)
        assert done.returncode == 0, done.stderr
        requests = (len(small.requests), len(large.requests))
        yield Tuned(project, small, large, done.stdout, done.stderr, requests)


def test_the_cheaper_model_within_reach_is_frozen(tuned: Tuned) -> None:
    frozen = read_frozen(tuned.project.folder / "prompts/best.toml")
    assert (frozen.candidate.model, frozen.candidate.template.name) == ("small", "storyteller")
    assert (frozen.model.endpoint, frozen.model.name) == (tuned.small.url, "org/small-1b")
    assert frozen.evidence.frozen_return == pytest.approx(80, abs=4)
    assert re.search(r"^Frozen: trial-\d+ returns more than the baseline", tuned.out, re.MULTILINE)
    assert re.search(r"^  baseline .* reference on large$", tuned.out, re.MULTILINE)
    assert re.search(r"^  trial-\d+ .* storyteller on small$", tuned.out, re.MULTILINE)
    assert f"org/large-70b at {tuned.large.url} and org/small-1b at {tuned.small.url}" in tuned.err


def test_a_cheaper_model_that_returns_no_more_is_frozen_for_its_cost(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project", tracked=True).untracked
    with fake_endpoint(small_can) as small, fake_endpoint(large_can) as large:
        text = of_models(small, large).replace("calls = 300", "calls = 200")
        text = text.replace('template = "reference"', 'template = "storyteller"')
        project.write("experiments/models.toml", text)
        done = project.run(*TUNE)
    assert done.returncode == 0, done.stderr
    frozen = read_frozen(project.folder / "prompts/best.toml")
    assert (frozen.candidate.model, frozen.model.name) == ("small", "org/small-1b")
    assert (frozen.evidence.outcome, frozen.evidence.difference < 0) == ("cheaper", True)
    assert re.search(
        r"Frozen: trial-\d+ costs less than the baseline on unseen episodes, by 0\.0054 \[0\.0054, 0\.0054\]"
        r" dollars per episode; its return is within the objective's tolerance: ",
        done.stdout,
    ), done.stdout


def test_every_call_goes_to_its_model_at_its_price(tuned: Tuned) -> None:
    assert (names(tuned.small), names(tuned.large)) == ({"org/small-1b"}, {"org/large-70b"})
    result = json.loads(tuned.run(*TUNE, "--json"))
    assert result["cost"]["calls"] == sum(tuned.requests)
    of_small, of_large = (
        15 * calls * price / 1e6 for calls, price in zip(tuned.requests, (10, 100), strict=True)
    )
    assert result["cost"]["dollars"] == pytest.approx(of_small + of_large, abs=1e-4)
    assert (len(tuned.small.requests), len(tuned.large.requests)) == tuned.requests, "it repeats no call"
    by_model = {one["name"]: one for one in result["cost"]["models"]}
    for name, calls, dollars in zip(("small", "large"), tuned.requests, (of_small, of_large), strict=True):
        one = by_model[name]
        assert (one["calls"], one["prompt_tokens"], one["completion_tokens"]) == (
            calls,
            calls * 10,
            calls * 5,
        )
        assert one["dollars"] == pytest.approx(dollars, abs=1e-4)
    assert by_model["large"]["dollars_per_episode"] == pytest.approx(0.006)
    assert sum(one["episodes"] for one in by_model.values()) == result["cost"]["episodes"]


def test_the_verdicts_share_of_the_dollars_is_reserved_at_the_prices_of_its_models(tmp_path: Path) -> None:
    """A call of the baseline costs ten times one of the search: at the average, its holdout had no room."""
    project = Project.make(tmp_path / "project", tracked=True).untracked
    with fake_endpoint(small_can) as small, fake_endpoint(large_can) as large:
        text = of_models(small, large).replace('["small", "large"]', '"small"')
        text = text.replace("calls = 300", "dollars = 0.11")
        project.write("experiments/models.toml", f"{text}\n[tracking]\ntraces = 0\n")
        done = project.run(*TUNE, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verdict"]["limit"] is None
    assert result["verdict"]["pairs"] == result["verdict"]["planned_pairs"] == 8
    assert [one["episodes"] for one in result["confirmed"]] == [4, 4, 4]
    assert 0.075 < result["cost"]["dollars"] <= 0.11
    assert 32 < len(large.requests) <= 48  # 32 of them in the holdout


def test_the_report_has_the_costs_by_model(tuned: Tuned) -> None:
    tuned.run("-m", "lab.report", "experiments/models.toml", "--out", "report.html")
    page = (tuned.project.folder / "report.html").read_text()
    rows = re.findall(r'<tr><th scope="row">(small|large)</th><td>(.*?)</td>(.*?)</tr>', page)
    told = {name: (model, re.findall(r'<td class="n">(.*?)</td>', cells)) for name, model, cells in rows}
    for name, made, price_each in (
        ("small", tuned.requests[0], "$0.0006"),
        ("large", tuned.requests[1], "$0.0060"),
    ):
        model, (_, _, calls, tokens_in, tokens_out, _, each) = told[name]
        assert model.startswith(f"org/{name}")
        assert (calls, tokens_in, tokens_out) == (f"{made:,}", f"{made * 10:,}", f"{made * 5:,}")
        assert each == price_each
    assert "Everything was played with models org/large-70b at" in page


def test_the_model_is_a_parameter_in_optuna_and_mlflow(tuned: Tuned) -> None:
    trials = optuna_trials(tuned.project)
    assert {trial.params["model"] for trial in trials} == {"small", "large"}
    assert trials[0].params["model"] == "large"
    client = MlflowClient(f"sqlite:///{tuned.project.folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'models'")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'search'")
    told = {(run.data.params["model"], run.data.tags["model"]) for run in runs}
    assert told == {("small", "org/small-1b"), ("large", "org/large-70b")}


def test_the_submission_plays_the_frozen_model(tuned: Tuned) -> None:
    before = len(tuned.small.requests), len(tuned.large.requests)
    told = tuned.run("inference.py")
    assert "[START] task=echo env=test model=org/small-1b" in told
    assert (len(tuned.small.requests), len(tuned.large.requests)) == (before[0] + 4, before[1])


def test_each_candidate_is_compared_and_played_on_its_own_model(tuned: Tuned) -> None:
    before = len(tuned.small.requests), len(tuned.large.requests)
    told = tuned.run("-m", "lab.compare", "frozen", "baseline", "--episodes", "6")
    assert re.search(r"^model +small +large$", told, re.MULTILINE)
    assert re.search(r"^dollars per episode +\$0\.0006 +\$0\.0060$", told, re.MULTILINE)
    assert (len(tuned.small.requests), len(tuned.large.requests)) == (before[0] + 24, before[1] + 24)
    transfer = tuned.run("-m", "lab.compare", "frozen", "baseline", "--episodes", "6", "--model", "large")
    assert not re.search(r"^model ", transfer, re.MULTILINE)
    assert len(tuned.large.requests) == before[1] + 24 + 48
    assert "Playing frozen on org/small-1b at" in tuned.run(
        "-m", "lab.play", "frozen", "experiments/models.toml"
    )


def test_each_model_has_its_dialect(tmp_path: Path) -> None:
    def picky(body: Body) -> Reply:
        if body["messages"][0]["role"] == "system":
            return Reply(status=400, message="System role not supported")
        if "temperature" in body:
            return Reply(status=400, message="Unsupported parameter: temperature")
        return Reply("x" * (200 if "storyteller" in str(body["messages"]) else 60))

    project = Project.make(tmp_path / "project", tracked=True).untracked
    with fake_endpoint(picky) as small, fake_endpoint(large_can) as large:
        text = of_models(small, large).replace("calls = 300", "calls = 200")
        project.write("experiments/models.toml", text + "\n[tracking]\ntraces = 0\n")
        done = project.run(*TUNE)
        assert done.returncode == 0, done.stderr
        again = project.run(*TUNE)
    assert "small: Requests are adapted to the endpoint" in done.stderr
    assert {body["messages"][0]["role"] for body in large.requests} == {"system"}
    assert len({body["temperature"] for body in large.requests}) > 2
    assert "Searched is" not in done.stderr, "the other endpoint has a temperature"
    frozen = read_frozen(project.folder / "prompts/best.toml")
    learnt = {"system": "user", "omit": ["temperature"]}
    assert (frozen.candidate.model, frozen.model.dialect) == ("small", learnt)
    assert again.stdout == done.stdout


REFUSALS = {
    "the key": (
        Reply(status=401, message="no such key"),
        "FAIL  key          small: The endpoint refused the key. {url}: no such key;"
        " try: set SMALL_API_KEY to a key for this endpoint\n",
    ),
    "the model": (
        Reply(status=404, message="no such model"),
        "FAIL  model        small: The endpoint does not have 'org/small-1b'. {url}: no such model;"
        " try: set models.small.name to one of: big, small\n",
    ),
}


def no_system(body: Body) -> Reply:
    is_system = body["messages"][0]["role"] == "system"
    return Reply(status=400, message="System role not supported") if is_system else Reply("x" * 99)


@pytest.mark.parametrize(("refusal", "told"), REFUSALS.values(), ids=REFUSALS)
def test_the_doctor_checks_each_model_with_the_calls_of_a_study(
    project: Project, endpoints: tuple[FakeEndpoint, FakeEndpoint], refusal: Reply, told: str
) -> None:
    small, large = endpoints
    small.script, large.script = lambda _: refusal, no_system
    project.write("experiments/models.toml", of_models(small, large))
    done = project.run("-m", "lab.doctor", "experiments/models.toml")
    assert done.returncode == 3, done.stdout
    assert told.format(url=small.url) in done.stdout
    assert re.search(r"^ok    model +large: org/large-70b answers in ", done.stdout, re.MULTILINE)
    assert re.search(r"^ok    steps +large: step 1: 'x+ ", done.stdout, re.MULTILINE)
    assert re.search(r"^ok    dialect +large: system text in the first user message$", done.stdout, re.M)
    assert re.search(r"^-     steps +small: skipped$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("\n1 check failed.\n")
    assert {0.5, 1.0} <= {body["temperature"] for body in large.requests}, "both ends of the range"
    assert len(small.requests) <= 2


def test_the_doctor_says_what_is_left_out_of_the_space_because_no_model_has_it(
    project: Project, endpoints: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    def picky(body: Body) -> Reply:
        refused = "temperature" in body
        return Reply(status=400, message="Unsupported parameter: temperature") if refused else Reply("x" * 99)

    small, large = endpoints
    large.script = picky
    project.write("experiments/models.toml", of_models(small, large))
    one = project.run("-m", "lab.doctor", "experiments/models.toml")
    small.script = picky
    both = project.run("-m", "lab.doctor", "experiments/models.toml")
    assert one.returncode == both.returncode == 0, one.stdout + both.stdout
    assert one.stdout.endswith("\nAll checks passed.\n")
    dialects = [re.findall(r"^ok    dialect +(.*)$", done.stdout, re.MULTILINE) for done in (one, both)]
    lacking = "without temperature; the study leaves temperature out of [space]"
    assert dialects == [
        ["large: without temperature", "small: as OpenAI's"],
        [f"large: {lacking}", f"small: {lacking}"],
    ]


def test_the_model_is_part_of_a_candidate_only_where_it_is_named() -> None:
    candidate = read_frozen(ROOT / "prompts/best.toml").candidate
    assert "model" not in {*candidate.as_table(), *candidate.settings}
    digests = {replace(candidate, model=name).digest for name in ("", "small", "large")}
    assert len(digests) == 3
    small = replace(candidate, model="small")
    assert Candidate.from_table(small.as_table()) == small


MISTAKES = {
    "no model of the baseline": (
        'model = "large"\n',
        "",
        "baseline.model\n  try: set it to the model in use today",
    ),
    "an unknown one": ('["small", "large"]', '["smal", "large"]', "space.model\n  try: did you mean small?"),
    "of the baseline": (
        'model = "large"\n',
        'model = "larg"\n',
        "baseline.model\n  try: did you mean large?",
    ),
    "two": (
        "[baseline]",
        '[model]\nendpoint = "embedded"\nname = "m"\n[baseline]',
        "The baseline has two models.",
    ),
    "no price": (
        "dollars_in = 10.0\n",
        "",
        "the model has no prices.\n  where: experiments/models.toml:",
    ),
}


@pytest.mark.parametrize(("old", "new", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_space_of_models_is_named(
    project: Project, endpoints: tuple[FakeEndpoint, FakeEndpoint], old: str, new: str, told: str
) -> None:
    text = of_models(*endpoints)
    assert old in text
    project.write("experiments/models.toml", text.replace(old, new, 1))
    done = project.run(*TUNE)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_a_model_without_a_key_is_told_before_any_call(
    project: Project, endpoints: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    text = of_models(*endpoints).replace(endpoints[0].url, THEIRS)
    project.write("experiments/models.toml", text)
    done = project.run(*TUNE, HF_TOKEN="canary")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"set SMALL_API_KEY and SMALL_BASE_URL={THEIRS}" in done.stderr
    assert not endpoints[1].requests
    plan = project.run(*TUNE, "--dry-run")
    assert f"org/large-70b at {endpoints[1].url} and org/small-1b at {THEIRS}" in plan.stdout
    assert "at most about $" in plan.stdout
