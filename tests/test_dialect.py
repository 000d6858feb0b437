"""Dialects, refusals, thinking and settings as values: each is read from text, and tables read back equal."""

import asyncio
import json
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agent.candidate import Candidate
from lab.agent.template import PromptTemplate
from lab.display.diff import differing
from lab.errors import ConfigError
from lab.experiment.space import read_space
from lab.llm.client import Completion, Message
from lab.llm.dialect import OPENAI, Dialect, SchemaForm, SystemPlace, Thinking, TokenLimit, learnt
from lab.llm.failures import retry_after_s
from lab.llm.refusal import LONGEST, read_refusal
from lab.llm.request import Request
from lab.llm.sampling import SamplingParams, Setting
from lab.llm.thinking import split
from lab.storage.database import Store
from lab.storage.keys import CallKey
from lab.storage.record import Record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "msg", "loc", "code", "param", "metadata", "raw"]),
            inner,
        )
    ),
)

dialects = st.builds(
    Dialect,
    st.sampled_from(get_args(TokenLimit)),
    st.sampled_from(get_args(SystemPlace)),
    st.booleans(),
    st.sampled_from(get_args(SchemaForm)),
    st.lists(st.sampled_from(["temperature", "top_k", "extra.a"]), unique=True).map(tuple),
    st.sampled_from(get_args(Thinking)),
    st.sampled_from(["", "/v1", "/api/v1"]),
)

messages = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(min_size=1)), min_size=1
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), dialects)
def test_any_error_is_one_line_and_leads_to_another_dialect_or_none(data: bytes, dialect: Dialect) -> None:
    refusal = read_refusal(400, data)
    assert len(refusal.message) <= LONGEST + 4
    assert len(refusal.message.splitlines()) <= 1
    features = Request([Message("system", "a"), Message("user", "b")], SamplingParams(top_k=3)).features(
        dialect
    )
    assert learnt(dialect, features, refusal, ()) != dialect


@given(dialects)
def test_a_dialect_is_read_back_from_its_table(dialect: Dialect) -> None:
    assert Dialect.from_table(json.loads(json.dumps(dialect.as_table()))) == dialect
    assert (dialect.as_table() == {}) is (dialect == OPENAI)


@pytest.mark.parametrize(
    "table",
    [
        {"token_limit": "tokens"},
        {"system": True},
        {"alternate": "yes"},
        {"omit": "temperature"},
        {"path": "https://elsewhere.example"},
        {"limit": "max_tokens"},
    ],
)
def test_an_invalid_dialect_is_refused_with_its_key(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Dialect.from_table(table)
    assert next(iter(table)) in caught.value.where


@given(messages, dialects)
def test_a_dialect_loses_no_text_and_its_roles_are_kept(asked: list[Message], dialect: Dialect) -> None:
    body = Request(asked, SamplingParams()).body(dialect)
    sent: Any = body["messages"]
    roles = [message["role"] for message in sent]
    whole = "\n\n".join(message["content"] for message in sent)
    assert all(message.content in whole for message in asked)
    assert dialect.system == "system" or "system" not in roles
    assert not dialect.alternate or all(one != other for one, other in pairwise(roles))


@given(st.text(alphabet="ab \n<>/"), st.text(alphabet="ab \n<>/"), st.booleans())
def test_text_between_tags_is_thinking_and_the_rest_is_not(thought: str, said: str, cut_off: bool) -> None:
    assert split(said, cut_off=cut_off, unopened=False) == (said, "", False)
    for opening in ("<think>", ""):
        text = f"{opening}{thought}</think>{said}"
        assert split(text, cut_off=cut_off, unopened=False) == (said.strip(), thought.strip(), opening == "")
    assert split(f"{said}<think>{thought}", cut_off=cut_off, unopened=False)[0] == ""


values = st.recursive(
    st.text() | st.integers(-10, 10) | st.booleans(),
    lambda one: st.lists(one) | st.dictionaries(st.text(), one),
)
samplings = st.builds(
    SamplingParams,
    stop=st.lists(st.text(min_size=1), max_size=4).map(tuple),
    top_k=st.integers(0, 100),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    reasoning_effort=st.sampled_from(["", "low", "none"]),
    seed=st.integers(-1, 9),
    extra=st.dictionaries(st.sampled_from(["top_a", "b.c", "chat"]), values),
)


@given(samplings)
def test_settings_are_read_back_from_tables_and_from_a_searchs_parameters(sampling: SamplingParams) -> None:
    assert SamplingParams.of(sampling.settings) == sampling
    assert SamplingParams(**json.loads(json.dumps(sampling.as_table()))) == sampling
    sent = sampling.sent
    assert all(f"extra.{name}" in sent for name, _ in sampling.extra)
    assert ("top_k" in sent) is (sampling.top_k != 0)


@pytest.mark.parametrize("name", ["messages", "stream", "temperature"])
def test_an_extra_parameter_that_the_lab_sends_itself_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"extra.{name}"):
        SamplingParams(extra={name: 1})  # type: ignore[arg-type]


TEMPLATE = PromptTemplate("t", "Be long.", "{observation}")


def test_the_space_has_lists_of_stop_and_parameters_that_the_lab_does_not_know() -> None:
    baseline = Candidate(TEMPLATE, SamplingParams(extra={"top_a": 0.1, "chat": {"think": True}}))  # type: ignore[arg-type]
    table = {
        "stop": [[], ["\n"]],
        "top_k": {"low": 1, "high": 40},
        "reasoning_effort": ["", "low"],
        "extra": {"top_a": {"low": 0.1, "high": 0.5}, "chat": [{"think": True}, {"think": False}]},
    }
    space = read_space(table, baseline, lambda _: TEMPLATE)
    params: dict[str, Setting] = {"stop": '["\\n"]', "top_k": 3, "reasoning_effort": "low"}
    candidate = space.candidate({**params, "extra.top_a": 0.25, "extra.chat": '{"think": false}'})
    assert candidate.sampling.sent == {
        "temperature": 0.7,
        "max_tokens": 150,
        "stop": ("\n",),
        "top_k": 3,
        "reasoning_effort": "low",
        "extra.chat": {"think": False},
        "extra.top_a": 0.25,
    }
    assert space.params(candidate) is not None
    assert space.params(baseline) is None  # its top_k is below the range
    fixed = space.without(["top_k", "extra.chat"])
    assert fixed.start.settings["top_k"] == 1
    assert fixed.free.keys() == {"stop", "reasoning_effort", "extra.top_a"}


def test_a_parameter_that_only_one_candidate_has_is_a_difference() -> None:
    candidate, baseline = Candidate(TEMPLATE, SamplingParams(extra={"top_a": 0.1})), Candidate(TEMPLATE)  # type: ignore[arg-type]
    assert differing(candidate, baseline) == {"extra.top_a": (0.1, "")}
    assert differing(baseline, candidate) == {"extra.top_a": ("", 0.1)}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"extra": {"new": [1, 2]}}, "set baseline.extra.new"),
        ({"stop": "\n"}, "for stop, of lists"),
        ({"top_k": {"low": -5, "high": 3}}, "from 0 to"),
        ({"reasoning_effort": {"low": 1, "high": 2}}, "use a"),
    ],
)
def test_a_setting_that_cannot_be_searched_says_what_to_do(table: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_space(table, Candidate(TEMPLATE), lambda _: TEMPLATE)
    assert told in caught.value.do


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "120ms", "x-ratelimit-remaining-tokens": "0"}, 0.12),
        ({"x-ratelimit-reset-tokens": "120ms", "x-ratelimit-remaining-tokens": "7"}, 0.0),
        ({"x-ratelimit-reset": "1700000005"}, 5.0),
        ({"x-ratelimit-reset": "1700000005000", "x-ratelimit-remaining": "0"}, 5.0),
        ({"x-ratelimit-reset": "soon"}, 0.0),
    ],
)
def test_the_wait_is_read_from_other_headers(headers: dict[str, str], wait_s: float) -> None:
    assert retry_after_s(headers, 1_700_000_000.0) == pytest.approx(wait_s)


def test_a_record_of_an_earlier_version_takes_calls_with_thinking(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    Store(path).close()
    with sqlite3.connect(path) as old:
        for column in ("thinking", "thinking_tokens", "estimated"):
            old.execute(f"ALTER TABLE calls DROP COLUMN {column}")
    store = Store(path)
    record = Record(store, store.begin("known", ""), "")
    key, said = CallKey("scope", "k", 0), Completion("text", "stop", 1, 2, 0.5, 1, "Hm.", 1, True)
    asyncio.run(record.keep_call(key, "{}", said))
    assert record.calls_of("scope") == {key: said}
    store.close()
