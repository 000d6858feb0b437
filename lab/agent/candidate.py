"""A Candidate: one point of the search space, with everything that determines the model's input.

It owns the context settings, the demonstrations and the digest. Ranges of numbers are
`lab.llm.sampling`'s; the form of texts is `lab.agent.template`'s.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

from lab.agent.template import PromptTemplate
from lab.errors import ConfigError, unknown_key
from lab.llm.sampling import SamplingParams, Settings, check_number
from lab.llm.sampling import Setting as Setting

Layout = Literal["text", "turns"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class ContextSettings:
    """How much of the episode the model is shown, and in which layout.

    Attributes:
        history: Maximum number of earlier steps shown.
        layout: `text` includes them in the single user message; `turns` sends them as chat turns, which
            are append-only, so that an endpoint's prefix cache applies.
        show_rewards: Whether the rewards of earlier steps are shown.
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
        if self.history == 0:  # without history both layouts are the same candidate
            object.__setattr__(self, "layout", "text")


@dataclass(frozen=True)
class Demonstration:
    """One good step of an earlier episode, shown to the model as an exchange before the episode.

    Attributes:
        step: Number of the step in that episode.
        observation: The observation before the action.
        action: The model's answer.
        fields: Observation fields that templates use, with their texts.
    """

    step: int
    observation: str
    action: str
    fields: tuple[tuple[str, str], ...] = ()

    def as_table(self) -> dict[str, Any]:
        """Plain values; without `fields` if there are none."""
        table = {"step": self.step, "observation": self.observation, "action": self.action}
        return {**table, "fields": dict(self.fields)} if self.fields else table

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> "Demonstration":
        """The inverse of `as_table`."""
        return cls(**{**table, "fields": tuple(table.get("fields", {}).items())})


@dataclass(frozen=True)
class Candidate:
    """A template with sampling parameters, context settings and demonstrations.

    Attributes:
        model: NAME of its table `[models.NAME]`; empty for the study's `[model]`.
    """

    template: PromptTemplate
    sampling: SamplingParams = field(default_factory=SamplingParams)
    context: ContextSettings = field(default_factory=ContextSettings)
    demonstrations: tuple[Demonstration, ...] = ()
    model: str = ""

    def as_table(self) -> dict[str, Any]:
        """Plain values for a TOML or JSON file, in a fixed order; no empty `demonstrations` or `model`."""
        table = {
            "template": _flat(self.template),
            "sampling": self.sampling.as_table(),
            "context": _flat(self.context),
        }
        demonstrations = [shown.as_table() for shown in self.demonstrations]
        more = {"demonstrations": demonstrations, "model": self.model}
        return table | {name: one for name, one in more.items() if one}

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> "Candidate":
        """The inverse of `as_table`.

        Raises:
            ConfigError: A key is unknown, or a value out of range.
            KeyError, TypeError: A key is missing, or its value has the wrong type.
        """
        check_keys(cls, table, "candidate")
        parts = {"template": PromptTemplate, "sampling": SamplingParams, "context": ContextSettings}
        for name, part in parts.items():
            check_keys(part, table[name], f"candidate.{name}")
        if not isinstance(table.get("model", ""), str):
            raise TypeError(f"model is {table['model']!r}, but must be of type str")
        return cls(
            PromptTemplate(**table["template"]),
            SamplingParams(**table["sampling"]),
            ContextSettings(**table["context"]),
            tuple(Demonstration.from_table(entry) for entry in table.get("demonstrations", ())),
            table.get("model", ""),
        )

    @property
    def settings(self) -> Settings:
        """All settings except texts, flat, by their names in experiment files and in MLflow."""
        model = {"model": self.model} if self.model else {}
        own = {"template": self.template.name, **model, **self.sampling.settings, **_flat(self.context)}
        return Settings({**own, "demonstrations": len(self.demonstrations)})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all values of the candidate, as `sha256:<64 hex digits>`."""
        canonical = json.dumps(self.as_table(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _flat(part: PromptTemplate | ContextSettings) -> dict[str, Any]:
    # Not `asdict`: it copies each value, which was most of a digest's time.
    return {one.name: getattr(part, one.name) for one in fields(part)}


def check_keys(cls: type, table: Mapping[str, object], where: str) -> None:
    """Raise a ConfigError unless the dataclass `cls` has every key of `table`."""
    known = [one.name for one in fields(cls)]
    for name in table:
        if name not in known:
            raise unknown_key(name, known, where=f"{where}.{name}")
