"""The rules between an experiment's tables: each is a function that yields a definition's errors."""

from collections.abc import Callable, Iterator, Mapping
from math import inf

from lab.errors import ConfigError
from lab.experiment.budget import FREE, Budget
from lab.experiment.definition import Definition
from lab.experiment.schema import BudgetTable


def _equal_turns(definition: Definition) -> Iterator[ConfigError]:
    """Confirmation and verdict play every task equally often, so that means are comparable."""
    several = max(len(definition.task.tasks), 1)
    for name, table in (("confirmation", definition.confirmation), ("verdict", definition.verdict)):
        if table.episodes % several:
            what = f"episodes = {table.episodes} must be a multiple of the number of tasks ({several})."
            yield ConfigError(what, where=f"{name}.episodes", do=f"use a multiple of {several}")


def _worst_judged(definition: Definition) -> Iterator[ConfigError]:
    several = len(definition.task.tasks)
    if definition.verdict.judge != "worst":
        return
    if several < 2 or definition.verdict.episodes < 2 * several:
        do = "add [[tasks]], and play at least two episodes of each"
        yield ConfigError('judge = "worst" needs several tasks.', where="verdict.judge", do=do)
    elif definition.objective.cost is not None:
        do = 'remove cost and within, or use judge = "mean"'
        yield ConfigError('judge = "worst" cannot be combined with a cost.', where="verdict.judge", do=do)


def _cost_and_tolerance(definition: Definition) -> Iterator[ConfigError]:
    cost, within = definition.objective.cost is not None, definition.objective.within > 0
    if cost != within:
        absent, there = ("within", "cost") if cost else ("cost", "within")
        do = f"set it, or remove {there}"
        yield ConfigError(f"objective.{absent} is missing.", where=f"objective.{there}", do=do)


def _limited(definition: Definition) -> Iterator[ConfigError]:
    do = f"set one of {', '.join(BudgetTable.model_fields)}"
    if definition.budget == Budget():
        yield ConfigError("The budget has no limit.", where="budget", do=do)


def _enough_calls(definition: Definition) -> Iterator[ConfigError]:
    kept, least = definition.verdict_calls, definition.search.headroom * definition.task.max_steps
    if definition.budget.calls < kept + least:
        what = f"{definition.budget.calls:g} calls are too few."
        why = f"confirmation and verdict need up to {kept}, the initial candidates {least}"
        do = f"use at least {kept + least}, or reduce their episodes"
        yield ConfigError(what, where="budget.calls", why=why, do=do)


def _finalists_confirmed(definition: Definition) -> Iterator[ConfigError]:
    if definition.verdict.finalists > definition.confirmation.candidates:
        do = f"use at most confirmation.candidates = {definition.confirmation.candidates}"
        what = "verdict.finalists exceeds confirmation.candidates."
        yield ConfigError(what, where="verdict.finalists", do=do)


def _dollars_priced(definition: Definition) -> Iterator[ConfigError]:
    own = f"models.{definition.baseline.model}" if definition.baseline.model else "model"
    usual = definition.prices if not definition.others else definition.prices_of(definition.model)
    prices = {own: usual, **{f"models.{name}": one.prices for name, one in definition.others.items()}}
    unknown = next((where for where, one in prices.items() if not one.known), "")
    unpriced = unknown or (own if set(prices.values()) == {FREE} else "")
    if unpriced and (definition.objective.cost == "dollars" or definition.budget.dollars < inf):
        do = "set dollars_in and dollars_out, the prices of a million tokens"
        what = "A dollar limit or cost is set, but the model has no prices."
        yield ConfigError(what, where=unpriced, do=do)


def _tokens_allowed(definition: Definition) -> Iterator[ConfigError]:
    space, most = definition.space, definition.task.max_tokens
    ends = space.free["max_tokens"].ends if "max_tokens" in space.free else (space.start.sampling.max_tokens,)
    own = definition.baseline.sampling.max_tokens
    for where, tokens in (("baseline", own), ("space", max(map(int, ends)))):
        if tokens > most and (where == "baseline" or tokens != own):
            what = f"max_tokens is {tokens}, but the task allows {most}."
            yield ConfigError(what, where=f"{where}.max_tokens", do=f"use at most {most}")


RULES: Mapping[tuple[str, ...], Callable[[Definition], Iterator[ConfigError]]] = {
    ("tasks", "confirmation.episodes", "verdict.episodes"): _equal_turns,
    ("tasks", "verdict.judge", "verdict.episodes", "objective.cost"): _worst_judged,
    ("objective.cost", "objective.within"): _cost_and_tolerance,
    ("budget",): _limited,
    ("verdict.finalists", "confirmation.candidates"): _finalists_confirmed,
    ("model", "models", "baseline.model", "objective.cost", "budget.dollars"): _dollars_priced,
    ("task.max_tokens", "baseline.max_tokens", "space.max_tokens"): _tokens_allowed,
    ("budget.calls", "confirmation", "verdict", "search.headroom", "task.max_steps"): _enough_calls,
}
"""The rules between keys, in order, by the keys that they read: none is checked if one of these is wrong."""
