"""A Step: one action of an episode and its result; and the Troubles of several.

Trouble is why a step has no action that the model chose and the environment accepted. It owns the kinds and
their counting; `lab.search.trouble_words` describes them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lab.environments.observation import Fields
from lab.errors import plain
from lab.llm.client import Completion

Trouble = Literal["empty", "no_action", "refused", "no_answer"]
"""Why a step has no action that the model chose and the environment accepted: the answer was empty; it could
not be parsed as an action; the environment refused the action; the model call failed."""


LONGEST = 200
"""Characters kept of a reason."""

REASONS = 3
"""Number of different reasons kept per kind and episode; other steps are counted without a reason."""

FALLBACK = ("empty", "no_answer")
"""Kinds in which the fallback action replaced the model's."""

_OURS = re.compile(r"\AThe [a-z ]+: (?=.)")
"""The lab's prefix before the environment's own words."""

STILL_THINKING = ", all tokens went to thinking"
"""End of the reason if the token limit was reached before the model began its answer."""


@dataclass(frozen=True)
class Step:
    """One action and its result.

    Attributes:
        number: Number of the step, from 1.
        observation: The environment's text after the action.
        error: Why the action is not the model's, or was not accepted; None without an error.
        completion: The model call of the action; None if it failed.
        fields: Fields of the observation.
        environment_s: Seconds that the environment took; None if not recorded.
        trouble: Kind of `error`; None if the action is the model's and the environment accepted it.
        environment_error: The environment's own error of an action that it accepted; None without one.
        own_score: The environment's own score after the step, where the task takes it and there is one.
    """

    number: int
    action: str
    observation: str
    reward: float
    done: bool
    error: str | None = None
    completion: Completion | None = None
    fields: Fields = field(default_factory=dict)
    environment_s: float | None = None
    trouble: Trouble | None = None
    environment_error: str | None = None
    own_score: float | None = None

    @property
    def reported_error(self) -> str | None:
        """The error of the STEP line: the environment's own, else the lab's."""
        return self.environment_error or self.error


def own_score_of(steps: Sequence[Step]) -> float | None:
    """The environment's own score of an episode: after the last step that has one."""
    return next((step.own_score for step in reversed(steps) if step.own_score is not None), None)


Times = tuple[tuple[str, str, int], ...]
"""(kind, reason, steps), most frequent first; the reason is empty if it was not kept."""


@dataclass(frozen=True, slots=True)
class Troubles:
    """The troubles in a number of steps.

    Attributes:
        steps: Number of steps, with and without trouble.
        times: Troubles of the steps.
    """

    steps: int = 0
    times: Times = ()

    @property
    def kinds(self) -> list[str]:
        """The kinds that occurred, most frequent first."""
        counted = Counter[str]()
        for kind, _, times in self.times:
            counted[kind] += times
        return [kind for kind, _ in counted.most_common()]

    @property
    def troubled(self) -> int:
        """Number of troubled steps."""
        return sum(times for _, _, times in self.times)

    @property
    def share(self) -> float:
        """Share of troubled steps, in [0, 1]."""
        return self.troubled / max(self.steps, 1)

    @property
    def unusable(self) -> bool:
        """Whether there were steps and all of them were troubled."""
        return 0 < self.steps <= self.troubled

    def share_of(self, *kinds: str) -> float:
        """Share of steps with one of these kinds of trouble, in [0, 1]."""
        return sum(times for kind, _, times in self.times if kind in kinds) / max(self.steps, 1)

    def reason(self, kind: str) -> str:
        """The most common reason of a kind, in the other side's words; empty if none was kept."""
        return next((reason for one, reason, _ in self.times if one == kind and reason), "")


def total(parts: Iterable[Troubles]) -> Troubles:
    """The sum of several counts."""
    steps, counted = 0, Counter[tuple[str, str]]()
    for part in parts:
        steps += part.steps
        for kind, reason, times in part.times:
            counted[kind, reason] += times
    return Troubles(steps, _ranked(counted))


def troubles_of(steps: Sequence[Step]) -> Troubles:
    """The troubles of an episode's steps, with a bounded number of reasons."""
    counted = Counter((step.trouble, _reason(step)) for step in steps if step.trouble)
    kept, seen = Counter[tuple[str, str]](), Counter[str]()
    for (kind, reason), times in counted.most_common():
        assert kind is not None
        seen[kind] += 1
        kept[kind, reason if seen[kind] <= REASONS else ""] += times
    return Troubles(len(steps), _ranked(kept))


def _ranked(counted: Counter[tuple[str, str]]) -> Times:
    return tuple((kind, reason, times) for (kind, reason), times in counted.most_common())


def _reason(step: Step) -> str:
    """The reason, in the other side's words; for an empty answer, the finish_reason."""
    if step.trouble == "empty" and step.completion is not None and step.completion.finish_reason:
        reason = f"finish_reason={step.completion.finish_reason}"
        reason += STILL_THINKING if step.completion.only_thought else ""
    else:
        reason = _OURS.sub("", step.error or "", count=1)
    line = plain(" ".join(reason[: 2 * LONGEST].split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."
