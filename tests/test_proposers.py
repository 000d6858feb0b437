"""Proposers: any text of a model becomes a playable template with its placeholders, or is refused."""

import asyncio
import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.agent.episode import Episode
from lab.agent.step import Step
from lab.agent.task import Task
from lab.agent.template import PromptTemplate, placeholders
from lab.errors import BudgetError, EndpointError
from lab.experiment.budget import FREE, Budget, Spending
from lab.experiment.metered import Metered
from lab.llm.client import Completion, Endpoint, EndpointConfig, Message
from lab.llm.sampling import SamplingParams
from lab.llm.throttle import Patience
from lab.proposers.briefing import SHOWN_CHARACTERS, SHOWN_STEPS, Briefing, Rated, clipped, shown
from lab.proposers.proposal import LONGEST, ProposalRefusedError, Proposals, accept, without_duplicates
from lab.proposers.proposer import TRIES, TURNS, make_proposer
from lab.proposers.writing import SAMPLING
from tests.fake_endpoint import Body, Reply, Script, fake_endpoint
from tests.project import TIMEOUT_S

Name = Literal["dspy", "gepa"]

TASK = Task("echo", "echo", 8, 150, 120.0, 0.1)
GOOD = "Write a long and learned message in each of the {max_steps} rounds."
PARENT = PromptTemplate(
    "first", "You have {max_steps} rounds.", "Round {step}: {observation}\n\n{history}\n\nWrite."
)

both = pytest.mark.parametrize("name", ["dspy", "gepa"])


def episode(*actions: str, reward: float = 1.0) -> Episode:
    steps = (Step(number, text, text, reward * number, False) for number, text in enumerate(actions, 1))
    return Episode(0, "Ready.", tuple(steps))


def rated(template: PromptTemplate, best: str = "a long message", worst: str = "hi") -> Rated:
    return Rated(template, 24.5, 4, episode(best, reward=31.0), episode(worst, reward=2.0))


def briefing(*templates: PromptTemplate) -> Briefing:
    return Briefing("Earn the highest return.", TASK, tuple(rated(each) for each in templates or [PARENT]))


def written(name: Name, text: str) -> str:
    """`text` in the form that each library requests."""
    if name == "gepa":
        return f"Here it is:\n```\n{text}\n```"
    return f"[[ ## text ## ]]\n{text}\n\n[[ ## completed ## ]]"


def propose(name: Name, script: Script, told: Briefing | None = None, count: int = 1) -> Proposals:
    """One round against a scripted endpoint."""

    async def ask(url: str) -> Proposals:
        async with Endpoint(EndpointConfig(url, "m", "k", Patience(attempts=1))) as endpoint:
            return await make_proposer(name, endpoint).propose(told or briefing(), count, 2)

    with fake_endpoint(script) as fake:
        return asyncio.run(ask(fake.url))


def said(body: Body) -> str:
    return "\n".join(message["content"] for message in body["messages"])


@both
def test_a_good_answer_becomes_a_template_that_keeps_the_rest(name: Name) -> None:
    proposals = propose(name, lambda _: Reply(written(name, GOOD)))
    assert proposals == Proposals((PromptTemplate(f"{name}-2-0", GOOD, PARENT.turn),))


@both
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD + "x" * LONGEST, "characters"),
        ("", ""),
    ],
    ids=["long", "empty"],
)
def test_a_text_that_cannot_be_played_goes_back_with_its_reason(name: Name, text: str, reason: str) -> None:
    asked: list[str] = []

    def script(body: Body) -> Reply:
        asked.append(said(body))
        return Reply(written(name, text))

    proposals = propose(name, script)
    assert proposals.texts == ()
    assert proposals.duplicates == 0
    assert len(proposals.refused) == 1
    assert reason in proposals.refused[0]
    assert len(asked) == TRIES
    assert proposals.refused[0] in asked[1]

    answers = iter([text, GOOD])
    mended = propose(name, lambda _: Reply(written(name, next(answers))))
    assert [each.system for each in mended.texts] == [GOOD]


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("Write a lot.", "Write a lot.\n\nYou have {max_steps} rounds."),
        (f"{GOOD} {{tools}} {{", f"{GOOD} {{{{tools}}}} {{{{"),
        ('For {{max_steps}} rounds, answer {"a": 1}.', 'For {max_steps} rounds, answer {{"a": 1}}.'),
        (f"```\n{GOOD}\x07\n```", GOOD),
    ],
    ids=["lost", "unknown", "doubled", "fenced, with a bell"],
)
def test_a_text_is_repaired_where_that_is_enough(text: str, system: str) -> None:
    assert accept("new", PARENT, text, PARENT.turn) == PromptTemplate("new", system, PARENT.turn)
    assert accept("new", PARENT, system, PARENT.turn).system == system


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("dspy", text) for text in ("asdf ]] {", "[[ ## other ## ]] {}", "```", " ", None)),
        *(("gepa", text) for text in ("```", "``````", " ", None)),  # without a fence the answer is the text
    ],
)
def test_an_answer_without_the_requested_form_is_refused(name: Name, text: str | None) -> None:
    proposals = propose(name, lambda _: Reply(text))
    assert (len(proposals.texts), len(proposals.refused), proposals.duplicates) == (0, 1, 0)


@both
def test_an_answer_that_is_cut_off_twice_ends_with_its_last_sentence_or_is_refused(name: Name) -> None:
    for text, system in ((f"{GOOD} And then", GOOD), ("no sentence of {max_steps}", None)):
        model = ScriptedModel(
            written(name, text).partition("[[ ## comp")[0].removesuffix("```"), None, "length"
        )
        proposals = asyncio.run(make_proposer(name, model).propose(briefing(), 1, 1))
        assert [each.system for each in proposals.texts] == ([system] if system else [])
        assert all("cut off" in reason for reason in proposals.refused)
        assert len(proposals.refused) == (not system)


@both
def test_one_failed_call_costs_one_proposal(name: Name) -> None:
    replies = iter([Reply(status=413), Reply(written(name, GOOD))])  # a call that fails is not repeated
    lock = threading.Lock()

    def script(_: Body) -> Reply:
        with lock:
            return next(replies)

    proposals = propose(name, script, count=2)
    assert len(proposals.texts) == 1
    assert len(proposals.refused) == 1
    assert "scripted 413" in proposals.refused[0]


@both
def test_a_refused_key_is_raised_as_the_endpoint_error_that_it_is(name: Name) -> None:
    with pytest.raises(EndpointError, match="refused the key"):
        propose(name, lambda _: Reply(status=401), count=3)


@both
def test_a_used_up_budget_is_raised_as_such(name: Name) -> None:
    metered = Metered(ScriptedModel(), Spending(Budget(calls=2)), FREE)
    with pytest.raises(BudgetError):
        asyncio.run(make_proposer(name, metered).propose(briefing(), 3, 1))


@both
def test_texts_that_are_known_count_as_duplicates(name: Name) -> None:
    known = propose(name, lambda _: Reply(written(name, "  You have\n{max_steps}   rounds.")))
    assert known == Proposals((), (), 1)
    twice = propose(name, lambda _: Reply(written(name, GOOD)), count=3)  # a turn text and two system texts
    assert [len(twice.texts), twice.duplicates] == [2, 1]


@both
def test_all_texts_of_a_round_are_requested_concurrently(name: Name) -> None:
    together = threading.Barrier(3, timeout=TIMEOUT_S)

    def script(_: Body) -> Reply:
        return Reply(written(name, f"{GOOD} {together.wait()}"))

    assert len(propose(name, script, count=3).texts) == 3


@both
def test_each_proposal_is_one_call_with_the_stated_sampling(name: Name) -> None:
    asked: list[Body] = []
    propose(name, lambda body: asked.append(body) or Reply(written(name, GOOD)), count=2)  # type: ignore[func-returns-value]
    assert len(asked) == 2
    assert all(body["temperature"] == SAMPLING.temperature for body in asked)
    assert all(body["max_tokens"] == SAMPLING.max_tokens for body in asked)


@both
def test_texts_that_are_best_on_some_instance_are_parents_and_are_merged(name: Name) -> None:
    values = ({0: 9.0, 1: 1.0}, {0: 1.0, 1: 9.0}, {0: 2.0, 1: 2.0})
    known = [PromptTemplate(f"t{i}", f"Text {i} of {{max_steps}}.", PARENT.turn) for i in range(3)]
    told = Briefing(
        "Win.", TASK, tuple(replace(rated(one), values=own) for one, own in zip(known, values, strict=True))
    )
    proposals = propose(name, lambda _: Reply(written(name, f"{GOOD} {random.random()}")), told, 8)
    assert proposals.parents["-".join((name, "2", "0"))] == ("t0",)
    assert set(proposals.parents.values()) == {("t0",), ("t1",), ("t0", "t1"), ("t1", "t0")}


@both
def test_the_model_reads_the_objective_the_episodes_and_the_fixed_placeholders(name: Name) -> None:
    asked: list[str] = []
    told = Briefing("Earn it.", TASK, (rated(PARENT, best="grand " * 200, worst="meagre"),))
    propose(name, lambda body: asked.append(said(body)) or Reply(""), told)  # type: ignore[func-returns-value]
    for part in ("Earn it.", PARENT.system, "grand grand", "meagre", "31.00", "2.00", "24.5", "Keep"):
        assert part in asked[0], part
    assert "the number of steps" in asked[0], "what {max_steps} means"
    assert "grand " * 60 not in asked[0], "an action is clipped"


@both
def test_every_fourth_text_is_a_turn_text(name: Name) -> None:
    turn = "Round {step}, {observation}.\n\n{history}\n\nWrite much."
    proposals = propose(name, lambda _: Reply(written(name, turn)), count=TURNS)
    assert [each.turn for each in proposals.texts if each.system == PARENT.system] == [turn]


@both
def test_the_model_reads_errors_and_what_did_better_where_the_text_did_worst(name: Name) -> None:
    bad = Episode(
        0, "Ready.", (Step(1, "hi", "no", 0.0, False, error="Say it in Latin.", trouble="refused"),)
    )
    better = episode("salve", reward=77.0)
    asked: list[str] = []
    told = Briefing(
        "Earn it.", TASK, (replace(rated(PARENT), worst=bad, beside=better, troubles="25 % bad"),)
    )
    propose(name, lambda body: asked.append(said(body)) or Reply(""), told)  # type: ignore[func-returns-value]
    for part in ("Say it in Latin.", "salve", "77.00", "25 % bad"):
        assert part in asked[0], part


@both
def test_cancelling_a_round_ends_it_at_once(name: Name) -> None:
    async def ask() -> None:
        before = asyncio.all_tasks()
        model = ScriptedModel(hold=asyncio.Event())
        task = asyncio.create_task(make_proposer(name, model).propose(briefing(), 3, 1))
        await asyncio.wait_for(model.begun.wait(), TIMEOUT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert asyncio.all_tasks() == before

    asyncio.run(asyncio.wait_for(ask(), TIMEOUT_S))


@dataclass
class ScriptedModel:
    """Answer `text` to all requests, once `hold` is set."""

    text: str = "nothing of use"
    hold: asyncio.Event | None = None
    finish_reason: str = "stop"
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def complete(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str = ""
    ) -> Completion:
        del messages, sampling, schema
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        return Completion(self.text, self.finish_reason, 10, 5, 0.1)


# What models write: placeholders, braces, fences, field headers, and any character at all.
pieces = st.sampled_from(
    (
        *("{max_steps}", "{step}", "{observation}", "{history}", "{", "}", "{{", "}}", "{0}", "{step:>{x}}"),
        *("```", "\n\n", "\r", "\0", "[[ ## text ## ]]", "[[ ## completed ## ]]", "<side_info>"),
    )
)
wild = st.lists(pieces | st.text(max_size=20), max_size=12).map("".join)


@settings(deadline=None)
@given(wild, wild)
@example(GOOD, PARENT.turn)
@example(GOOD, "{step} {observation} {history}")
def test_whatever_is_proposed_keeps_every_placeholder_or_is_refused(system: str, turn: str) -> None:
    try:
        template = accept("new", PARENT, system, turn)
    except ProposalRefusedError:
        return
    assert set(placeholders(template.system)) >= set(placeholders(PARENT.system))
    assert set(placeholders(template.turn)) >= set(placeholders(PARENT.turn))
    assert max(len(template.system), len(template.turn)) <= LONGEST
    first = {"step": "1", "max_steps": "8", "observation": "o", "reward": None, "history": None}
    assert template.render_system(first).strip()
    assert template.render_turn(first).strip(), "the first step's message says something"


@both
@settings(max_examples=60, deadline=None)
@given(text=wild)
def test_whatever_the_model_writes_each_proposal_has_one_fate(name: Name, text: str) -> None:
    proposer = make_proposer(name, ScriptedModel(text))
    proposals = asyncio.run(proposer.propose(briefing(), 2, 1))
    assert len(proposals.texts) + len(proposals.refused) + proposals.duplicates == 2


@settings(deadline=None)
@given(st.text())
@example("a\nb\x1b[31m\u2028\ud800")
@example('"} {step} ```')
def test_shown_text_is_one_short_quoted_line(text: str) -> None:
    line = clipped(text)
    assert line.isprintable()
    quoted, end = json.JSONDecoder().raw_decode(line)
    assert len(quoted) <= SHOWN_CHARACTERS
    assert line[end:] == "" if len(text) <= SHOWN_CHARACTERS else "more" in line[end:]
    assert "```" not in line, "a fence of a library's prompt cannot be closed from within"


@settings(deadline=None)
@given(st.lists(st.text(max_size=400), max_size=10))
def test_an_episode_is_shown_in_few_lines_and_in_order(actions: list[str]) -> None:
    lines = shown(episode(*actions)).split("\n")
    assert len(lines) == 2 + 3 * min(SHOWN_STEPS, len(actions))
    numbers = [int(line.split()[1].rstrip(",")) for line in lines if line.startswith("step ")]
    assert numbers == sorted(set(numbers))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", " a ", "a\n", "c d", "c\nd"])))
def test_nothing_is_lost_between_fresh_and_duplicate(texts: list[str]) -> None:
    proposed = [PromptTemplate(f"p{i}", text, "Write.") for i, text in enumerate(texts)]
    fresh, duplicates = without_duplicates([PromptTemplate("known", "b", "Write.")], proposed)
    assert len(fresh) + duplicates == len(texts)
    assert len({" ".join(each.system.split()) for each in fresh} - {"b"}) == len(fresh)
