"""OpenSpiel's tic-tac-toe against a seeded opponent, as an OpenEnv environment.

Rules, returns and the stronger opponent (Monte Carlo tree search) are OpenSpiel's. This owns how the board is
shown, how a move is read, and that a text that is no legal move loses the game.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyspiel
from open_spiel.python.algorithms import mcts
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field
from typing_extensions import override

LOST = -1.0


class MoveAction(Action):  # type: ignore[misc]  # openenv carries no types
    """A move: the first number in the text is the square's."""

    text: str


class BoardObservation(Observation):  # type: ignore[misc]
    """The board before the player's move."""

    board: str = Field(description="Three rows; a free square shows its number.")
    moves: str = Field(description="The numbers of the free squares.")
    mark: str = Field(description="The player's own: x, which begins, or o.")
    note: str | None = Field(default=None, description="How the game ended.")


class TicTacToeEnvironment(Environment[MoveAction, BoardObservation, State]):  # type: ignore[misc]
    """One game. The reward comes at its end: 1 for a win, 0 for a draw, -1 for a loss or an illegal move."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state, self._rules = State(), pyspiel.load_game("tic_tac_toe")
        self._board, self._seat = self._rules.new_initial_state(), 0
        self._opponent: Callable[[Any], int] = _random_player(np.random.RandomState(0))

    @override
    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        begins: bool = True,
        simulations: int = 0,
        **kwargs: object,
    ) -> BoardObservation:
        """Begin a game.

        Args:
            begins: whether the player has the first move.
            simulations: of the opponent's tree search before each move; 0 for one that moves at random.
        """
        self._state, self._seat = State(episode_id=episode_id), 0 if begins else 1
        self._board = self._rules.new_initial_state()
        chance = np.random.RandomState(seed)
        self._opponent = _random_player(chance)
        if simulations:
            self._opponent = _searching(self._rules, simulations, chance)
        self._answer()
        return self._shown()

    @override
    def step(self, action: MoveAction, timeout_s: float | None = None, **kwargs: object) -> BoardObservation:
        """Move, and let the opponent move."""
        self._state.step_count += 1
        number = re.search("[0-9]+", action.text)
        if number is None or int(number[0]) not in self._board.legal_actions():
            note = f"{number[0]} is no free square." if number else "There is no number in the move."
            return self._shown(f"{note} You lose.", LOST)
        self._board.apply_action(int(number[0]))
        self._answer()
        return self._shown()

    @property
    @override
    def state(self) -> State:
        """The episode's id and how many steps it has had."""
        return self._state

    def _answer(self) -> None:
        if not self._board.is_terminal() and self._board.current_player() != self._seat:
            self._board.apply_action(self._opponent(self._board))

    def _shown(self, note: str | None = None, reward: float = 0.0) -> BoardObservation:
        """The board; `note` where the game is over before its end."""
        if self._board.is_terminal():
            reward = float(self._board.returns()[self._seat])
            note = {1.0: "You win.", 0.0: "A draw.", LOST: "You lose."}[reward]
        squares = [
            str(number) if square == "." else square
            for number, square in enumerate(str(self._board).replace("\n", ""))
        ]
        return BoardObservation(
            board="\n".join(" ".join(squares[row : row + 3]) for row in (0, 3, 6)),
            moves=", ".join(square for square in squares if square.isdigit()),
            mark="xo"[self._seat],
            note=note,
            reward=reward,
            done=note is not None,
        )


def _random_player(chance: np.random.RandomState) -> Callable[[Any], int]:
    return lambda board: int(chance.choice(board.legal_actions()))


def _searching(rules: Any, simulations: int, chance: np.random.RandomState) -> Callable[[Any], int]:  # noqa: ANN401
    judge = mcts.RandomRolloutEvaluator(n_rollouts=1, random_state=chance)
    bot = mcts.MCTSBot(rules, 2.0, simulations, judge, random_state=chance)
    return lambda board: int(bot.step(board))
