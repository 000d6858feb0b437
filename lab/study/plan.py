"""The Plan: what a study will do, and its maximum cost, before it starts.

It is computed from the experiment, the model and the environment's first observation, without calls or
writes. Prompt tokens are an estimate; all other figures are bounds.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from lab.agent.episode import Start
from lab.agent.messages import chat
from lab.environments.config import EnvironmentConfig
from lab.environments.environment import open_environment
from lab.experiment.budget import FREE, Prices
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.proposers.proposer import TRIES
from lab.stats.format import count
from lab.stats.intervals import FEW_PAIRS, lowest_sign_flip_p
from lab.study.prompts import candidates, empty_messages, prompt

LETTERS = 4
"""Assumed characters per token: the endpoint's tokenizer is unknown."""

ROUNDS = 4
"""Number of times that the search should have results to choose by: fewer is little better than at random."""


@dataclass(frozen=True)
class Plan:
    """An experiment on a model, before it runs.

    Attributes:
        proposer: Name of a separate proposing model; else empty.
        opening: The environment's first observation; None if unknown.
    """

    experiment: Experiment
    model: ModelChoice
    environment: EnvironmentConfig
    proposer: str = ""
    opening: Start | None = None

    def __str__(self) -> str:
        """The whole plan, followed by the messages of an episode's first step."""
        table = "\n".join(f"{name:<13} {text}" for name, text in self._lines())
        return "\n\n".join([table, *self._messages()]) + "\n"

    @property
    def short(self) -> str:
        """The limits, and the reserved episodes, in one line."""
        experiment, minutes = self.experiment, self.experiment.budget.minutes
        confirmed = experiment.confirmation.candidates * experiment.confirmation.episodes
        held_out = (experiment.verdict.finalists + 1) * experiment.verdict.episodes
        limits = [
            *([] if self._calls == inf else [f"{self._calls:,.0f} calls"]),
            *([] if self._tokens_out == inf else [f"{self._tokens_out:,.0f} tokens out"]),
            *([] if minutes == inf else [_minutes(minutes)]),
        ]
        return (
            f"At most {', '.join(limits)}; cost: {self._money}. Of this, up to {confirmed} episodes are"
            f" reserved for confirmation and {held_out} for the holdout."
        )

    def _lines(self) -> Iterator[tuple[str, str]]:
        experiment, task = self.experiment, self.experiment.task
        search, proposals, sure = experiment.search, experiment.proposals, experiment.confirmation
        yield "Experiment", f"{experiment.name}: {experiment.about}"
        yield "Model", experiment.models_text(self.model)
        yield "Environment", f"{self.environment.shown}; episodes of up to {task.max_steps} steps"
        measure = experiment.objective.maximise
        yield "Objective", f"the highest mean episode {measure}, {task.described(measure)}"
        yield (
            "Search",
            f"{self._searched}; up to {search.episodes} per candidate, {search.in_flight} concurrently",
        )
        yield "", f"over {', '.join(experiment.space.free) or 'nothing'}"
        if self._whole < search.in_flight * ROUNDS:
            fewer = max(int(self._whole) // ROUNDS, 1)
            yield "", f"Few candidates will play twice: choices need results. in_flight = {fewer} searches"
            yield "", "better, and takes longer."
        if proposals is not None:
            model = f" with {self.proposer}" if self.proposer else ""
            texts = f"{proposals.rounds} x {proposals.texts} texts by {proposals.proposer}{model}"
            yield "Proposals", f"{texts}, one call each, two if it is refused"
        yield "Confirmation", f"up to {sure.candidates} x {sure.episodes} episodes"
        finalists = f"{experiment.verdict.finalists} and the baseline"
        pairs = experiment.verdict.episodes
        is_few = pairs <= FEW_PAIRS and experiment.verdict.judge == "mean"
        few = f"; the sign-flip test's p is at least {lowest_sign_flip_p(pairs):.2g}" if is_few else ""
        yield "Holdout", f"{finalists}, {pairs} episodes each{few}"
        yield "Calls", _most(self._calls, f", up to {experiment.verdict_calls:,} reserved for the verdict")
        yield "Tokens out", _most(self._tokens_out, f": {self._longest} per call")
        yield "Tokens in", self._tokens_in_text
        yield "Cost", self._money
        yield "Time", _minutes(experiment.budget.minutes)
        if min(experiment.budget.tokens, experiment.budget.dollars) < inf:
            flying = count(search.in_flight, "call")
            yield "", f"A limit of tokens or dollars is exceeded by at most {flying} in flight."
        yield "", "An unfinished study resumes with its remaining budget; a finished one prints its result"
        yield "", "again. With raised limits both continue; --fresh starts a new study."

    @property
    def _searched(self) -> str:
        if self._calls == inf:
            return "as many episodes as the budget allows"
        return f"{self._whole:,.0f} whole episodes, more if some end early"

    @property
    def _whole(self) -> float:
        """Number of whole episodes that the search's calls allow."""
        left = self._calls - self._proposed - self.experiment.verdict_calls
        return left // self.experiment.task.max_steps

    @property
    def _calls(self) -> float:
        return self.experiment.budget.calls

    @property
    def _proposed(self) -> int:
        """Maximum number of the proposer's calls."""
        proposals = self.experiment.proposals
        return proposals.rounds * proposals.texts * TRIES if proposals else 0

    @property
    def _longest(self) -> int:
        """Highest max_tokens of any candidate."""
        return self._highest("max_tokens")

    def _highest(self, name: str) -> int:
        """Highest value of a setting in any candidate."""
        space = self.experiment.space
        ends = space.free[name].ends if name in space.free else ()
        fixed = (self.experiment.baseline, space.start)
        return max(int(value) for value in (*(one.settings[name] for one in fixed), *ends))

    @property
    def _tokens_out(self) -> float:
        played = (self._calls - self._proposed) * self._longest
        return min(played + self._proposed * self._longest_proposal, self.experiment.budget.tokens)

    @property
    def _longest_proposal(self) -> int:
        """Tokens of the longest text of a proposer."""
        proposals = self.experiment.proposals
        embedded = self.model.embedded and not self.proposer
        return proposals.sampling(embedded=embedded).max_tokens if proposals else 0

    @property
    def _tokens_in(self) -> tuple[float, float]:
        """Prompt tokens of the smallest and the largest call: first step, and longest history."""
        task, opening = self.experiment.task, self.opening or Start("")
        letters = [
            sum(len(message.content) for message in chat(candidate, task, opening, ()))
            for candidate in candidates(self.experiment).values()
        ]
        shown = min(self._highest("history"), task.max_steps - 1)
        return min(letters) / LETTERS, max(letters) / LETTERS + shown * self._longest

    @property
    def _tokens_in_text(self) -> str:
        first, last = self._tokens_in
        if self._calls == inf:
            return f"about {first:,.0f} to {last:,.0f} per call: an estimate, {LETTERS} characters per token"
        low, high = (min(self._calls * each, self.experiment.budget.tokens) for each in (first, last))
        return (
            f"about {low:,.0f} to {high:,.0f}: an estimate, {LETTERS} characters per token,"
            " from the shortest first step to the longest history"
        )

    @property
    def _money(self) -> str:
        budget, proposals = self.experiment.budget, self.experiment.proposals
        usual, own = self.experiment.prices_of(self.model), self.experiment.baseline.model
        played = {f"models.{own}" if own else "model": usual}
        played |= {f"models.{name}": one.prices for name, one in self.experiment.others.items()}
        others = proposals.prices if proposals and self.proposer else usual
        for where, one in (*played.items(), ("proposals", others)):
            if not one.known:
                return f"unknown: set dollars_in and dollars_out in [{where}]"
        if {*played.values(), others} == {FREE}:
            return "free"
        if budget.dollars < inf:
            return f"at most ${budget.dollars:.2f}"
        if self._calls == inf:
            return "unlimited"
        most = max(self._dollars(prices, others) for prices in played.values())
        return f"at most about ${most:.2f}, as tokens in are an estimate"

    def _dollars(self, prices: Prices, others: Prices) -> float:
        each = round(self._tokens_in[1])
        played = int(self._calls) - self._proposed
        return prices.dollars(played * each, played * self._longest) + others.dollars(
            self._proposed * each, self._proposed * self._longest_proposal
        )

    def _messages(self) -> Iterator[str]:
        names = candidates(self.experiment)
        templates = [one.template for one in names.values()]
        fields = {field for one in templates for field in (*one.fields, *one.opening_fields)}
        told = "<the environment's first observation; it is not opened for this plan>"
        form = json.dumps({"description": "the form of its actions, if they are more than one text"})
        start = self.opening or Start(told, {name: f"<{name}>" for name in fields}, form)
        for name, said in empty_messages(self.experiment, start).items():
            yield f"Warning: {name}: {said}. Write a paragraph that always has a value."
        yield from (prompt(self.experiment, name, start) for name in names)


async def opening_of(experiment: Experiment, environment: EnvironmentConfig) -> Start | None:
    """The first observation of an in-process `environment`; None for any other, which is not opened.

    Raises:
        EnvError: It cannot be opened.
    """
    if environment.address or environment.image:
        return None
    setup, seed = experiment.task.setup(experiment.seed)
    async with open_environment(environment, experiment.root) as opened, opened.session() as session:
        seen = await session.reset(seed, setup.reset)
        return Start(seen.text, seen.fields, session.form.asked)


def _most(limit: float, more: str) -> str:
    return "unlimited" if limit == inf else f"at most {limit:,.0f}{more}"


def _minutes(minutes: float) -> str:
    return "unlimited" if minutes == inf else f"{minutes:g} minutes of search"
