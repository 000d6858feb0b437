"""An Inspection: what an environment shows of itself, for the draft of an experiment.

It owns what is tried: a reset, one step with an example of an action, and a reset of each task that is
listed. What cannot be seen (the task in words, a full score) is asked for by the command.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.environments.action import ActionForm
from lab.environments.config import EnvironmentConfig
from lab.environments.environment import Session, open_environment
from lab.environments.example import example_answer
from lab.environments.observation import Observed
from lab.environments.task_list import TaskList
from lab.errors import ConfigError, EnvError, LabError
from lab.experiment.draft import Kind

MOST_TASKS = 8
"""Maximum number of tasks of a new experiment: of more, some are chosen, evenly spaced."""

_SCORES = ("score", "final_score", "task_score", "episode_score", "normalized_score", "grader_score")
"""Usual names of an environment's own score."""


@dataclass(frozen=True)
class Inspection:
    """The form of actions, the first observation, the result of one step, and the tasks.

    Attributes:
        action: The example of an action that was sent.
        state: The environment's state after that step; empty if it cannot be read.
        listed: The tasks that the environment lists.
        tasks: Those of them that could be reset, `MOST_TASKS` at most: arguments of reset by name.
    """

    form: ActionForm
    first: Observed
    action: str
    step: Observed | LabError
    state: Mapping[str, Any]
    listed: TaskList
    tasks: Mapping[str, Mapping[str, Any]]

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
    def own_score(self) -> str:
        """Where the environment's own score is, as `[task] score` names it; empty if none is seen."""
        for source, values in self._sources(self.first if isinstance(self.step, LabError) else self.step):
            for name in _SCORES:
                value = values.get(name)
                if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
                    return f"{source}.{name}"
        return ""

    @property
    def max_steps(self) -> int | None:
        """The environment's own maximum number of steps, of the longest task; None if it shows none."""
        found = [values.get("max_steps") for _, values in self._sources(self.first)]
        known = [steps for steps in (*found, self.listed.max_steps) if type(steps) is int and steps > 0]
        return max(known, default=None)

    def _sources(self, seen: Observed) -> Iterator[tuple[str, Mapping[str, Any]]]:
        metadata = seen.raw.get("metadata")
        yield "state", self.state
        yield "metadata", metadata if isinstance(metadata, Mapping) else {}
        yield "observation", seen.raw


async def inspect(config: EnvironmentConfig, say: Callable[[str], None]) -> Inspection:
    """Open an environment, and try what it does.

    Raises:
        EnvError, ConfigError: It cannot be opened or reset.
    """
    async with open_environment(config, Path.cwd(), say) as environment, environment.session() as session:
        listed = await environment.tasks()
        first = await _first(session, listed)
        action, step = await _example_step(session)
        state = await _state(session)
        tasks = await _playable(session, listed)
        return Inspection(session.form, first, action, step, state, listed, tasks)


async def _first(session: Session, listed: TaskList) -> Observed:
    """A reset without arguments, or if that is refused, the first task's that is not."""
    try:
        return await session.reset(0, {})
    except EnvError:
        for arguments in listed.tasks.values():
            await session.renew()
            with suppress(EnvError):
                return await session.reset(0, arguments)
        raise


async def _example_step(session: Session) -> tuple[str, Observed | LabError]:
    answer = example_answer(session.form)
    try:
        action = session.form.read(answer)
        return action.shown, await session.step(action.values)
    except EnvError:
        raise
    except LabError as error:
        return answer, error


async def _state(session: Session) -> Mapping[str, Any]:
    try:
        return await session.state()
    except EnvError:
        return {}


async def _playable(session: Session, listed: TaskList) -> dict[str, Mapping[str, Any]]:
    """The tasks that can be reset; none if the argument is a guess that changes nothing."""
    tried = list(listed.tasks.items())[:: -(-len(listed.tasks) // MOST_TASKS) or 1]
    firsts = dict[str, str]()
    for name, arguments in tried:
        await session.renew()  # a step or a refused reset may have left anything
        try:
            firsts[name] = (await session.reset(0, arguments)).text
        except (EnvError, ConfigError):
            continue
    if listed.guessed and len(set(firsts.values())) < 2:
        return {}
    return {name: listed.tasks[name] for name in firsts}
