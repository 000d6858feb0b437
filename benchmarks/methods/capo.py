"""CAPO (arXiv 2504.16005) from `promptolution`: instructions evolve by crossover and mutation, in a race.

Its settings are the package's, which are the paper's (4 crossovers per step, alpha 0.2, a length penalty of
0.05, at most 10 blocks), except these. A block has episodes of about 12 calls, not 30 items: one block of 30
episodes for its 14 candidates could cost more than the whole budget. There are no few-shot examples, because
an episode has no labelled pairs. The population is the library's system texts, each with the baseline's turn
text and numbers, because CAPO has one instruction; up to its ten, they are the package's variations of the
first. The scores are returns divided by the task's `max_return`, so that the penalty has a scale. The pick is
the first of the population after each step, as ranked by the package; before the end of the first step, the
best mean among those with the most episodes.
"""

import logging
import random
from collections import defaultdict
from statistics import fmean

import pandas as pd
from promptolution.llms.base_llm import BaseLLM
from promptolution.optimizers.base_optimizer import BaseOptimizer
from promptolution.optimizers.capo import CAPO
from promptolution.predictors.base_predictor import BasePredictor
from promptolution.tasks.reward_tasks import RewardTask
from promptolution.utils.prompt_creation import create_prompt_variation

from benchmarks.ground import Ground
from benchmarks.methods.texts import goal, try_texts

BLOCK_CALLS, BLOCKS = 12, 10
POPULATION = 10
STEPS = 10_000
"""More steps than any budget allows: the calls end the run."""


def run(ground: Ground) -> None:
    """Evolve until the calls are used up."""
    logging.getLogger("promptolution").setLevel(logging.ERROR)
    random.seed(ground.seed)  # the package uses the module's global generator
    model = _Asked(ground)
    block = max(1, BLOCK_CALLS // ground.experiment.task.max_steps)
    seeds = [str(seed) for seed in ground.seeds[: block * BLOCKS]]
    task = RewardTask(
        pd.DataFrame({"x": seeds}),
        reward_function=float,
        task_description=goal(ground.experiment),
        n_subsamples=block,
        eval_strategy="sequential_block",
        seed=ground.seed,
    )
    episodes = _Episodes(model, ground)
    texts = [template.system for template in ground.experiment.space.templates.values()]
    texts += create_prompt_variation([texts[0]] * (POPULATION - len(texts)), model)
    optimizer = CAPO(
        predictor=episodes,
        task=task,
        meta_llm=model,
        initial_prompts=texts,
        upper_shots=0,
        max_n_blocks_eval=BLOCKS,
        check_fs_accuracy=False,
        create_fs_reasoning=False,
        df_few_shots=pd.DataFrame({"x": []}),
        callbacks=[episodes],
    )
    optimizer.optimize(n_steps=STEPS)


class _Asked(BaseLLM):  # type: ignore[misc]  # the package is untyped
    """The proposing model."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self._ground = ground

    def _get_response(self, prompts: list[str], system_prompts: list[str]) -> list[str]:
        return [
            self._ground.ask(f"{system}\n\n{prompt}")
            for system, prompt in zip(system_prompts, prompts, strict=True)
        ]


class _Episodes(BasePredictor):  # type: ignore[misc]  # the package is untyped
    """Plays an episode instead of one answer; the "answer" is the score."""

    def __init__(self, model: BaseLLM, ground: Ground) -> None:
        super().__init__(model)
        self._ground = ground
        self._scores = defaultdict[str, list[float]](list)
        self._stepped = False

    def on_step_end(self, optimizer: BaseOptimizer) -> bool:
        """Set the pick; the package calls this after each step, with a ranked population."""
        self._stepped = True
        self._choose(optimizer.prompts[0].construct_prompt())
        return True

    def on_train_end(self, optimizer: BaseOptimizer) -> None:
        """Do nothing."""

    def predict(
        self,
        prompts: str | list[str],
        xs: list[str],
        system_prompts: object = None,  # noqa: ARG002  # the package's signature
    ) -> tuple[list[str], list[str]]:
        """Return a score for each prompt on each seed."""
        texts = [prompts] * len(xs) if isinstance(prompts, str) else prompts
        scores = dict[tuple[str, str], float]()
        for text in dict.fromkeys(texts):
            # Equal prompts of one batch share their episodes; the package would play each.
            seeds = list(dict.fromkeys(x for one, x in zip(texts, xs, strict=True) if one == text))
            scores |= {
                (text, seed): score for seed, score in zip(seeds, self._play(text, seeds), strict=True)
            }
        if not self._stepped:
            self._choose(self._leader())
        said = [str(scores[pair]) for pair in zip(texts, xs, strict=True)]
        return said, said

    def _play(self, system: str, seeds: list[str]) -> list[float]:
        turn, task = self._ground.experiment.baseline.template.turn, self._ground.experiment.task
        candidate = try_texts(self._ground, "capo", system, turn)
        if isinstance(candidate, str):
            return [task.min_return / task.max_return] * len(seeds)
        episodes = self._ground.play(candidate, [int(seed) for seed in seeds])
        scores = [episode.episode_return / task.max_return for episode in episodes]
        self._scores[system] += scores
        return scores

    def _leader(self) -> str:
        farthest = max(map(len, self._scores.values()), default=0)
        means = {text: fmean(own) for text, own in self._scores.items() if len(own) == farthest}
        return max(means, key=lambda text: means[text], default="")

    def _choose(self, system: str) -> None:
        experiment = self._ground.experiment
        chosen = try_texts(self._ground, "capo", system, experiment.baseline.template.turn)
        if isinstance(chosen, str):
            return
        own, first = (self._scores.get(text) for text in (system, experiment.baseline.template.system))
        gain = (fmean(own) - fmean(first)) * experiment.task.max_return if own and first else None
        self._ground.choose(chosen, gain)

    def _extract_preds(self, preds: list[str]) -> list[str]:
        return preds
