"""The tables `[baseline]`, `[objective]` and `[budget]` of an experiment file, read into the lab's types.

It owns the rules within each; the rules between tables are `lab.experiment.experiment`'s.
"""

from lab.agent.candidate import Candidate, ContextSettings
from lab.agent.task import Measure, Task
from lab.agent.template import FindTemplate
from lab.errors import ConfigError
from lab.experiment.budget import Budget, Prices
from lab.experiment.objective import Objective
from lab.experiment.schema import BaselineTable, BudgetTable, ConfirmationTable, ObjectiveTable, VerdictTable
from lab.experiment.space import Space
from lab.llm.sampling import SamplingParams


def read_baseline(table: BaselineTable, find: FindTemplate) -> Candidate:
    """The candidate in use today, with the template that `find` finds.

    Raises:
        ConfigError: A value is out of range, or the template does not exist.
    """
    sampling = table.model_dump(exclude={"template", "history", "layout", "show_rewards"})
    try:
        return Candidate(
            find(table.template),
            SamplingParams(**sampling),
            ContextSettings(table.history, table.layout, table.show_rewards),
        )
    except ConfigError as error:
        raise ConfigError(error.what, where=f"baseline.{error.where}", why=error.why, do=error.do) from None


def read_objective(table: ObjectiveTable, task: Task, prices: Prices) -> Objective:
    """What is maximised, by default the return where the score is the rewards' sum.

    Raises:
        ConfigError: One of `cost` and `within` is missing.
    """
    if (table.cost is None) != (table.within is None):
        absent, there = ("cost", "within") if table.cost is None else ("within", "cost")
        do = f"set it, or remove {there}"
        raise ConfigError(f"objective.{absent} is missing.", where=f"objective.{there}", do=do)
    usual: Measure = "return" if task.score == "sum" else "score"
    return Objective(
        table.cost, table.within or 0.0, prices, table.maximise or usual, stated=table.maximise is not None
    )


def read_budget(table: BudgetTable) -> Budget:
    """The limits.

    Raises:
        ConfigError: There is none.
    """
    limits = table.model_dump(exclude_none=True)
    if not limits:
        do = f"set one of {', '.join(BudgetTable.model_fields)}"
        raise ConfigError("The budget has no limit.", where="budget", do=do)
    return Budget(**limits)


def check_tokens(baseline: Candidate, space: Space, task: Task) -> None:
    """Check that no candidate asks for more tokens than the task allows.

    Raises:
        ConfigError: One does.
    """
    ends = space.free["max_tokens"].ends if "max_tokens" in space.free else (space.start.sampling.max_tokens,)
    for where, tokens in (("baseline", baseline.sampling.max_tokens), *(("space", end) for end in ends)):
        if int(tokens) > task.max_tokens:
            what = f"max_tokens is {tokens}, but the task allows {task.max_tokens}."
            raise ConfigError(what, where=f"{where}.max_tokens", do=f"use at most {task.max_tokens}")


def check_turns(
    task: Task, confirmation: ConfirmationTable, verdict: VerdictTable, objective: Objective
) -> None:
    """Check that confirmation and verdict play every task equally often, so that means are comparable.

    Raises:
        ConfigError: They do not, or the verdict's rule does not suit the tasks.
    """
    several = max(len(task.tasks), 1)
    for name, table in (("confirmation", confirmation), ("verdict", verdict)):
        if table.episodes % several:
            what = f"episodes = {table.episodes} must be a multiple of the number of tasks ({several})."
            do = f"use a multiple of {several}"
            raise ConfigError(what, where=f"{name}.episodes", do=do)
    if verdict.judge == "worst":
        if several < 2 or verdict.episodes < 2 * several:
            do = "add [[tasks]], and play at least two episodes of each"
            raise ConfigError('judge = "worst" needs several tasks.', where="verdict.judge", do=do)
        if objective.cost is not None:
            do = 'remove cost and within, or use judge = "mean"'
            raise ConfigError('judge = "worst" cannot be combined with a cost.', where="verdict.judge", do=do)
