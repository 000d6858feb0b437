"""A Candidate: one point of the search space, all that decides what is asked of the model.

It owns the context settings, the demonstrations and the digest. The ranges of numbers are
`lab.llm.sampling`'s, the text's form is `lab.agent.template`'s.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

from lab.agent.template import PromptTemplate
from lab.errors import ConfigError, unknown_key
from lab.llm.sampling import SamplingParams, check_number

Layout = Literal["text", "turns"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

Setting = str | float | int | bool
"""The value of one setting; a template's is its name."""


@dataclass(frozen=True)
class ContextSettings:
    """How much of the episode so far the model is shown, and how it is laid out.

    Attributes:
        history: earlier steps shown, at most.
        layout: `text` writes them into the one user message; `turns` sends them as chat turns, which
            are only appended to, so that an endpoint's prefix cache holds.
        show_rewards: whether the rewards of earlier steps are shown.
    """

    history: int = 4
    layout: Layout = "text"
    show_rewards: bool = True

    def __post_init__(self) -> None:
        check_number("history", self.history, whole=True)
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout is {self.layout!r}.", where="layout", do="use text or turns")
        if not isinstance(self.show_rewards, bool):
            raise ConfigError("show_rewards must be true or false.", where="show_rewards")
        if self.history == 0:  # without history the layouts are one and the same candidate
            object.__setattr__(self, "layout", "text")


@dataclass(frozen=True)
class Demonstration:
    """One good step of an earlier episode, shown to the model as an exchange before its own begins.

    Attributes:
        step: its number in that episode.
        observation: what the environment had shown.
        action: what was answered.
        fields: those of the observation that templates name, with their texts.
    """

    step: int
    observation: str
    action: str
    fields: tuple[tuple[str, str], ...] = ()

    def as_table(self) -> dict[str, Any]:
        """Plain values; no key for no fields."""
        table = {"step": self.step, "observation": self.observation, "action": self.action}
        return {**table, "fields": dict(self.fields)} if self.fields else table

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> "Demonstration":
        """The inverse of `as_table`."""
        return cls(**{**table, "fields": tuple(table.get("fields", {}).items())})


@dataclass(frozen=True)
class Candidate:
    """Template, sampling, context and demonstrations together."""

    template: PromptTemplate
    sampling: SamplingParams = field(default_factory=SamplingParams)
    context: ContextSettings = field(default_factory=ContextSettings)
    demonstrations: tuple[Demonstration, ...] = ()

    def as_table(self) -> dict[str, Any]:
        """Plain values for a TOML or JSON file, in a fixed order; no key for no demonstrations."""
        table = asdict(self)
        table["sampling"]["stop"] = list(self.sampling.stop)
        table["demonstrations"] = [shown.as_table() for shown in self.demonstrations]
        if not self.demonstrations:
            del table["demonstrations"]
        return table

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> "Candidate":
        """The inverse of `as_table`.

        Raises:
            ConfigError: a key is unknown, or a value out of its range.
            KeyError, TypeError: a key is missing, or holds the wrong kind of value.
        """
        check_keys(cls, table, "candidate")
        for name, part in (
            ("template", PromptTemplate),
            ("sampling", SamplingParams),
            ("context", ContextSettings),
        ):
            check_keys(part, table[name], f"candidate.{name}")
        return cls(
            PromptTemplate(**table["template"]),
            SamplingParams(**table["sampling"]),
            ContextSettings(**table["context"]),
            tuple(Demonstration.from_table(entry) for entry in table.get("demonstrations", ())),
        )

    @property
    def settings(self) -> dict[str, Setting]:
        """Every setting but the texts, flat, by its name in experiment files and in MLflow."""
        sampling = {key: value for key, value in asdict(self.sampling).items() if key != "stop"}
        own = {"template": self.template.name, **sampling, **asdict(self.context)}
        return {**own, "demonstrations": len(self.demonstrations)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every value of the candidate, as `sha256:<64 hex digits>`."""
        canonical = json.dumps(self.as_table(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def check_keys(cls: type, table: Mapping[str, object], where: str) -> None:
    """Pass where the dataclass `cls` has every key of `table`.

    Raises:
        ConfigError: it has not.
    """
    known = [one.name for one in fields(cls)]
    for name in table:
        if name not in known:
            raise unknown_key(name, known, where=f"{where}.{name}")
