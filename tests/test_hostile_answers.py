"""Whatever an endpoint sends, a call ends: bounded in memory and time, counted, with a clear error."""

import asyncio
import gzip
import json
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from lab.environments.action import ActionError, ActionForm
from lab.errors import BudgetError, CallError, LabError, RequestError
from lab.experiment.budget import FREE, Budget, Prices, Spending
from lab.experiment.metered import Metered
from lab.llm.client import Completion, Endpoint, EndpointConfig, Message
from lab.llm.response import MOST_TOKENS, read_answer
from lab.llm.sampling import SamplingParams
from lab.llm.throttle import Patience
from lab.storage.database import Store, calls
from lab.storage.keys import CallKey
from lab.storage.record import Record
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.test_endpoint import ask, failure
from tests.test_tune import EXPERIMENT

HUGE = 300_000_000
"""Bytes of a useless body."""

MOST_MB = 250
"""Maximum memory of a process, half of which is Python with the client."""

DEEP = "[" * 100_000


def with_usage(usage: object, **choice: object) -> bytes:
    whole = {"finish_reason": "stop", "message": {"content": "fine"}, **choice}
    return json.dumps({"choices": [whole], "usage": usage}).encode()


def bomb() -> bytes:
    """About 300 kB that unpack to `HUGE`."""
    packed, spaces = zlib.compressobj(wbits=31), b" " * 1_000_000
    return b"".join(packed.compress(spaces) for _ in range(HUGE // len(spaces))) + packed.flush()


ASKING = """
import asyncio, pathlib, re, resource, sys
from lab.llm.sampling import SamplingParams
from lab.llm.client import Endpoint, EndpointConfig, Message
from lab.llm.throttle import Patience

async def main():
    patience = Patience(timeout_s=60, attempts=1, whole_s=0.1)
    async with Endpoint(EndpointConfig(sys.argv[1], "m", "k", patience)) as endpoint:
        for _ in range(int(sys.argv[2])):
            try:
                await endpoint.complete([Message("user", "hello")], SamplingParams())
            except Exception as error:
                print(type(error).__name__, error.what)

asyncio.run(main())
# getrusage also has what was the parent's before the interpreter began
status = pathlib.Path("/proc/self/status")
peak = re.search(r"VmHWM:\\s*(\\d+)", status.read_text()) if status.exists() else None
print(int(peak[1] if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // 1024)
"""


def test_a_huge_body_takes_little_memory_whatever_its_status() -> None:
    """An error, a packed error and a packed answer, a redirect, an answer, and the list of models."""
    page, packed = Reply(body=b" " * 1_000_000, times=HUGE // 1_000_000), bomb()
    replies = [
        Reply(status=500, body=page.body, times=page.times),
        Reply(status=500, body=packed, headers={"Content-Encoding": "gzip"}),
        Reply(body=packed, headers={"Content-Encoding": "gzip"}),
        Reply(status=307, body=page.body, times=page.times, headers={"Location": "/v1/chat/completions"}),
        page,
        Reply(status=404),
    ]
    script = iter(replies)
    with fake_endpoint(lambda _: next(script), models=page) as endpoint:
        # One call fewer than replies: the redirect leads to the next.
        asking = [sys.executable, "-c", ASKING, endpoint.url, str(len(replies) - 1)]
        done = subprocess.run(asking, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    *outcomes, peak_mb = done.stdout.splitlines()
    assert outcomes == [
        "EndpointError The endpoint did not answer the only attempt. The endpoint failed.",
        "EndpointError The endpoint did not answer the only attempt. The endpoint failed.",
        "CallError The model's answer is too long.",
        "CallError The model's answer is too long.",
        "EndpointError This is not the address of an OpenAI-compatible API.",
    ]
    assert int(peak_mb) < MOST_MB


def test_no_compressed_answer_is_requested() -> None:
    with fake_endpoint() as endpoint:
        ask(endpoint.url)
    assert endpoint.heads[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=DEEP.encode()),
        Reply(body=b'{"choices": ' + DEEP.encode()),
        Reply(body=b'{"choices": [], "error": ' + b"[" * 900 + b"]" * 900 + b"}"),
        Reply(status=500, body=DEEP.encode()),
        Reply(status=500, body=b'{"error": {"code": ' + b"[" * 900 + b"]" * 900 + b"}}"),
        Reply(status=400, body=b'{"error": {"message": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}}"),
        Reply(status=404, body=DEEP.encode()),
    ],
)
def test_an_answer_nested_too_deeply_is_a_failed_call(reply: Reply) -> None:
    with fake_endpoint(lambda _: reply, models=Reply(body=DEEP.encode())) as endpoint:
        error = failure(endpoint.url, Patience(attempts=1, whole_s=0.1))
    assert error.exit_code == 3
    assert len(str(error).splitlines()) <= 4


def test_an_error_text_of_only_addresses_is_reported_quickly() -> None:
    """The search for passwords in a long text took minutes."""
    with fake_endpoint(lambda _: Reply(status=400, body=b"a://" * 100_000)) as endpoint:
        error = failure(endpoint.url, Patience(timeout_s=5, attempts=1))
    assert isinstance(error, RequestError)


@pytest.mark.parametrize(
    "number", [2**63, 2**62, 10**400, -1, 12.5, "12", True, [1], {"a": 1}, None, MOST_TOKENS + 1]
)
def test_an_invalid_number_of_tokens_counts_as_not_reported(number: object) -> None:
    answer = read_answer(with_usage({"prompt_tokens": number, "completion_tokens": 7}), "here")
    assert (answer.prompt_tokens, answer.completion_tokens) == (0, 7)


def test_a_reason_with_unencodable_characters_is_stored_as_text(tmp_path: Path) -> None:
    told = read_answer(with_usage({}, finish_reason="\ud800\x00\x1b[2J" + "x" * 10_000), "here")
    store = Store(tmp_path / "calls.db")
    study = store.begin("test", "")
    record = Record(store, study, "")
    completion = Completion(told.text, told.finish_reason, 1, 1, 0.1)
    asyncio.run(record.keep_call(CallKey("scope", "key", 0), "request", completion))
    assert record.calls_of("scope") == {CallKey("scope", "key", 0): completion}
    assert completion.finish_reason.isprintable()
    assert len(completion.finish_reason) <= 100


def test_a_record_with_damaged_numbers_is_read_all_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path / "calls.db")
    study = store.begin("test", "")
    row = {"study": study, "scope": "s", "at": 0.0, "worker": "before", "request": "", "text": "hello"}
    row |= {"finish_reason": "stop", "latency_s": 0.1, "attempts": 1, "completion_tokens": 5}
    for number, tokens in enumerate((2**62, 2**62, -(2**62), 10)):
        store.insert(calls, {**row, "key": "k", "occurrence": number, "prompt_tokens": tokens})
    record = Record(store, study, "")
    spent = record.spent_elsewhere(FREE, proposals=False)
    assert (spent.calls, spent.prompt_tokens, spent.completion_tokens) == (4, 10, 20)
    assert sorted(call.prompt_tokens for call in record.calls_of("s").values()) == [0, 0, 0, 10]


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"message": {"content": None, "reasoning_content": "Let me think."}, "finish_reason": "length"}, ""),
        ({"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}, ""),
        ({"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}, ""),
        ({"message": {"role": "assistant"}, "finish_reason": "stop"}, ""),
        ({"message": {"content": []}, "finish_reason": "stop"}, ""),
    ],
)
def test_an_answer_without_content_is_empty_and_is_requested_once(
    choice: dict[str, object], text: str
) -> None:
    answered = with_usage({"prompt_tokens": 50, "completion_tokens": 150}, **choice)
    with fake_endpoint(lambda _: Reply(body=answered)) as endpoint:
        (outcome,) = ask(endpoint.url, Patience())
    assert isinstance(outcome, Completion)
    assert (outcome.text, outcome.prompt_tokens, outcome.completion_tokens) == (text, 50, 150)
    assert len(endpoint.requests) == 1


def metered(script: Callable[[Body], Reply], budget: Budget, times: int, schema: str = "") -> Spending:
    """The spending of concurrent calls, each of which may fail."""
    spending = Spending(budget)

    async def main(url: str) -> None:
        patience = Patience(attempts=10, whole_s=2.0)
        async with Endpoint(EndpointConfig(url, "m", "k", patience)) as endpoint:
            model = Metered(endpoint, spending, Prices(1.0, 1.0))
            model.watch(endpoint.throttle, lambda _: None)
            asked = (model.complete([Message("user", "?")], SamplingParams(), schema) for _ in range(times))
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(outcome, Completion | CallError | BudgetError), outcome

    with fake_endpoint(script) as endpoint:
        asyncio.run(main(endpoint.url))
    assert spending.calls == len(endpoint.requests)
    assert spending.in_flight == 0
    return spending


USELESS = with_usage({"prompt_tokens": 9, "completion_tokens": 3}, message=None)


@pytest.mark.parametrize("reply", [Reply(body=USELESS), Reply(body=b"<html>busy</html>")])
def test_an_answer_of_no_use_counts_and_no_limit_of_calls_is_passed(reply: Reply) -> None:
    spending = metered(lambda _: reply, Budget(calls=20), 12)
    assert spending.calls <= 20
    tokens = 12 if reply.body == USELESS else 1  # an estimate
    assert spending.tokens == spending.calls * tokens


def test_a_limit_of_tokens_ends_the_attempts_of_a_call() -> None:
    spending = metered(lambda _: Reply(body=USELESS), Budget(tokens=30), 1)
    assert spending.calls == 3


@pytest.mark.parametrize("schema", ["", '{"type": "object"}'])
def test_an_answer_that_a_filter_withheld_counts_and_is_requested_once(schema: str) -> None:
    withheld = with_usage({"prompt_tokens": 9}, message={"content": ""}, finish_reason="content_filter")
    spending = metered(lambda _: Reply(body=withheld), Budget(), 1, schema)
    assert (spending.calls, spending.prompt_tokens) == (1, 9)


def test_attempts_that_were_not_answered_do_not_count() -> None:
    replies = iter([Reply(status=500), Reply(status=429), Reply()])
    spending = Spending(Budget(calls=1))

    async def main(url: str) -> None:
        async with Endpoint(EndpointConfig(url, "m", "k", Patience())) as endpoint:
            model = Metered(endpoint, spending, FREE)
            model.watch(endpoint.throttle, lambda _: None)
            await model.complete([Message("user", "?")], SamplingParams())

    with fake_endpoint(lambda _: next(replies)) as endpoint:
        asyncio.run(main(endpoint.url))
    assert spending.calls == 1


def test_the_cost_of_unusable_answers_is_kept_for_a_resumed_study(tmp_path: Path) -> None:
    store = Store(tmp_path / "calls.db")
    study = store.begin("test", "")
    before = Record(store, study, "")
    answered = CallError("The model's answer has no text.")
    answered.answered = (40, 2)
    for error in (answered, CallError("It broke off."), LabError("It failed.")):
        before.keep_failure(error)
    before.keep_failure(answered, proposals=True)
    after = Record(store, study, "")
    for proposals in (False, True):
        spent = after.spent_elsewhere(Prices(1e6, 1e6), proposals=proposals)
        assert (spent.calls, spent.prompt_tokens, spent.completion_tokens, spent.dollars) == (1, 40, 2, 42.0)
    assert before.spent_elsewhere(FREE, proposals=False).calls == 0
    assert after.failures()["The model's answer has no text."] == 2


HOSTILE = [
    Reply(body=DEEP.encode()),
    Reply(body=with_usage({"prompt_tokens": 2**63, "completion_tokens": 2**62})),
    Reply(body=with_usage({"prompt_tokens": 9, "completion_tokens": 3}, message=None)),
    Reply(body=with_usage({}, finish_reason="\ud800")),
    Reply(body=with_usage({"prompt_tokens": 50}, message={"content": None}, finish_reason="length")),
    Reply(status=500, body=DEEP.encode()),
    Reply(body=gzip.compress(with_usage({})), headers={"Content-Encoding": "gzip"}),
]


def test_a_study_at_a_hostile_endpoint_ends_and_counts_all_that_was_answered(tmp_path: Path) -> None:
    """Its replay from the record does so as well. The endpoint recovers at the end."""
    project = Project.make(tmp_path / "project").untracked
    project.write("experiments/known.toml", EXPERIMENT)
    numbers, lock, statuses = count(), threading.Lock(), Counter[int]()

    def reply(body: Body, number: int) -> Reply:
        if number > 160:
            return Reply("x" * 200)
        if "professor" in json.dumps(body) and number % 2:
            return Reply(status=400, message="no \ud800 such prompt \x00")
        return HOSTILE[number // 4 % len(HOSTILE)] if number % 4 == 0 else Reply("x" * 200)

    def script(body: Body) -> Reply:
        with lock:
            sent = reply(body, next(numbers))
            statuses[sent.status] += 1
        return sent

    with fake_endpoint(script) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "canary-key"}
        command = ("-m", "lab.tune", "experiments/known.toml", "--json", "--quiet")
        done, again = (project.run(*command, **settings) for _ in range(2))
    for told in (done, again):
        assert told.returncode == 0, told.stderr
        cost = json.loads(told.stdout)["cost"]
        assert cost["calls"] == statuses[200] <= 300
        assert cost["prompt_tokens"] < 1_000_000
    assert statuses[400]
    assert statuses[500]


TREE = {
    "type": "object",
    "properties": {"kind": {"type": "string"}, "child": {"$ref": "#/$defs/node"}},
    "required": ["kind"],
    "$defs": {"node": {"type": "object", "properties": {"child": {"$ref": "#/$defs/node"}}}},
}


@pytest.mark.parametrize("levels", [101, 900, 100_000])
def test_an_action_nested_too_deeply_is_no_action(levels: int) -> None:
    text = '{"kind": "a", "child": ' + '{"child": ' * levels + "{}" + "}" * levels + "}"
    with pytest.raises(ActionError, match="not a valid action"):
        ActionForm(TREE).read(text)
    hooked = ActionForm(TREE, parse=lambda text, _: {"kind": "a", "child": json.loads(text)})
    with pytest.raises(ActionError, match="not a valid action"):
        hooked.read(text)


@pytest.mark.parametrize("text", ["{ a b c, " * 100_000, '{"a" /* ' * 100_000, "{" * 1_000])
def test_a_broken_answer_that_would_take_minutes_to_repair_is_no_action(text: str) -> None:
    with pytest.raises(ActionError, match="too long to be repaired"):
        ActionForm(TREE).read(text)
