"""Actions from answers, and text from observations: any text is an action or an error with a reason."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.agent.agent import FALLBACK_ACTION, Agent
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode, Start
from lab.agent.messages import ASK, ASK_WORD, chat
from lab.agent.rollout import play
from lab.agent.step import Step
from lab.agent.task import Setup, Task
from lab.agent.template import PromptTemplate
from lab.environments.action import Action, ActionError, ActionForm, words_asked
from lab.environments.observation import Observed, View, result_of
from lab.errors import ConfigError, EnvError
from lab.llm.client import Completion, Endpoint, EndpointConfig, Message
from lab.llm.sampling import SamplingParams
from tests.fake_endpoint import Body, Reply, fake_endpoint

MOVE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "metadata": {"type": "object"},
        "kind": {"const": "move"},
        "way": {"type": "string", "enum": ["left", "right"], "title": "Way"},
        "clicks": {"type": "integer", "minimum": 1},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    },
    "required": ["way", "clicks"],
}
SAY = {"properties": {"metadata": {"type": "object"}, "text": {"type": "string"}}, "required": ["text"]}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
MOVES = st.fixed_dictionaries(
    {"way": st.sampled_from(["left", "right"]), "clicks": st.integers(1, 1000)},
    optional={"note": st.none() | st.text(st.characters(exclude_categories=["Cs"]))},
)


@given(st.text() | JSON.map(json.dumps) | MOVES.map(str))
@settings(deadline=None)
def test_any_text_is_a_valid_action_or_an_error_with_a_reason(text: str) -> None:
    try:
        action = ActionForm(MOVE).read(text)
    except ActionError as error:
        why = error.why
    else:
        assert_is_a_move(action)
        return
    assert 0 < len(why) < 400


def assert_is_a_move(action: Action) -> None:
    assert action.values["kind"] == "move"
    assert action.values["way"] in ("left", "right")
    assert action.values["clicks"] >= 1
    assert json.loads(action.shown).items() <= action.values.items()
    json.dumps(action.values, allow_nan=False).encode()


@given(MOVES, st.sampled_from(["{}", "I say:\n```json\n{}\n```\nDone.", "first {{}}, no: {}", "  {}\n"]))
@example({"way": "left", "clicks": 1, "note": "\\\x1f"}, "first {{}}, no: {}")  # a repair changes it
@settings(deadline=None)
def test_a_right_answer_is_read_wherever_it_stands(move: dict[str, Any], around: str) -> None:
    text = around.replace("{{}}", '{"way": "left", "clicks": 1}').replace("{}", json.dumps(move))
    assert ActionForm(MOVE).read(text).values == {**move, "kind": "move"}


@given(st.text())
def test_an_action_of_one_text_is_the_answer_as_it_is(text: str) -> None:
    form = ActionForm(SAY)
    assert form.read(text).values == {"text": text}
    assert form.asked == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("I would go left", "no JSON object"),
        ('{"way": "up", "clicks": 1}', "way: 'up' is not one of ['left', 'right']"),
        ('{"way": "left"}', "'clicks' is a required property"),
        ('{"way": "left", "clicks": 0}', "clicks: 0 is less than the minimum of 1"),
        ('{"way": "left", "clicks": 1, "speed": 3}', "'speed' was unexpected"),
        ("[" * 5000 + "{", "cannot be read"),
    ],
)
def test_an_invalid_action_has_a_reason(text: str, told: str) -> None:
    with pytest.raises(ActionError) as caught:
        ActionForm(MOVE).read(text)
    assert told in caught.value.why


def test_a_schema_with_a_remote_reference_is_not_followed() -> None:
    with fake_endpoint() as elsewhere:  # it answers a GET with JSON, which would do as a schema
        form = ActionForm({"properties": {"a": {"$ref": elsewhere.url}, "b": {"type": "string"}}})
        with pytest.raises(EnvError, match="schema cannot be used"):
            form.read('{"a": 1, "b": ""}')


def test_the_requested_schema_omits_given_fields() -> None:
    asked = json.loads(ActionForm(MOVE).asked)
    assert set(asked["properties"]) == {"way", "clicks", "note"}
    assert "title" not in asked["properties"]["way"]


def test_an_environment_with_tools_gets_tool_calls() -> None:
    form = ActionForm({"properties": {"metadata": {"type": "object"}}})
    assert form.may_call_tools
    call = {"tool_name": "add", "arguments": {"a": 1}}
    assert form.with_tools([{"name": "add"}]).read(json.dumps(call)).values == {**call, "type": "call_tool"}
    own = {"tool_name": {"const": "look"}, "parameters": {"type": "object"}}
    form = ActionForm({"oneOf": [{"properties": own}, {"properties": {"tool_name": {"const": "end"}}}]})
    assert not form.may_call_tools
    assert form.read('{"tool_name": "end"}').values == {"tool_name": "end"}


WORDS = st.lists(st.text("abcdXY_-", min_size=1, max_size=5), min_size=2, max_size=5, unique_by=str.casefold)
ENUM = st.sampled_from(["enum", "reference", "constants", "optional", "nullable", "together"])


def words_schema(words: list[str], how: str) -> dict[str, Any]:
    """One text field that allows these words, in the ways in which Pydantic writes that."""
    enum = {"type": "string", "enum": words}
    field = {
        "enum": enum,
        "reference": {"$ref": "#/$defs/Word", "default": words[0]},
        "constants": {"anyOf": [{"const": word, "type": "string"} for word in words]},
        "optional": {"anyOf": [enum, {"type": "null"}]},
        "nullable": {"type": ["string", "null"], "enum": words},
        "together": {"allOf": [{"$ref": "#/$defs/Word"}], "default": words[0]},
    }[how]
    return {"properties": {"metadata": {"type": "object"}, "say": field}, "$defs": {"Word": enum}}


@given(WORDS, ENUM, st.sampled_from(["{}", " '{}'.", '"{}"\n', "\u201c{}.\u201d", "`{}`"]), st.data())
def test_case_quotes_and_a_full_stop_around_a_word_are_ignored(
    words: list[str], how: str, around: str, data: st.DataObject
) -> None:
    form = ActionForm(words_schema(words, how))
    word = data.draw(st.sampled_from(words))
    said = data.draw(st.sampled_from([word, word.upper(), word.lower(), word.title()]))
    assert form.read(around.format(said)).values == {"say": word}
    assert words_asked(form.asked) == tuple(words)
    with pytest.raises(ActionError, match="is not a valid action") as caught:
        form.read(f"I say {word}, of course")
    assert ", ".join(words) in caught.value.why


def test_the_words_are_shown_to_the_model_and_not_as_a_schema() -> None:
    start = Start("?", schema=ActionForm(words_schema(["left", "right"], "enum")).asked)
    plain, named = PromptTemplate("t", "Go.", "?"), PromptTemplate("t", "Say {schema}.", "?")
    assert chat(Candidate(plain), TASK, start, ())[0].content == f"Go.\n\n{ASK_WORD}\nleft, right"
    assert chat(Candidate(named), TASK, start, ())[0].content == "Say left, right."
    model = Scripted("left", asked="")
    asyncio.run(Agent(Candidate(plain), model, TASK).act(start, ()))


FIELD = st.sampled_from(
    [
        ({"type": "integer"}, 3),
        ({"type": "string", "enum": ["a", "b"]}, "b"),
        ({"type": "array", "items": {"$ref": "#/$defs/Inner"}}, [{"deep": 1.5}]),
        ({"$ref": "#/$defs/Inner"}, {"deep": 2.0}),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, None),
    ]
)
FORM = st.dictionaries(st.text("pqrs", min_size=1, max_size=3), FIELD, max_size=3)
INNER = {"type": "object", "properties": {"deep": {"type": "number"}}, "required": ["deep"]}


@given(st.lists(FORM, min_size=2, max_size=4), st.booleans(), st.booleans(), st.data())
@settings(deadline=None)
def test_an_answer_to_a_union_is_parsed_as_the_form_that_it_matches(
    forms: list[dict[str, Any]], referred: bool, discriminated: bool, data: st.DataObject
) -> None:
    written = {
        f"Form{number}": {
            "type": "object",
            "title": f"Form{number}",
            "properties": {"kind": {"const": f"k{number}", "default": f"k{number}"}}
            | {name: rule for name, (rule, _) in form.items()},
            "required": list(form),
            "additionalProperties": False,
        }
        for number, form in enumerate(forms)
    }
    referring = [{"$ref": f"#/$defs/{name}"} for name in written]
    union: dict[str, Any] = {
        "oneOf" if discriminated else "anyOf": referring if referred else [*written.values()]
    }
    if discriminated:
        union["discriminator"] = {"propertyName": "kind", "mapping": {}}
    form = ActionForm({**union, "$defs": {"Inner": INNER, **written, "Unused": {"type": "null"}}})
    asked = json.loads(form.asked)
    assert len(asked["oneOf"]) == len(forms)
    assert "title" not in form.asked
    assert "Unused" not in form.asked

    number = data.draw(st.integers(0, len(forms) - 1))
    values = {name: value for name, (_, value) in forms[number].items()}
    assert form.read(json.dumps({"kind": f"k{number}", **values})).values == {"kind": f"k{number}", **values}
    if sum(other.keys() == values.keys() for other in forms) == 1:  # then it needs no name
        assert form.read(json.dumps(values or {"kind": f"k{number}"})).values["kind"] == f"k{number}"
    with pytest.raises(ActionError) as caught:
        form.read(json.dumps({"kind": "other", **values}))
    assert "kind: 'other' is not one of ['k0', 'k1'" in caught.value.why
    with pytest.raises(ActionError) as caught:
        form.read(json.dumps({"kind": f"k{number}", **values, "more": 1}))
    assert "'more' was unexpected" in caught.value.why


def test_a_hook_reads_in_place_of_the_schemas_rules() -> None:
    def parse(text: str, schema: dict[str, Any]) -> dict[str, Any]:
        assert schema["properties"]["way"]["enum"] == ["left", "right"]
        way, clicks = text.split()
        return {"way": way, "clicks": int(clicks)}

    form = ActionForm(MOVE, parse)
    assert form.asked == ""
    assert form.read("left 3").values == {"way": "left", "clicks": 3, "kind": "move"}
    assert form.read("left 3").shown == "left 3"
    for wrong in ("left", "left three", "up 3"):
        with pytest.raises(ActionError):
            form.read(wrong)


NAMES = st.text("abc_", min_size=1, max_size=4)


@given(st.dictionaries(NAMES, JSON, max_size=4), st.none() | st.integers(1, 5))
def test_any_observation_is_text_with_every_field(observation: dict[str, Any], longest: int | None) -> None:
    seen = View(longest=longest).observed({**observation, "metadata": {"a": 1}}, None, False)
    assert {name for name in seen.fields if "." not in name} == set(observation)
    assert seen.fields["metadata.a"] == "1"
    seen.text.encode()
    if len(observation) != 1:
        shown = {name: seen.fields[name] for name in observation if seen.fields[name] is not None}
        assert seen.text == "\n".join(f"{name}: {value}" for name, value in shown.items())
    for value in seen.fields.values():
        if longest is not None and value is not None and len(value) > longest:
            assert value[longest:].startswith(" [... ")


def test_a_single_text_is_the_whole_and_a_cut_is_marked() -> None:
    assert View().observed({"board": "x o"}, 1, False).text == "x o"
    assert View(longest=3).observed({"board": "abcdef"}, 1, False).text == "abc [... 3 characters more]"
    assert View("board").observed({"board": "x o", "n": 1}, 1, False).text == "x o"
    assert View(render=lambda seen: f"<{seen['n']}>").observed({"n": 1, "m": 2}, 1, False).text == "<1>"


NESTED = st.recursive(st.integers() | st.text("xyz"), lambda inner: st.dictionaries(NAMES, inner, max_size=3))


@given(st.dictionaries(NAMES, NESTED, max_size=3))
def test_a_value_in_an_object_has_a_name_with_dots(observation: dict[str, Any]) -> None:
    def walk(name: str, value: object) -> None:
        if name.count(".") <= 4:
            assert seen.fields[name] == (value if isinstance(value, str) else json.dumps(value))
            for inner, one in value.items() if isinstance(value, dict) else ():
                walk(f"{name}.{inner}", one)

    seen = View().observed({**observation, "metadata": observation}, 0, False)
    for name, value in observation.items():
        walk(name, value)
        walk(f"metadata.{name}", value)
    assert "metadata" not in seen.fields
    template = PromptTemplate("t", "s", "?\n\n{observation.metadata.a.b}")
    shown = chat(Candidate(template), TASK, Start(seen.text, seen.fields), ())[-1].content
    inner = observation.get("a")
    expected = seen.fields["a.b"] if isinstance(inner, dict) and "b" in inner else None
    assert shown == ("?" if expected is None else f"?\n\n{expected}")


def test_a_field_of_an_object_may_be_absent_at_any_step() -> None:
    candidate = Candidate(PromptTemplate("t", "s", "?\n\nHint: {observation.metadata.hint}"))
    step = Step(1, "a", "", 0.0, False, fields={})
    assert chat(candidate, TASK, Start("", {"metadata.hint": "h"}), [step])[-1].content == "?"
    assert chat(candidate, TASK, Start("", {"metadata.hint": "h"}), ())[-1].content == "?\n\nHint: h"


RESULTS = st.fixed_dictionaries(
    {"reward": st.floats(-1, 1), "done": st.booleans()},
    optional={
        "observation": st.dictionaries(st.sampled_from("abc"), st.integers()),
        "info": st.just({"d": 1}),
    },
)


@given(RESULTS, st.sampled_from(["data", "result", "transition"]), st.sampled_from([{}, {"success": True}]))
def test_a_result_in_an_envelope_is_the_same_result(
    result: dict[str, Any], name: str, beside: dict[str, Any]
) -> None:
    plain, reward, done = result_of(result)
    found, its_reward, its_done = result_of({**beside, name: result})
    assert (its_reward, its_done) == (reward, done)
    assert isinstance(plain, dict)
    assert isinstance(found, dict)
    apart = ("metadata", "success")
    assert {k: v for k, v in found.items() if k not in apart} == {
        k: v for k, v in plain.items() if k not in apart
    }


def test_an_observation_with_parts_is_no_envelope() -> None:
    board = {"board": {"cells": [1], "done": False}, "reward": 1.0, "done": True}
    assert result_of(board)[1:] == (1.0, True)
    two = {"mine": {"reward": 1.0, "done": True}, "yours": {"reward": 2.0, "done": True}}
    assert result_of(two) == (two, None, False)


def test_the_error_of_an_action_may_be_in_the_info() -> None:
    seen = View().observed(
        *result_of({"observation": {"a": 1}, "reward": 0, "done": False, "info": {"error": "no"}})
    )
    assert seen.error == "no"


def test_the_result_of_a_tool_is_its_text() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    seen = View().observed({"result": {"content": parts, "data": 3}, "error": None}, 0, False)
    assert (seen.fields["result"], seen.text) == ("one\ntwo", "result: one\ntwo")
    picture = {"content": [{"type": "image", "data": "..."}]}
    assert View().observed({"result": picture}, 0, False).text == json.dumps(picture)


def test_a_failing_hook_is_reported() -> None:
    with pytest.raises(ConfigError, match="render hook failed"):
        View(render=lambda seen: seen["none"]).observed({"n": 1}, 1, False)
    with pytest.raises(EnvError, match="malformed"):
        View("board").observed({"n": 1}, 1, False)


@given(st.text())
def test_text_of_an_environment_is_never_syntax(text: str) -> None:
    template = PromptTemplate("t", "s", "{observation.board}|{observation}")
    seen = View("all").observed({"all": text, "board": text}, 0, False)
    candidate = Candidate(template)
    shown = chat(candidate, TASK, Start(seen.text, seen.fields), ())[-1].content
    assert shown == f"{seen.text}|{seen.text}"


def test_a_field_without_a_value_omits_its_paragraph_and_an_unknown_one_is_an_error() -> None:
    template = PromptTemplate("t", "s", "{observation.board}\n\nHint: {observation.hint}")
    start = Start("", {"board": "x", "hint": None})
    assert chat(Candidate(template), TASK, start, ())[-1].content == "x"
    start = Start("", {"board": "x"})
    assert chat(Candidate(template), TASK, start, ())[-1].content == "x"  # a step may show more
    with pytest.raises(ConfigError, match=r"no \{observation.hint\}") as caught:
        chat(Candidate(template), TASK, start, [Step(1, "a", "", 0.0, False, fields={"board": "x"})])
    assert "{observation.board}" in caught.value.do


TASK = Task("t", "b", max_steps=3, max_tokens=10, max_return=3.0, success_score=0.5)


class Walk:
    """A session that pays 1 per step, and keeps the actions sent."""

    form, view = ActionForm(MOVE), View()

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.began: tuple[int, Mapping[str, Any]] = (-1, {})

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:
        self.began = (seed, arguments)
        return Observed("the start", 0.0, False, {"at": "0"})

    async def step(self, action: dict[str, Any]) -> Observed:
        self.sent.append(action)
        return Observed(f"after {len(self.sent)}", 1.0, False, {"at": str(len(self.sent))})

    async def state(self) -> Mapping[str, Any]:
        raise NotImplementedError

    async def grade(self) -> Mapping[str, Any]:
        raise NotImplementedError

    async def renew(self) -> None:
        raise NotImplementedError


class Scripted:
    """A model that gives these answers in order."""

    def __init__(self, *answers: str, asked: str | None = None) -> None:
        self.answers, self.asked = list(answers), list[Sequence[Message]]()
        self.schema = Walk.form.asked if asked is None else asked

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: SamplingParams,  # noqa: ARG002
        schema: str = "",
    ) -> Completion:
        assert schema == self.schema
        self.asked.append(messages)
        return Completion(self.answers.pop(0), "stop", 1, 1, 0.0)


def played(task: Task, model: Scripted, seed: int = 0) -> tuple[Episode, Walk]:
    walk = Walk()
    agent = Agent(Candidate(PromptTemplate("t", "Walk.", "{observation}")), model, task)
    return asyncio.run(play(agent, walk, seed)), walk


def test_an_invalid_action_is_an_error_of_its_step_and_the_episode_continues() -> None:
    model = Scripted('{"way": "left", "clicks": 2}', "what?", "")
    episode, walk = played(TASK, model)
    assert walk.sent == [{"way": "left", "clicks": 2, "kind": "move"}]
    first, second, third = episode.steps
    assert (first.error, first.reward, first.action) == (None, 1.0, '{"way":"left","clicks":2}')
    assert (second.action, second.reward, second.done) == ("what?", 0.0, False)
    assert "no JSON object" in str(second.error)
    assert (third.action, third.error) == (FALLBACK_ACTION, "the model's answer was empty")
    assert episode.episode_return == 1.0
    # The model reads the reason and the last observation.
    reason = "The answer is not a valid action: there is no JSON object in it"
    assert model.asked[2][-1].content == f"{reason}\n\nafter 1"
    assert model.asked[0][0].content == f"Walk.\n\n{ASK}\n{Walk.form.asked}"


def test_nonsense_never_earns_more_than_a_step() -> None:
    costly = Task("t", "b", 1, 10, 0.0, 0.5, max_step_reward=-0.5, min_step_reward=-2.0, min_return=-2.0)
    assert played(costly, Scripted("what?"))[0].episode_return == -2.0
    assert costly.most_return(3) == 0.0  # it may end before them


def test_consecutive_seeds_play_the_tasks_round_robin_with_the_same_seeds_for_each() -> None:
    setups = (Setup("easy", {"level": 1}), Setup("hard", {"level": 2}), Setup("mad"))
    task = Task("t", "b", 1, 10, 3.0, 0.5, tasks=setups)
    began = [played(task, Scripted("what?"), seed)[1].began for seed in range(12, 18)]
    levels: list[Mapping[str, Any]] = [{"level": 1}, {"level": 2}, {}]
    assert began == [(4, level) for level in levels] + [(5, level) for level in levels]
    assert played(TASK, Scripted("a", "b", "c"), 17)[1].began == (17, {})
    assert [task.setup(task.names.index(name))[0].name for name in ("hard", "mad")] == ["hard", "mad"]


@given(st.lists(st.floats(-100, 100), max_size=5), st.sampled_from(["sum", "last", "max"]))
def test_the_score_is_a_share_of_the_range(rewards: list[float], score: Any) -> None:  # noqa: ANN401
    task = Task("t", "b", 1, 10, 2.0, 0.5, min_return=-2.0, score=score)
    last = rewards[-1] if rewards else -2.0
    together = {"sum": sum(rewards), "last": last, "max": max(rewards, default=-2.0)}[score]
    assert task.score_of(rewards) == pytest.approx(min(max((together + 2) / 4, 0.0), 1.0))


def test_an_endpoint_that_takes_no_schema_is_asked_without_one_from_then_on() -> None:
    def script(body: Body) -> Reply:
        return Reply(status=400, message="no response_format here") if "response_format" in body else Reply()

    async def ask(url: str) -> None:
        async with Endpoint(EndpointConfig(url, "m", "k")) as endpoint:
            for _ in range(2):
                answer = await endpoint.complete(
                    [Message("user", "?")], SamplingParams(), '{"type":"object"}'
                )
                assert answer.text == "a fine answer"

    with fake_endpoint(script) as endpoint:
        asyncio.run(ask(endpoint.url))
    assert ["response_format" in body for body in endpoint.requests] == [True, False, False]
    assert endpoint.requests[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
