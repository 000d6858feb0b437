"""Numbers first and then texts, as in `nat optimize` of NVIDIA's NeMo Agent Toolkit.

First Optuna (its default sampler) tunes the numbers with the baseline's text; then a genetic algorithm tunes
the text with those numbers. Rates and repetitions are the toolkit's defaults (`data_models/optimizer.py`):
20 trials of 3 repetitions, crossover 0.8, mutation 0.3, an elite of 2, tournaments of 3. Two settings are
smaller: the numbers take at most half the budget, because 20 trials would leave the texts nothing at 400
calls; and the population has as many members as the library has templates (24 there), which it starts with.
If the ground can be asked, the model combines and rewrites system texts; else a child is a parent's template
or, mutated, any template.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import optuna

from benchmarks.ground import Ground
from benchmarks.methods.texts import goal
from benchmarks.methods.trials import EPISODES, Best, candidate_of, distributions, mean_return
from lab.agent.candidate import Candidate
from lab.agent.template import PromptTemplate
from lab.errors import ConfigError

TRIALS, NUMBERS_SHARE = 20, 0.5
MOST_MEMBERS, CROSSOVER, MUTATION, ELITE, TOURNAMENT = 24, 0.8, 0.3, 2, 3

REWRITE = "{goal}\n\nRewrite this prompt so that the agent earns more. Answer with the prompt alone.\n\n{one}"
COMBINE = (
    "{goal}\n\nCombine these two prompts into one that is better than both. Answer with the prompt alone."
    "\n\nFirst:\n{one}\n\nSecond:\n{two}"
)

Scored = tuple[float, PromptTemplate]


def run(ground: Ground) -> None:
    """Tune the numbers, then the texts, until the calls are used up."""
    best = _Kept(ground)
    _numbers(ground, best)
    _Texts(ground, best, random.Random(ground.seed)).evolve()


class _Kept(Best):
    """Also keeps the best candidate, from which the second phase starts."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self.candidate = ground.experiment.baseline

    def tell(self, candidate: Candidate, value: float) -> None:
        if value > self.value:
            self.candidate = candidate
        super().tell(candidate, value)


def _numbers(ground: Ground, best: Best) -> None:
    """Tune all settings except the template with Optuna."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=ground.seed))
    space = distributions(ground.experiment.space)
    space.pop("template", None)
    params = ground.experiment.space.params(ground.experiment.baseline) or {}
    study.enqueue_trial({name: value for name, value in params.items() if name in space})
    trial_calls = EPISODES * ground.experiment.task.max_steps
    for _ in range(min(TRIALS, int(ground.budget_calls * NUMBERS_SHARE) // trial_calls)):
        trial = study.ask(space)
        own = replace(candidate_of(ground, trial.params), template=ground.experiment.baseline.template)
        value = mean_return(ground.play(own, ground.seeds[:EPISODES]))
        study.tell(trial, value)
        best.tell(own, value)


@dataclass
class _Texts:
    """The genetic algorithm over templates, with the numbers that the first phase chose."""

    ground: Ground
    best: _Kept
    rng: random.Random

    def evolve(self) -> None:
        """Evolve generations until the calls are used up."""
        numbers = self.best.candidate
        library = list(self.ground.experiment.space.templates.values())[:MOST_MEMBERS]
        population = [self._scored(numbers, template) for template in library]
        while True:
            population.sort(key=lambda scored: scored[0], reverse=True)
            children = list(self._children(population))
            population = population[:ELITE] + [self._scored(numbers, child) for child in children]

    def _scored(self, numbers: Candidate, template: PromptTemplate) -> Scored:
        candidate = replace(numbers, template=template)
        value = mean_return(self.ground.play(candidate, self.ground.seeds[:EPISODES]))
        self.best.tell(candidate, value)
        return value, template

    def _children(self, population: list[Scored]) -> Iterator[PromptTemplate]:
        for number in range(max(len(population) - ELITE, 1)):
            child = self._parent(population)
            if self.rng.random() < CROSSOVER:
                child = self._combined(child, self._parent(population), number)
            if self.rng.random() < MUTATION:
                child = self._mutated(child, number)
            yield child

    def _parent(self, population: list[Scored]) -> PromptTemplate:
        drawn = self.rng.sample(population, min(TOURNAMENT, len(population)))
        return max(drawn, key=lambda scored: scored[0])[1]

    def _combined(self, one: PromptTemplate, two: PromptTemplate, number: int) -> PromptTemplate:
        if not self.ground.can_ask:
            return self.rng.choice([one, two])
        return self._asked(COMBINE, one, two, number)

    def _mutated(self, one: PromptTemplate, number: int) -> PromptTemplate:
        if not self.ground.can_ask:
            return self.rng.choice(list(self.ground.experiment.space.templates.values()))
        return self._asked(REWRITE, one, one, number)

    def _asked(self, form: str, one: PromptTemplate, two: PromptTemplate, number: int) -> PromptTemplate:
        """A new system text with the first parent's turn text; the parent if the answer is not a template."""
        question = form.format(goal=goal(self.ground.experiment), one=one.system, two=two.system)
        try:
            return PromptTemplate(f"child{number}", self.ground.ask(question), one.turn)
        except ConfigError:
            return one
