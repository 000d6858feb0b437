"""The table `[baseline]` of an experiment file: its keys, and the candidate that it is."""

from typing import Any

from pydantic import Field

from lab.agent.candidate import Candidate, ContextSettings, Layout
from lab.agent.template import FindTemplate
from lab.errors import ConfigError
from lab.experiment.environment_schema import Table
from lab.llm.sampling import SamplingParams


class BaselineTable(Table):
    """`[baseline]`: the candidate in use today; its values apply to settings that `[space]` does not list."""

    template: str
    model: str = ""
    temperature: float
    top_p: float = 1.0
    max_tokens: int
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: list[str] = Field(default=[])
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    reasoning_effort: str = ""
    seed: int = -1
    extra: dict[str, Any] = Field(default={})
    history: int
    layout: Layout = "text"
    show_rewards: bool = True


def read_baseline(table: BaselineTable, find: FindTemplate) -> Candidate:
    """The candidate of a table, with the template that `find` finds.

    Raises:
        ConfigError: A value is out of range.
    """
    sampling = table.model_dump(exclude={"template", "model", "history", "layout", "show_rewards"})
    try:
        return Candidate(
            find(table.template),
            SamplingParams(**sampling),
            ContextSettings(table.history, table.layout, table.show_rewards),
            model=table.model,
        )
    except ConfigError as error:
        raise ConfigError(error.what, where=f"baseline.{error.where}", why=error.why, do=error.do) from None
