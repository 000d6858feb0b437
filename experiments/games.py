"""TextArena's single-player games as an OpenEnv environment.

Games, rules and rewards are TextArena's. This owns what is shown of them, and the seeding: TextArena draws
from Python's one generator, which here every episode has to itself while it moves.
"""

import random
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import textarena
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field
from textarena.wrappers import ActionFormattingWrapper
from typing_extensions import override

SHOWN = 60
"""Characters of the player's own moves in the log."""

_drawing = Lock()


class GameAction(Action):  # type: ignore[misc]  # openenv carries no types
    """A move, in the words that the game's rules ask for."""

    text: str


class GameObservation(Observation):  # type: ignore[misc]
    """The game as its player knows it."""

    rules: str = Field(description="What the game says at its beginning.")
    log: str | None = Field(default=None, description="Moves and answers so far, a line or more each.")


class GamesEnvironment(Environment[GameAction, GameObservation, State]):  # type: ignore[misc]
    """One game; `reset` chooses which. The reward comes at its end, and is in [0, 1]."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state, self._random = State(), random.Random(0).getstate()
        self._game: Any = None  # TextArena carries no types
        self._seen = list[tuple[Any, str]]()

    @override
    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        game: str = "GuessTheNumber-v0",
        **settings: int,
    ) -> GameObservation:
        """Begin `game`, with its `settings`, such as `max_turns`."""
        self._state, self._seen = State(episode_id=episode_id), []
        with self._alone():
            self._game = ActionFormattingWrapper(textarena.make(f"{game}-raw", **settings))
            self._game.reset(num_players=1, seed=seed)
        return self._shown(done=False)

    @override
    def step(self, action: GameAction, timeout_s: float | None = None, **kwargs: object) -> GameObservation:
        """Make a move. The second invalid one in a row ends the game, with what the last valid one earned."""
        self._state.step_count += 1
        with self._alone():
            done, _ = self._game.step(action.text)
        return self._shown(done)

    @property
    @override
    def state(self) -> State:
        """The episode's id and how many steps it has had."""
        return self._state

    def _shown(self, done: bool) -> GameObservation:
        kinds = textarena.ObservationType
        self._seen += [(kind, text.strip()) for _, text, kind in self._game.get_observation()[1]]
        lines = [
            f"You: {textwrap.shorten(text, SHOWN)}" if kind == kinds.PLAYER_ACTION else text
            for kind, text in self._seen
            if kind != kinds.PROMPT
        ]
        rules = "\n".join(text for kind, text in self._seen if kind == kinds.PROMPT)
        reward = 0.0
        if done:
            reward = float(self._game.state.rewards[0])
            lines.append(self._game.state.game_info[0].get("reason") or "The game is over.")
        return GameObservation(rules=rules, log="\n".join(lines) or None, reward=reward, done=done)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _drawing:
            others = random.getstate()
            random.setstate(self._random)
            try:
                yield
            finally:
                self._random = random.getstate()
                random.setstate(others)
