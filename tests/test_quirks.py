"""Endpoints as found in practice: each way of refusing, thinking or counting, in at least two versions.

The first version was reported in public; the others are equivalent ones of other servers.
"""

import csv
import json
import re
import threading
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lab.llm.sampling import NEUTRAL
from tests.fake_endpoint import Body, FakeEndpoint, Reply, Script, fake_endpoint
from tests.project import Project
from tests.test_any_environment import EXPERIMENT as VAULT_EXPERIMENT
from tests.test_any_environment import GUESS, RECKON, VAULT
from tests.test_resume import EXPERIMENT as WHOLE

KEY = "canary-key-0123456789"

EXPERIMENT = WHOLE.replace("calls = 240", "calls = 150")
FREE = EXPERIMENT.replace("temperature = { low", "{more}\ntemperature = { low")


def refusal(status: int, body: object) -> Reply:
    """An error whose body is JSON, or plain text."""
    data = body if isinstance(body, str) else json.dumps(body)
    return Reply(status=status, body=data.encode())


def completion(message: dict[str, Any], reason: str = "stop", usage: object = None) -> Reply:
    """An answer with this message and usage."""
    body = {"choices": [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}]}
    return Reply(body=json.dumps(body if usage is None else {**body, "usage": usage}).encode())


USAGE = {"prompt_tokens": 9, "completion_tokens": 12}


def truth(body: Body) -> Reply:
    """Answer the storyteller's prompt with twice as many characters, wherever its text is."""
    asked = json.dumps(body["messages"])
    return Reply("x" * (200 if "storyteller" in asked else 100))


@dataclass
class Done:
    """A command's exit code, stdout and stderr, and its number of requests."""

    code: int
    out: str
    err: str
    requests: int


def run(project: Project, endpoint: FakeEndpoint, *command: str, **settings: str) -> Done:
    before = len(endpoint.requests)
    environ = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": KEY, **settings}
    done = project.run(*command, **environ)
    assert "Traceback" not in done.stderr, done.stderr
    assert KEY not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr, len(endpoint.requests) - before)


TUNE = ("-m", "lab.tune", "experiments/known.toml", "--out", "best.toml")
PLAY = ("-m", "lab.play", "baseline", "experiments/known.toml")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "project", tracked=True).untracked
    project.write("experiments/known.toml", EXPERIMENT)
    return project


def frozen(project: Project) -> dict[str, Any]:
    return tomllib.loads((project.folder / "best.toml").read_text())


def picky(refuses: Callable[[Body], Reply | None]) -> Script:
    """An endpoint that refuses some requests, and answers the others."""
    return lambda body: refuses(body) or truth(body)


def system_of(body: Body) -> bool:
    return any(message["role"] == "system" for message in body["messages"])


OPENAI_LIMIT = {
    "message": "Unsupported parameter: max_tokens. Use max_completion_tokens.",
    "type": "invalid_request_error",
    "param": "max_tokens",
    "code": "unsupported_parameter",
}
FASTAPI_LIMIT = {
    "detail": [{"type": "extra_forbidden", "loc": ["body", "max_tokens"], "msg": "Extra inputs"}]
}
ONLY_ONE = {
    "message": "temperature 0.7 is not supported by this model, only 1 is.",
    "param": "temperature",
    "code": "unsupported_value",
}
XAI = {"code": "invalid argument", "error": "Argument not supported on this model: presencePenalty"}
NO_TOP_K = {"object": "error", "message": "Unrecognized request argument supplied: top_k", "code": 400}
NO_SYSTEM = {
    "object": "error",
    "message": "System role not supported",
    "type": "BadRequestError",
    "code": 400,
}


@pytest.mark.parametrize("reply", [refusal(400, {"error": OPENAI_LIMIT}), refusal(422, FASTAPI_LIMIT)])
def test_another_name_of_the_token_limit_is_learnt_once_and_frozen(project: Project, reply: Reply) -> None:
    with fake_endpoint(picky(lambda body: reply if "max_tokens" in body else None)) as endpoint:
        done = run(project, endpoint, *TUNE)
        assert done.code == 0, done.err
        assert sum("max_tokens" in body for body in endpoint.requests) == 1
        assert done.err.count("max_completion_tokens as token limit") == 1
        assert frozen(project)["model"]["dialect"] == {"token_limit": "max_completion_tokens"}
        played = run(project, endpoint, "inference.py", "best.toml")
        assert (played.code, played.requests) == (0, 4)
        assert "max_tokens" not in str(endpoint.requests[-4:])
        again = run(project, endpoint, *TUNE)
        assert (again.code, again.requests, frozen(project)["model"]["name"]) == (0, 0, "fake")


@pytest.mark.parametrize(
    ("reply", "name", "more"),
    [
        (refusal(400, {"error": ONLY_ONE}), "temperature", ""),
        (refusal(400, "this model has no parameter top_p"), "top_p", "top_p = [0.8, 0.9]"),
        (refusal(400, XAI), "presence_penalty", "presence_penalty = [0.25, 0.5]"),
        (refusal(400, NO_TOP_K), "top_k", "top_k = { low = 10, high = 40 }"),
    ],
)
def test_a_setting_that_the_endpoint_does_not_have_is_left_out_of_the_search(
    project: Project, reply: Reply, name: str, more: str
) -> None:
    project.write("experiments/known.toml", FREE.replace("{more}", more))
    with fake_endpoint(picky(lambda body: reply if name in body else None)) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
    assert done.code == 0, done.err
    assert sum(name in body for body in endpoint.requests) == 1
    assert f"This endpoint has no {name}, free in [space]. Searched is template" in done.err
    told = json.loads(done.out)
    assert told["model"]["dialect"] == {"omit": [name]}
    assert told["cost"]["calls"] == len(endpoint.requests) - 1
    assert told["failures"] == {}
    played = frozen(project)["candidate"]["sampling"]  # a value that was never sent is not claimed
    assert name not in NEUTRAL or played.get(name, NEUTRAL[name]) == NEUTRAL[name]


def test_one_refusal_among_good_answers_does_not_stop_the_study_with_its_baseline(project: Project) -> None:
    """A gateway under load refuses any request now and then: a candidate fails, the baseline tries again."""
    project.write("experiments/known.toml", EXPERIMENT)
    lock, first, refused = threading.Lock(), list[Body](), list[Body]()

    def once(body: Body) -> Reply | None:
        with lock:
            first.append(body)
            is_baseline = body["temperature"] == 0.7 and body["messages"][0] == first[0]["messages"][0]
            if len(first) < 12 or refused or not is_baseline:
                return None
            refused.append(body)
        return refusal(400, {"error": {"message": "Bad request."}})

    with fake_endpoint(picky(once)) as endpoint:
        done = run(project, endpoint, *TUNE)
    assert done.code == 0, done.err
    assert len(refused) == 1


OUT_OF_RANGE = [
    {"error": {"message": "temperature: must be between 0 and 0.8", "param": "temperature"}},
    {"detail": [{"loc": ["body", "temperature"], "msg": "Input should be less than or equal to 0.8"}]},
]


def test_the_whole_episodes_of_a_trial_that_failed_later_are_exported_with_its_name(project: Project) -> None:
    """The storyteller's two candidates lead, so both play on."""
    asked = Counter[float]()
    few = EXPERIMENT.replace("temperature = { low = 0.5, high = 1.0 }", "temperature = [0.6, 0.9]")
    project.write("experiments/known.toml", few)

    def refuses(body: Body) -> Reply | None:
        if "storyteller" not in str(body["messages"]):
            return None
        asked[body["temperature"]] += 1
        return refusal(400, OUT_OF_RANGE[0]) if asked[body["temperature"]] > 4 else None

    with fake_endpoint(picky(refuses)) as endpoint:
        assert run(project, endpoint, *TUNE).code == 0
        done = run(project, endpoint, "-m", "lab.export", "experiments/known.toml", "--episodes")
        ranked = run(project, endpoint, "-m", "lab.export", "experiments/known.toml")
    names = {row["trial"] for row in csv.DictReader(done.out.splitlines())}
    assert all(name == "baseline" or name.startswith("trial-") for name in names)
    assert names > {row["trial"] for row in csv.DictReader(ranked.out.splitlines())}


@pytest.mark.parametrize("said", OUT_OF_RANGE)
def test_a_value_that_is_out_of_range_fails_its_candidate_and_no_other(
    project: Project, said: object
) -> None:
    script = picky(lambda body: refusal(400, said) if body["temperature"] > 0.8 else None)
    with fake_endpoint(script) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
        assert done.code == 0, done.err
        assert "dialect" not in json.loads(done.out)["model"]
        assert list(json.loads(done.out)["failures"]) == ["The endpoint refused the request."]
        project.write("experiments/known.toml", EXPERIMENT.replace("temperature = 0.7", "temperature = 0.9"))
        ended = run(project, endpoint, *TUNE, "--fresh")
    assert ended.code == 3
    assert ended.requests <= 12
    assert "0.8" in ended.err


SYSTEM_REFUSALS = [
    refusal(400, NO_SYSTEM),
    refusal(400, {"detail": "Conversation roles must alternate user/assistant/user/assistant/..."}),
    refusal(500, {"object": "error", "message": "System role not supported"}),
    refusal(500, "Internal Server Error"),
]


@pytest.mark.parametrize("reply", SYSTEM_REFUSALS, ids=["400", "alternate", "500", "500 without a reason"])
def test_without_a_system_role_its_text_heads_the_first_user_message(project: Project, reply: Reply) -> None:
    with fake_endpoint(picky(lambda body: reply if system_of(body) else None)) as endpoint:
        done = run(project, endpoint, *TUNE)
        assert done.code == 0, done.err
        assert sum(map(system_of, endpoint.requests)) == 1
        assert done.err.count("system text in the first user message") == 1
        assert frozen(project)["candidate"]["template"]["name"] == "storyteller"
        doctor = run(replace(project, tracks=True), endpoint, "-m", "lab.doctor", "experiments/known.toml")
    assert doctor.code == 0, doctor.out
    assert re.search(r"^ok    dialect +.*system text in the first user message", doctor.out, re.MULTILINE)


def test_an_outage_is_not_mistaken_for_a_refusal(project: Project) -> None:
    """Every third request fails, whatever is in it."""
    numbers = iter(range(10_000))
    script = picky(lambda _: refusal(500, "Internal Server Error") if next(numbers) % 3 == 1 else None)
    with fake_endpoint(script) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
    assert done.code == 0, done.err
    assert "dialect" not in json.loads(done.out)["model"]


THOUGHT = {
    "prompt_tokens": 50,
    "completion_tokens": 150,
    "completion_tokens_details": {"reasoning_tokens": 150},
}
ONLY_THINKS = [
    completion(
        {"content": None, "reasoning_content": "Let me think about what would be best."}, "length", THOUGHT
    ),
    completion({"content": "<think>Let me think about what would be best."}, "length", THOUGHT),
    completion({"content": ""}, "length", THOUGHT),
]


@pytest.mark.parametrize("reply", ONLY_THINKS, ids=["field", "tag", "hidden"])
def test_a_model_that_only_thinks_stops_the_study_early_with_what_to_do(
    project: Project, reply: Reply
) -> None:
    with fake_endpoint(lambda _: reply) as endpoint:
        done = run(project, endpoint, *TUNE)
        assert done.code == 3
        assert done.requests <= 24 + 6
        assert "thinking" in done.err
        assert "max_tokens" in done.err
        assert "reasoning_effort" in done.err
        played = run(project, endpoint, *PLAY)
    assert (played.code, played.requests) == (0, 4)
    assert "150 of them thinking" in played.out
    assert "600 out (600 of them thinking)" in played.out


THINKING = "They want a greeting."
THINKS = [
    completion({"content": f"<think>{THINKING}</think>\nHello!"}, usage=USAGE),
    completion({"content": f"{THINKING}\n</think>\n\nHello!"}, usage=USAGE),
    completion({"content": "Hello!", "reasoning_content": THINKING}, usage=USAGE),
    completion({"content": "Hello!", "reasoning": THINKING}, usage=USAGE),
    completion(
        {"content": [{"type": "thinking", "thinking": THINKING}, {"type": "text", "text": "Hello!"}]},
        usage=USAGE,
    ),
]


@pytest.mark.parametrize(
    "reply", THINKS, ids=["tags", "no opening tag", "reasoning_content", "reasoning", "parts"]
)
def test_thinking_is_shown_and_is_never_the_action(project: Project, reply: Reply) -> None:
    with fake_endpoint(lambda _: reply) as endpoint:
        played = run(project, endpoint, *PLAY)
        submitted = run(project, endpoint, "inference.py")
    assert played.code == submitted.code == 0
    assert played.out.count(f"[thinking]\n{THINKING}\n[action]\nHello!\n") == 4
    assert "12 out (6 of them thinking)" in played.out
    assert submitted.out.count("action=Hello! ") == 8
    assert THINKING not in submitted.out


def test_an_answer_cut_off_in_thinking_without_a_tag_is_no_action_once_that_is_known(
    project: Project,
) -> None:
    whole = completion({"content": f"{THINKING}\n</think>\n\nHello!"}, usage=USAGE)
    cut = completion({"content": "They want a long greeting, so"}, "length", USAGE)
    replies = iter([whole, cut] * 4)
    with fake_endpoint(lambda _: next(replies)) as endpoint:
        played = run(project, endpoint, *PLAY)
    assert played.out.count("[action]\nHello!") == 2
    assert "[action]\nThey want" not in played.out
    assert "answers begin with thinking" in played.err


def limited(number: int, headers: dict[str, str], message: str) -> Script:
    """One request is refused for a rate limit."""
    asked, lock = [0], threading.Lock()

    def script(body: Body) -> Reply:
        with lock:
            asked[0] += 1
            if asked[0] == number:
                told = {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}}
                return Reply(status=429, headers=headers, body=json.dumps(told).encode())
        return truth(body)

    return script


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (
            {"Retry-After": "2"},
            "Rate limit reached. Try again in 2s. Need more? Upgrade at the billing page.",
        ),
        ({"retry-after-ms": "1500"}, "You exceeded your current quota, please check your plan and credits."),
        ({"x-ratelimit-reset-tokens": "1s500ms", "x-ratelimit-remaining-tokens": "0"}, "Slow down."),
    ],
)
def test_a_rate_limit_is_waited_for_whatever_its_message_mentions(
    project: Project, headers: dict[str, str], message: str
) -> None:
    with fake_endpoint(limited(20, headers, message)) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["failures"] == {"The endpoint is busy.": 1}
    assert told["cost"]["calls"] == len(endpoint.requests) - 1


USED_UP = [
    refusal(429, {"error": {"message": "You exceeded your quota.", "code": "insufficient_quota"}}),
    refusal(402, {"detail": "You exceeded your quota."}),
]


@pytest.mark.parametrize("reply", USED_UP)
def test_a_quota_that_is_used_up_ends_the_study(project: Project, reply: Reply) -> None:
    with fake_endpoint(lambda _: reply) as endpoint:
        done = run(project, endpoint, *TUNE)
    assert done.code == 3
    assert "You exceeded your quota." in done.err
    assert done.requests <= 6


FLAGGED = "The model requires moderation. Your input was flagged."
MODERATED = [
    refusal(403, {"error": {"code": 403, "message": FLAGGED, "metadata": {"reasons": ["violence"]}}}),
    refusal(403, {"detail": "Forbidden by the administrator's rules on violence"}),
]


@pytest.mark.parametrize("reply", MODERATED)
def test_a_prompt_that_is_moderated_fails_its_candidate_with_the_reason(
    project: Project, reply: Reply
) -> None:
    with fake_endpoint(
        picky(lambda body: reply if "professor" in str(body["messages"]) else None)
    ) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
        report = run(project, endpoint, "-m", "lab.report", "experiments/known.toml", "--out", "page.html")
    assert done.code == report.code == 0, done.err
    assert json.loads(done.out)["candidate"]["settings"]["template"] == "storyteller"
    assert sum("professor" in str(body["messages"]) for body in endpoint.requests) < 20


def only_below(path: str) -> Callable[[str], Reply | None]:
    """Answer 404 outside a path."""
    return lambda asked: None if asked.startswith(path) else refusal(404, {"detail": "Not Found"})


def test_an_address_without_v1_is_corrected_and_blanks_are_stripped(project: Project) -> None:
    with fake_endpoint(truth, route=only_below("/v1/")) as endpoint:
        done = run(project, endpoint, *PLAY, API_BASE_URL=endpoint.url.removesuffix("/v1"))
        assert (done.code, done.requests) == (0, 4), done.err
        assert done.err.count("/v1 added to the address") == 1
        assert run(project, endpoint, *PLAY, API_BASE_URL=f"{endpoint.url} ").code == 0


@pytest.mark.parametrize("body", [{"detail": "Not Found"}, "<html><title>404 Nothing here</title></html>"])
def test_a_wrong_address_is_not_reported_as_an_unknown_model(project: Project, body: object) -> None:
    with fake_endpoint(route=lambda _: refusal(404, body)) as endpoint:
        done = run(project, endpoint, *TUNE)
    assert done.code == 3
    assert "This is not the address of an OpenAI-compatible API." in done.err
    assert "does not have" not in done.err


def test_the_address_query_is_sent_with_each_call_and_the_key_in_azures_header(project: Project) -> None:
    path = "/openai/deployments/gpt/chat/completions?api-version=2024-06-01"
    with fake_endpoint(truth, route=only_below(path)) as endpoint:
        address = f"{endpoint.url.removesuffix('/v1')}/openai/deployments/gpt/?api-version=2024-06-01"
        done = run(project, endpoint, *TUNE, API_BASE_URL=address)
        assert done.code == 0, done.err
        assert all(head["api-key"] == KEY for head in endpoint.heads)
        assert frozen(project)["model"]["endpoint"] == address
        alone = run(project, endpoint, "inference.py", "best.toml", API_BASE_URL="", MODEL_NAME="")
        assert (alone.code, alone.requests) == (0, 4), alone.err


HEADERS = """
[model.headers]
X-Tenant = "seven"
api-key = "env:GATEWAY_KEY"
"""


def test_headers_are_sent_with_each_call_and_no_secret_is_written_to_a_file(project: Project) -> None:
    with fake_endpoint(truth) as endpoint:
        address = f"{endpoint.url}?tenant=7"
        text = EXPERIMENT.replace('"embedded"', f'"{address}"').replace(
            "[baseline]", f"{HEADERS}\n[baseline]"
        )
        project.write("experiments/known.toml", text)
        shell = {"API_BASE_URL": address, "GATEWAY_KEY": "of-the-gateway", "HF_TOKEN": ""}
        done = run(project, endpoint, *TUNE, **shell)
        assert done.code == 0, done.err
        assert run(project, endpoint, "inference.py", "best.toml", **shell).code == 0
        stranger = {**shell, "API_BASE_URL": ""}
        refused = run(project, endpoint, *PLAY, **stranger)
    assert {head["api-key"] for head in endpoint.heads} == {"of-the-gateway"}
    assert {head["x-tenant"] for head in endpoint.heads} == {"seven"}
    assert all(path.endswith("?tenant=7") for path in endpoint.paths)
    assert frozen(project)["model"]["headers"] == {"x-tenant": "seven", "api-key": "env:GATEWAY_KEY"}
    assert refused.code == 3
    assert "GATEWAY_KEY" in refused.err
    assert refused.requests == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('api-key = "sk-123"', 'write api-key = "env:VARIABLE"'),
        ('"a b" = "c"', "not a valid header"),
    ],
)
def test_a_key_in_the_experiment_file_is_refused(project: Project, line: str, told: str) -> None:
    text = EXPERIMENT.replace("[baseline]", f"[model.headers]\n{line}\n\n[baseline]")
    project.write("experiments/known.toml", text)
    done = project.run(*PLAY)
    assert done.returncode == 2
    assert told in done.stderr
    assert "sk-123" not in done.stderr


GRAMMAR = {"error": {"code": 500, "message": "Failed to parse grammar", "type": "server_error"}}


@pytest.mark.parametrize(
    "reply", [refusal(500, GRAMMAR), refusal(501, "oops"), refusal(400, {"error": "no."})]
)
def test_a_schema_that_is_refused_with_any_error_is_left_out(project: Project, reply: Reply) -> None:
    project.write("experiments/vault.py", VAULT)
    project.write("prompts/templates/guess.toml", GUESS)
    project.write("prompts/templates/reckon.toml", RECKON)
    text = VAULT_EXPERIMENT.format(place='python = "vault.py:Vault"', judge="mean")
    project.write("experiments/known.toml", text)

    def script(body: Body) -> Reply:
        return reply if "response_format" in body else Reply('{"way": "right", "clicks": 1}')

    with fake_endpoint(script) as endpoint:
        done = run(project, endpoint, *PLAY)
    assert done.code == 0, done.err
    assert sum("response_format" in body for body in endpoint.requests) == 1
    assert done.err.count("no schema") == 1
    assert done.requests > 2


ERRORS_INSIDE = [
    {
        "choices": [
            {
                "index": 0,
                "finish_reason": "error",
                "message": {"role": "assistant", "content": "The"},
                "error": {"code": 502, "message": "Provider returned error"},
            }
        ]
    },
    {"error": {"code": 502, "message": "Provider returned error"}},
]


@pytest.mark.parametrize("inside", ERRORS_INSIDE, ids=["choice", "body"])
def test_an_answer_that_is_an_error_is_a_failed_attempt_and_counts(project: Project, inside: object) -> None:
    numbers = iter(range(1, 10_000))
    lock = threading.Lock()

    def script(body: Body) -> Reply:
        with lock:
            number = next(numbers)
        return Reply(body=json.dumps(inside).encode()) if number % 10 == 0 else truth(body)

    with fake_endpoint(script) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert sum(told["failures"].values()) == len(endpoint.requests) // 10
    assert told["cost"]["calls"] == len(endpoint.requests)
    assert told["cost"]["prompt_tokens"] > 10 * (len(endpoint.requests) * 9 // 10)


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(("usage", "limit"), [(None, "tokens = 30000"), (ZERO, "dollars = 0.03")])
def test_tokens_that_are_not_reported_are_estimated_and_marked_and_the_budget_holds(
    project: Project, usage: object, limit: str
) -> None:
    text = WHOLE.replace("calls = 240", limit).replace("max_steps = 4", "max_steps = 2")
    text = text.replace('name = "fake"', 'name = "fake"\ndollars_in = 1.0\ndollars_out = 1.0')
    project.write("experiments/known.toml", text)
    with fake_endpoint(lambda _: completion({"content": "characteristically long"}, usage=usage)) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
        again = run(project, endpoint, *TUNE)
        played = run(project, endpoint, *PLAY)
        shown = run(project, endpoint, "-m", "lab.show", "best.toml")
    cost = json.loads(done.out)["cost"]
    assert cost["estimated_calls"] == cost["calls"] == done.requests
    assert cost["completion_tokens"] == 6 * cost["calls"]  # 23 characters each
    assert 15_000 < cost["prompt_tokens"] + cost["completion_tokens"] < 33_000
    assert " out (estimated)" in again.out
    assert "6 out (estimated)" in played.out
    assert frozen(project)["provenance"]["estimated_calls"] == cost["calls"]
    assert re.search(r"^ +tokens per episode \(estimated\) +\d", shown.out, re.MULTILINE)


PULL = "model m not found, pull it first"
HTML = "<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
SHAPES: dict[str, tuple[Reply, int, str, str]] = {
    "FastAPI": (
        refusal(422, {"detail": [{"loc": ["body", "prompt"], "msg": "Field required"}]}),
        *(3, "The endpoint refused the request.", "Field required (body.prompt)"),
    ),
    "TGI": (
        refusal(422, {"error": "inputs and max_new_tokens must be at most 4096"}),
        *(3, "do not fit into the model's context", "inputs and max_new_tokens must be at most 4096"),
    ),
    "Gemini": (
        refusal(400, [{"error": {"code": 400, "message": "API key not valid."}}]),
        *(3, "The endpoint refused the key.", "API key not valid."),
    ),
    "Ollama": (refusal(404, PULL), 3, "The endpoint does not have 'fake'.", PULL),
    "nginx": (refusal(502, HTML), 3, "The endpoint failed.", "502 Bad Gateway"),
    "a title": (refusal(409, {"title": "Conflict", "status": 409}), 3, "refused the request", "Conflict"),
    "nested": (
        refusal(400, {"error": {"metadata": {"raw": "too odd"}, "message": "Provider returned error"}}),
        *(3, "The endpoint refused the request.", "Provider returned error (too odd)"),
    ),
    "Portkey": (
        refusal(500, {"html-message": "fetch failed Cause: connect ECONNREFUSED"}),
        *(3, "The endpoint failed.", '{"html-message": "fetch failed Cause: connect ECONNREFUSED"}'),
    ),
    "LiteLLM's model": (
        refusal(400, {"error": {"message": "Invalid model name passed in model=fake.", "code": "400"}}),
        *(3, "The endpoint does not have 'fake'.", "Invalid model name passed in model=fake."),
    ),
    "LiteLLM's key": (
        refusal(400, {"error": {"message": "No connected db.", "type": "no_db_connection", "code": "400"}}),
        *(3, "The endpoint refused the key.", "No connected db."),
    ),
    "errors": (refusal(400, {"errors": [{"message": "one"}, {"message": "two"}]}), 3, "refused", "one two"),
    "empty": (refusal(413, ""), 3, "The endpoint refused the request.", "status 413"),
}


@pytest.mark.parametrize(("reply", "code", "what", "why"), SHAPES.values(), ids=SHAPES)
def test_the_endpoints_own_message_is_shown_whatever_the_shape_of_its_error(
    project: Project, reply: Reply, code: int, what: str, why: str
) -> None:
    text = EXPERIMENT.replace('name = "fake"', 'name = "fake"\nattempts = 1')
    project.write("experiments/known.toml", text)
    with fake_endpoint(lambda _: reply) as endpoint:
        done = run(project, endpoint, *PLAY)
    assert done.code == code
    assert what in done.err
    assert f"  why: {why}\n" in done.err
    assert len(done.err.splitlines()) <= 4


def test_an_address_that_lists_the_model_and_has_no_chat_completions_is_no_address(project: Project) -> None:
    listed = Reply(body=b'{"data": [{"id": "fake"}]}')
    with fake_endpoint(lambda _: refusal(404, {"detail": "Not Found"}), models=listed) as endpoint:
        done = run(project, endpoint, *PLAY)
    assert done.code == 3
    assert "The endpoint lists 'fake', but has no chat completions." in done.err
    assert "try: set API_BASE_URL to the root of an OpenAI-compatible API" in done.err


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        (["repetition_penalty"], "warn  settings     repetition_penalty changed no answer"),
        (["top_k", "presence_penalty"], "warn  settings     top_k, presence_penalty changed no answer"),
        (["top_p"], "warn  settings     top_p changed no answer"),
        (["temperature"], "warn  settings     temperature, top_p, top_k changed no answer"),
        ([], None),
    ],
)
def test_the_doctor_warns_of_settings_that_a_server_drops_without_a_word(
    project: Project, dropped: list[str], said: str | None
) -> None:
    free = (
        *("top_p = [0.8, 1.0]", "top_k = [5, 40]"),
        *("presence_penalty = [0.5, 1.0]", "repetition_penalty = [1.1, 1.2]"),
    )
    project.write("experiments/known.toml", FREE.replace("{more}", "\n".join(free)))
    numbers = iter(range(1, 10_000))

    def obeying(body: Body) -> Reply | None:
        if "story" not in body["messages"][-1]["content"]:
            return None
        sent = {name: value for name, value in body.items() if name not in dropped}
        warm = sent.get("temperature", 0) > 0 and sent.get("top_k") != 1 and sent.get("top_p", 1) > 0.1
        penalties = sorted(name for name in sent if name.endswith("penalty"))
        return Reply(f"A fox, a crow, {next(numbers) if warm else 0} {penalties}")

    with fake_endpoint(picky(obeying)) as endpoint:
        done = run(replace(project, tracks=True), endpoint, "-m", "lab.doctor", "experiments/known.toml")
    assert done.code == 0, done.out
    assert (said in done.out) if said else ("settings" not in done.out)


def test_the_doctor_does_not_call_a_setting_dropped_where_no_answer_comes_twice(project: Project) -> None:
    free = ("top_p = [0.8, 1.0]", "top_k = [5, 40]")
    project.write("experiments/known.toml", FREE.replace("{more}", "\n".join(free)))
    numbers = iter(range(1, 10_000))

    def unsteady(body: Body) -> Reply | None:
        asked = "story" in body["messages"][-1]["content"]
        return Reply(f"A fox, a crow, {next(numbers)}") if asked else None

    with fake_endpoint(picky(unsteady)) as endpoint:
        done = run(replace(project, tracks=True), endpoint, "-m", "lab.doctor", "experiments/known.toml")
    assert done.code == 0, done.out
    assert "settings" not in done.out


PROPOSALS = """
[proposals]
proposer = "gepa"
texts = 2
"""


@pytest.mark.parametrize("reply", ONLY_THINKS[:2], ids=["field", "tag"])
def test_a_proposer_that_only_thinks_costs_its_texts_and_says_why(project: Project, reply: Reply) -> None:
    project.write("experiments/known.toml", EXPERIMENT + PROPOSALS)
    with fake_endpoint(lambda body: reply if body["model"] == "thinker" else truth(body)) as endpoint:
        done = run(project, endpoint, *TUNE, PROPOSER_MODEL_NAME="thinker")
        proposed = [body for body in endpoint.requests if body["model"] == "thinker"]
        assert len(proposed) == 2
        assert {body["max_tokens"] for body in proposed} == {4000}
        effort = PROPOSALS + 'max_tokens = 9000\nreasoning_effort = "low"\n'
        project.write("experiments/known.toml", EXPERIMENT + effort)
        run(project, endpoint, *TUNE, "--fresh", PROPOSER_MODEL_NAME="thinker")
    assert done.code == 0, done.err
    assert done.err.count("refused: A proposed text is missing. all 4000 tokens went to thinking") == 2
    assert [endpoint.requests[-1].get("reasoning_effort")] != ["low"]
    later = [body for body in endpoint.requests if body["model"] == "thinker"][2:]
    assert {(body["max_tokens"], body["reasoning_effort"]) for body in later} == {(9000, "low")}


def test_a_study_on_an_endpoint_with_all_of_these_quirks_has_the_same_winner(project: Project) -> None:
    """No max_tokens, no system role, thinking tags, no usage, rate limits, a moderated prompt."""
    project = replace(project, tracks=True)
    project.write("experiments/known.toml", WHOLE.replace("traces = 0", "traces = 1"))
    asked, again, lock = [0], list[int](), threading.Lock()

    def strange(body: Body) -> Reply:
        with lock:
            asked[0] += 1
            number = asked[0]
        reply = odd_reply(body, number)
        if reply.status in (400, 429):  # the same call is made again
            again.append(number)
        return reply

    def odd_reply(body: Body, number: int) -> Reply:
        if number % 60 == 0:
            return Reply(status=429, headers={"retry-after-ms": "100"})
        if "max_tokens" in body:
            return refusal(400, {"error": OPENAI_LIMIT})
        if system_of(body):
            return refusal(400, NO_SYSTEM)
        if "professor" in str(body["messages"]):
            return MODERATED[0]
        said = truth(body).text
        return completion({"content": f"<think>Well.</think>{said}"})

    with fake_endpoint(truth) as endpoint:
        plain = run(project, endpoint, *TUNE, "--json")
    with fake_endpoint(strange) as endpoint:
        odd = run(project, endpoint, *TUNE, "--json", "--fresh")
    assert plain.code == odd.code == 0, odd.err
    one, other = json.loads(plain.out), json.loads(odd.out)
    assert (
        one["candidate"]["settings"]["template"]
        == other["candidate"]["settings"]["template"]
        == "storyteller"
    )
    assert len(again) <= odd.requests * 0.05
    assert other["cost"]["thinking_tokens"] > 0
    client = MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "known"]
    traces = client.search_traces(locations=[experiment.experiment_id], max_results=200)
    calls = [span for trace in traces for span in trace.data.spans if span.name == "model"]
    said = [span.outputs["choices"][0]["message"] for span in calls]
    assert {message.get("reasoning_content") for message in said} == {None, "Well."}
    assert not any("Well." in message["content"] for message in said)
