"""An Agent for one's own program: a frozen prompt with its model, which answers observations with actions.

It plays as `inference.py` does; it owns the episode so far, and leaves choosing the action to
`lab.agent.agent`.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from lab.agent import agent, rollout
from lab.agent.episode import Episode, Start
from lab.agent.step import Step
from lab.environments.config import choose_environment
from lab.environments.environment import open_environment
from lab.errors import ConfigError
from lab.llm.client import Model
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.settings import choose_model, read_surroundings
from lab.llm.throttle import Patience
from lab.submission.frozen import BEST, FrozenPrompt, read_frozen


def load_frozen(path: Path | str = BEST) -> FrozenPrompt:
    """Read a frozen prompt, and check its digest; no call is made.

    Raises:
        ConfigError: The file is missing, damaged, in an unsupported format, or was changed.
    """
    return read_frozen(Path(path))


class Agent:
    """A frozen prompt that acts in one's own program; use it as an async context manager.

        async with lab.Agent.from_frozen("prompts/best.toml") as agent:
            action = await agent.act("the first observation")
            action = await agent.act("what followed", reward=1.0)

    The model is the one that it was tuned on, or that variables name, as for `inference.py`. An agent holds
    one episode at a time: `reset` starts the next.
    """

    def __init__(self, frozen: FrozenPrompt, schema: str = "") -> None:
        self.frozen, self._schema = frozen, schema
        self._stack = AsyncExitStack()
        self._model: Model | None = None
        self.reset()

    @classmethod
    def from_frozen(cls, path: Path | str = BEST, *, schema: str = "") -> "Agent":
        """The agent of a frozen prompt; its model is opened by `async with`.

        Args:
            schema: JSON Schema of the actions; empty for plain text.

        Raises:
            ConfigError: As `load_frozen`.
        """
        return cls(load_frozen(path), schema)

    async def __aenter__(self) -> "Agent":
        read_surroundings(Path.cwd())
        model = choose_model(self.frozen.model.choice)
        async with AsyncExitStack() as stack:
            opening = stack.enter_context(opening_model(model))
            self._model = await stack.enter_async_context(open_endpoint(opening, Patience()))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._model = None
        await self._stack.aclose()

    def reset(self) -> None:
        """Start a new episode: the next `act` gets its first observation."""
        self._start: Start | None = None
        self._steps, self._action = list[Step](), ""

    async def act(
        self, observation: str, reward: float = 0.0, *, fields: Mapping[str, str] | None = None
    ) -> str:
        """Answer an observation with the next action.

        Args:
            observation: Text of the observation.
            reward: Reward of the action before; ignored at the first observation.
            fields: Fields of the observation, with their texts, where the template names some.

        Raises:
            CallError, EndpointError: The model call failed; the same observation may be tried again.
            ConfigError: The agent is not open, or the template names a field that is not given.
        """
        start, steps, seen = self._start, list(self._steps), dict(fields or {})
        if start is None:
            start = Start(observation, seen, self._schema)
        else:
            steps.append(Step(len(steps) + 1, self._action, observation, reward, done=False, fields=seen))
        answer = await self._player().act(start, steps)
        self._start, self._steps, self._action = start, steps, answer.action
        return answer.action

    async def play(self, seed: int = 0) -> Episode:
        """Play one episode of the environment that the prompt was tuned for; paths are relative to here.

        Raises:
            LabError: The environment or a model call failed.
        """
        where = choose_environment(self.frozen.environment)
        async with open_environment(where) as environment, environment.session() as session:
            return await rollout.play(self._player(), session, seed)

    def _player(self) -> agent.Agent:
        if self._model is None:
            do = "use it as `async with lab.Agent.from_frozen(path) as agent:`"
            raise ConfigError("The agent is not open.", where="lab.Agent", do=do)
        return agent.Agent(self.frozen.candidate, self._model, self.frozen.task)
