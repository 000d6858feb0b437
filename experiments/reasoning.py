"""reasoning-gym's questions as an OpenEnv environment: an episode is a few questions of one data set.

Questions, right answers and the verifiers that score an answer are reasoning-gym's. This owns where in a text
the answer is.
"""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field
from typing_extensions import override

# Without wheels, so absent: reasoning-gym imports them at once, and only its data sets game_of_life,
# zebra_puzzles and codeio use them.
for _absent in ("cellpylib", "pycosat", "zss"):
    if find_spec(_absent) is None:
        sys.modules[_absent] = ModuleType(_absent)

import reasoning_gym  # noqa: E402
from reasoning_gym.utils import extract_answer  # noqa: E402


class AnswerAction(Action):  # type: ignore[misc]  # openenv carries no types
    """An answer: what stands in `<answer>` tags, or all of the text where there are none."""

    text: str


class QuestionObservation(Observation):  # type: ignore[misc]
    """The next question."""

    question: str
    verdict: str | None = Field(default=None, description="Of the answer before.")


class ReasoningEnvironment(Environment[AnswerAction, QuestionObservation, State]):  # type: ignore[misc]
    """Questions, one a step. An answer's reward is what the data set's verifier gives it, in [0, 1]."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state, self._questions = State(), list[dict[str, Any]]()
        self._data: Any = None

    @override
    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        dataset: str = "chain_sum",
        questions: int = 4,
        **settings: object,
    ) -> QuestionObservation:
        """Draw `questions` from `dataset`, with its `settings`, which make them harder or easier."""
        self._state = State(episode_id=episode_id)
        first = (seed or 0) * questions  # question n of an episode has the seed first + n: none is had twice
        self._data = reasoning_gym.create_dataset(dataset, seed=first, size=questions, **settings)
        self._questions = list(self._data)
        return QuestionObservation(question=self._questions[0]["question"], reward=0.0)

    @override
    def step(
        self, action: AnswerAction, timeout_s: float | None = None, **kwargs: object
    ) -> QuestionObservation:
        """Score the answer, and ask the next question."""
        asked = self._questions[self._state.step_count]
        self._state.step_count += 1
        reward = self._score(action.text, asked)
        verdict = "Right." if reward == 1 else f"Not right: it is {asked['answer']}."
        rest = self._questions[self._state.step_count :]
        question = rest[0]["question"] if rest else ""
        return QuestionObservation(question=question, verdict=verdict, reward=reward, done=not rest)

    @property
    @override
    def state(self) -> State:
        """The episode's id and how many steps it has had."""
        return self._state

    def _score(self, text: str, asked: dict[str, Any]) -> float:
        answer = extract_answer(text)
        try:
            return float(self._data.score_answer(text.strip() if answer is None else answer, entry=asked))
        except Exception:  # a verifier may trip over what is no answer at all
            return 0.0
