"""An Inspection: what an environment shows of itself, for the draft of an experiment.

It owns what is tried: a reset, an episode with an example of an action, and a reset of each task. What
cannot be seen (the task in words, a full score) is asked for by the command.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab.agent.template import OPENING, OPENING_FIELD
from lab.environments.action import ActionForm
from lab.environments.config import EnvironmentConfig
from lab.environments.environment import Session, open_environment
from lab.environments.example import example_answer
from lab.environments.isolation import Isolation, isolation_of
from lab.environments.observation import Observed, named, reward_part
from lab.environments.task_list import SESSION_KEYS, TASK_ARGUMENTS, TaskList
from lab.errors import ConfigError, EnvError, LabError

Kind = Literal["text", "words", "json", "tool", "hook"]
"""What an answer is: the action's text; one of some words; JSON; a tool call; input of a hook."""

MOST_STEPS, MOST_S = 30, 30.0
"""Maximum steps of the episode that is tried, and its seconds."""

LEAST_OPENING = 40
"""Characters of a text that may be a task: a shorter one that the next step replaces seldom is."""

MOST_TASKS = 8
"""Maximum number of tasks of a new experiment: of more, some are chosen, evenly spaced."""

_SCORES = ("score", "final_score", "task_score", "episode_score", "normalized_score", "grader_score")
"""Usual names of an environment's own score."""


@dataclass(frozen=True)
class Inspection:
    """The form of actions, the first observation, the results of steps, and the tasks.

    Attributes:
        action: The example of an action that was sent.
        step: The result of the first step with it, or why there was none.
        played: The results of all steps with it, until the end, a refusal or a limit.
        state: The environment's state after that; empty if it cannot be read.
        grader: What its grader says then; None if it has none.
        isolation: Whether its sessions are separate.
        listed: The tasks that the environment lists.
        tasks: Those of them that could be reset, `MOST_TASKS` at most: arguments of reset by name.
    """

    form: ActionForm
    first: Observed
    action: str
    step: Observed | LabError
    played: Sequence[Observed]
    state: Mapping[str, Any]
    grader: Mapping[str, Any] | None
    isolation: Isolation
    listed: TaskList
    tasks: Mapping[str, Mapping[str, Any]]

    @property
    def last(self) -> Observed:
        """The result of the last step, or of reset if there was none."""
        return self.played[-1] if self.played else self.first

    @property
    def earned(self) -> float:
        """The sum of the example's rewards."""
        return sum(one.reward for one in self.played)

    @property
    def kind(self) -> Kind:
        """What an answer is."""
        if self.form.words:
            return "words"
        if self.form.text_field is not None:
            return "text"
        return "tool" if self.form.calls_tools else "json"

    @property
    def described(self) -> str:
        """The environment's description of its only field, if that is any text."""
        if self.form.text_field is None or self.form.words:
            return ""
        return str(self.form.fields[self.form.text_field].get("description", ""))

    @property
    def shown(self) -> tuple[str, ...]:
        """The names in the metadata, if the observation itself has no text."""
        if self.first.text:
            return ()
        fields = self.first.fields.items()
        return tuple(name for name, value in fields if name.startswith("metadata.") and value)

    @property
    def opening(self) -> tuple[str, ...]:
        """The placeholders of what reset shows and the next step no longer does, as most show their task."""
        if isinstance(self.step, LabError) or self.step.done:
            return ()
        shown = {name: value for name, value in self.first.fields.items() if "." not in name}
        if len(shown) < 2:
            return (OPENING,) if _is_lost(self.first.text, self.step.text) else ()
        return tuple(
            OPENING_FIELD + name
            for name, value in shown.items()
            if value
            and name not in ("max_steps", *SESSION_KEYS)
            and _is_lost(value, self.step.fields.get(name), whole=self.first.raw.get(name))
        )

    @property
    def own_score(self) -> str:
        """Where the environment's own score is, as `[task] score` names it; empty if none is seen."""
        found = [
            (path.count("."), place, _SCORES.index(name), f"{source}.{path}")
            for place, (source, values, deepest) in enumerate(self._sources(self.last))
            for path, value in named(values, deepest)
            if (name := path.rpartition(".")[2]) in _SCORES
            and (source, path) != ("metadata", f"reward.{self._earned}")
            and (_is_share(value) or (source == "grader" and value is None))
        ]
        return min(found, default=(0, 0, 0, ""))[-1]

    @property
    def _earned(self) -> str:
        """The part of the reward that is what the step earned."""
        parts = _mapping(_mapping(self.last.raw.get("metadata")).get("reward"))
        return reward_part(parts)

    @property
    def max_steps(self) -> int | None:
        """The environment's own maximum number of steps, of the longest task; None if it shows none."""
        found = [values.get("max_steps") for _, values, _ in self._sources(self.first)]
        known = [steps for steps in (*found, self.listed.max_steps) if type(steps) is int and steps > 0]
        return max(known, default=None)

    def _sources(self, seen: Observed) -> Iterator[tuple[str, Mapping[str, Any], int]]:
        """Where numbers may stand, with the most dots of a name: an observation's are often of its parts."""
        yield "state", self.state, 2
        yield "metadata", _mapping(seen.raw.get("metadata")), 2
        yield "observation", seen.raw, 0
        yield "observation.info", _mapping(seen.raw.get("info")), 1
        yield "grader", self.grader or {}, 2


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_lost(first: str, later: str | None, whole: object = "") -> bool:
    """Whether a step shows nothing in place of a value; or of a text, another.

    Args:
        whole: The value as received: one that is not a text, such as a list, is a part that changes.
    """
    return not later or (isinstance(whole, str) and len(first) >= LEAST_OPENING and first not in later)


async def inspect(
    config: EnvironmentConfig, say: Callable[[str], None], named_tasks: Sequence[str] = ()
) -> Inspection:
    """Open an environment, and try what it does.

    Args:
        named_tasks: Names of tasks, which replace those that it lists.

    Raises:
        EnvError, ConfigError: It cannot be opened or reset.
    """
    async with open_environment(config, Path.cwd(), say) as environment:
        listed = await environment.tasks(named_tasks)
        if named_tasks and not listed.tasks:
            takes = ", ".join(listed.takes) or "no argument"
            why = f"its reset takes {takes}"
            raise ConfigError("The environment's reset chooses no task by name.", where="--tasks", why=why)
        async with environment.session() as session:
            first = await _first(session, listed)
            action, step, played = await _example_episode(session)
            state, grader = await _told(session.state) or {}, await _told(session.grade)
            tasks = await _playable(session, listed, say, strict=bool(named_tasks))
        isolation = await isolation_of(environment, 0, [*tasks.values()] or [{}])
        return Inspection(session.form, first, action, step, played, state, grader, isolation, listed, tasks)


async def _first(session: Session, listed: TaskList) -> Observed:
    """A reset without arguments, or if that is refused, the first task's that is not."""
    try:
        return await session.reset(0, {})
    except EnvError as error:
        for arguments in listed.tasks.values():
            await session.renew()
            with suppress(EnvError):
                return await session.reset(0, arguments)
        if not listed.tasks and any(name in TASK_ARGUMENTS for name in listed.takes):
            error.do = "name its tasks, which it does not list: --tasks NAME,NAME"
        raise


async def _example_episode(session: Session) -> tuple[str, Observed | LabError, list[Observed]]:
    """See `Inspection`: its action, step and played."""
    answer, ends = example_answer(session.form), time.monotonic() + MOST_S
    try:
        action = session.form.read(answer)
        step = await session.step(action.values)
    except EnvError:
        raise
    except LabError as error:
        return answer, error, []
    played = [step]
    with suppress(LabError):
        while len(played) < MOST_STEPS and not played[-1].done and time.monotonic() <= ends:
            played.append(await session.step(action.values))
    return action.shown, step, played


async def _told(ask: Callable[[], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any] | None:
    try:
        return await ask()
    except EnvError:
        return None


async def _playable(
    session: Session, listed: TaskList, say: Callable[[str], None], *, strict: bool
) -> dict[str, Mapping[str, Any]]:
    """The tasks that can be reset; none if the argument is a guess that changes nothing.

    Args:
        strict: Whether every task must be playable.
    """
    tried = list(listed.tasks.items())
    tried = tried if strict else tried[:: -(-len(tried) // MOST_TASKS) or 1]
    firsts = dict[str, str]()
    for name, arguments in tried:
        await session.renew()  # a step or a refused reset may have left anything
        try:
            firsts[name] = (await session.reset(0, arguments)).text
        except (EnvError, ConfigError):
            if strict:
                raise
    alike = listed.guessed and len(set(firsts.values())) < 2
    if alike and len(firsts) > 1:
        (name,) = next(iter(listed.tasks.values()))
        say(f"All {len(firsts)} tasks begin alike: see whether reset's {name!r} chooses them.")
    if alike and not strict:
        return {}
    return {name: listed.tasks[name] for name in firsts}
