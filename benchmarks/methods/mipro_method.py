"""DSPy by `dspy.MIPROv2`: its grounded proposer writes instructions, and TPE chooses among them.

The instructions are the system and the turn text, as in `dspy_method`. Set up as its docs describe
instructions without demonstrations: six of each text and ten trials, which is what `auto="light"` chooses for
two texts. Each trial plays the whole validation set, as "light" does with at most 50 examples; it is as large
as the budget allows. The summary of the data set is off: an example is a seed. An answer without the form
that the package expects ends its run, with the pick that it has then.
"""

import logging
import math
from collections import defaultdict
from contextlib import suppress
from statistics import fmean
from threading import Lock

import dspy
from dspy.utils.exceptions import AdapterParseError

from benchmarks.ground import Ground
from benchmarks.methods.dspy_method import THREADS, Asked, metric, playing
from benchmarks.methods.trials import Best
from lab.agent.candidate import Candidate

INSTRUCTIONS = 6
TRIALS = int(max(2 * 2 * math.log2(INSTRUCTIONS), 1.5 * INSTRUCTIONS))
"""The package's own rule for two texts."""

PROPOSING = 50
"""Calls for the instructions, at most about."""

TRAINING, BOOTSTRAPPED = 20, 15
"""Training seeds, and episodes that the package plays there for its proposer, about."""


def run(ground: Ground) -> None:
    """Search for instructions."""
    search(ground, 0, BOOTSTRAPPED)


def search(ground: Ground, shots: int, bootstrapped: int) -> None:
    """Search once; the validation set is chosen so that the last trial ends with the budget.

    Args:
        shots: Maximum number of demonstrations.
        bootstrapped: Number of episodes before the first trial, about.
    """
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    left = (ground.budget_calls - PROPOSING) // ground.experiment.task.max_steps - bootstrapped
    validation = ground.seeds[: max(2, left // (TRIALS + 1))]
    lm = dspy.LM("ground", cache=False, num_retries=0, engine=Asked(ground))
    returns, best, lock = defaultdict[Candidate, list[float]](list), Best(ground), Lock()

    def played(candidate: Candidate, seed: int, value: float) -> None:
        with lock:
            if seed in validation:
                own = returns[candidate]
                own.append(value)
                if len(own) == len(validation):
                    best.tell(candidate, fmean(own))

    optimizer = dspy.MIPROv2(
        metric=metric,
        prompt_model=lm,
        task_model=lm,
        max_bootstrapped_demos=shots,
        max_labeled_demos=0,
        auto=None,
        num_candidates=INSTRUCTIONS,
        num_threads=THREADS,
        seed=ground.seed,
    )
    seeds = ground.seeds[: len(validation) + TRAINING]
    examples = [dspy.Example(seed=seed).with_inputs("seed") for seed in seeds]
    with dspy.context(lm=lm), suppress(AdapterParseError):
        optimizer.compile(
            playing(ground, played, shots=shots > 0),
            trainset=examples[len(validation) :],
            valset=examples[: len(validation)],
            num_trials=TRIALS,
            minibatch=False,
            data_aware_proposer=False,
        )
