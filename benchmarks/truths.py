"""Truths: landscapes whose every mean is known, for samplers and pruners through Optuna's own interface.

The search's constants were chosen on `TRAINING` and are reported on `TEST`; each truth is drawn anew for each
study. An episode on a seed returns the point's mean, the seed's effect and noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lab.search.likeness import Texts
from lab.search.points import Distributions, Floats, Params, at_random, scaled

SAMPLE = 4000
"""Random points from which the average and the best of a truth are taken."""


@dataclass(frozen=True)
class Truth:
    """A landscape.

    Attributes:
        mean: A point's mean return over seeds.
        episode: The return of a point on a seed, by the seed's index and a source of noise.
        average, best: Mean return of a random point, and of the best of `SAMPLE`.
        most: Number of episodes of a point, at most.
        texts: What the categories stand for, where they are texts.
    """

    space: Distributions
    mean: Callable[[Params], float]
    episode: Callable[[Params, int, np.random.Generator], float]
    average: float
    best: float
    most: int = 8
    texts: Texts = field(default_factory=dict)

    def share(self, point: Params) -> float:
        """Return how far a point is on the way from the average to the best."""
        return (self.mean(point) - self.average) / (self.best - self.average)


def _space(templates: int) -> dict[str, BaseDistribution]:
    return {
        "template": CategoricalDistribution([f"t{i}" for i in range(templates)]),
        "temperature": FloatDistribution(0.0, 1.5),
        "history": IntDistribution(0, 4),
        "top_p": FloatDistribution(0.3, 1.0),
    }


Worth = Callable[[Params], float]
"""A point's value in standard deviations of the points'."""


def _number(space: Distributions, name: str, point: Params) -> float:
    distribution = space[name]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return float(scaled(distribution, [point[name]])[0])


def _interacting(space: Distributions, rng: np.random.Generator) -> Worth:
    """Each template has its own best temperature; history helps some and hurts others."""
    templates = space["template"]
    assert isinstance(templates, CategoricalDistribution)
    names = templates.choices
    level, optimum = rng.normal(size=len(names)), rng.uniform(-1, 1, len(names))
    slope, tilt = rng.normal(0, 0.6, len(names)), float(rng.normal(0, 0.3))

    def worth(point: Params) -> float:
        t = names.index(point["template"])
        heat, history, top = (_number(space, name, point) for name in ("temperature", "history", "top_p"))
        return float(level[t] - (heat - optimum[t]) ** 2 + slope[t] * history + tilt * top)

    return worth


def _additive(space: Distributions, rng: np.random.Generator) -> Worth:
    templates = space["template"]
    assert isinstance(templates, CategoricalDistribution)
    level = rng.normal(size=len(templates.choices))
    bends = {name: (rng.uniform(-1, 1), rng.uniform(0, 0.8)) for name in ("temperature", "history", "top_p")}

    def worth(point: Params) -> float:
        own = float(level[templates.choices.index(point["template"])])
        return own - sum(b * (_number(space, name, point) - at) ** 2 for name, (at, b) in bends.items())

    return worth


def _unstructured(space: Distributions, rng: np.random.Generator) -> Worth:
    """A point says nothing of any other (numbers are told apart to a tenth of their range)."""
    salt = int(rng.integers(2**31))

    def worth(point: Params) -> float:
        cells = [round(10 * _number(space, name, point)) for name in ("temperature", "history", "top_p")]
        key = [salt, *(cell + 100 for cell in cells), int(point["template"][1:])]
        return float(np.random.default_rng(key).normal())

    return worth


def _rarely_good(space: Distributions, rng: np.random.Generator) -> Worth:
    """One point in a hundred is good, all others are equally bad."""
    good = rng.choice(12, 2, replace=False)
    heat = float(rng.uniform(-0.9, 0.9))

    def worth(point: Params) -> float:
        near = abs(_number(space, "temperature", point) - heat) < 0.06
        return 5.0 if near and int(point["template"][1:]) in good else 0.0

    return worth


def _one_text(space: Distributions, rng: np.random.Generator) -> Worth:
    """One template is good, whatever the settings; all others are equally bad."""
    templates = space["template"]
    assert isinstance(templates, CategoricalDistribution)
    good = templates.choices[int(rng.integers(len(templates.choices)))]
    return lambda point: 5.0 * (point["template"] == good)


def gaussian(
    rng: np.random.Generator, worth: Worth, space: Distributions, *, spread: float, seeds: float, noise: float
) -> Truth:
    """Normal returns: standard deviations between points, between seeds, and of the noise, in reward."""
    values = np.array([worth(point) for point in at_random(space, SAMPLE, rng)])
    scale = spread / max(float(values.std()), 1e-9)
    effects = rng.normal(0, seeds, 10_000) if seeds else np.zeros(10_000)
    centre = float(values.mean())

    def mean(point: Params) -> float:
        return 400.0 + scale * (worth(point) - centre)

    def episode(point: Params, seed: int, draw: np.random.Generator) -> float:
        return mean(point) + float(effects[seed]) + float(draw.normal(0, noise))

    return Truth(space, mean, episode, 400.0, 400.0 + scale * (float(values.max()) - centre))


def coins(rng: np.random.Generator, worth: Worth, space: Distributions) -> Truth:
    """Rewards of 0 and 1, and most points near 0."""
    values = np.array([worth(point) for point in at_random(space, SAMPLE, rng)])
    centre, scale = float(values.mean()), float(values.std())

    def chance(value: Floats) -> Floats:
        chances: Floats = 1 / (1 + np.exp(3.0 - 1.6 * (value - centre) / scale))
        return chances

    def mean(point: Params) -> float:
        return float(chance(np.array(worth(point))))

    def episode(point: Params, seed: int, draw: np.random.Generator) -> float:  # noqa: ARG001
        return float(draw.random() < mean(point))

    chances = chance(values)
    return Truth(space, mean, episode, float(chances.mean()), float(chances.max()))


Kind = Callable[[Distributions, np.random.Generator], Worth]


def _drawn(kind: Kind, templates: int, spread: float, seeds: float, noise: float) -> Callable[[int], Truth]:
    def make(seed: int) -> Truth:
        rng, space = np.random.default_rng([7, seed]), _space(templates)
        return gaussian(rng, kind(space, rng), space, spread=spread, seeds=seeds, noise=noise)

    return make


def _coin(kind: Kind, templates: int) -> Callable[[int], Truth]:
    def make(seed: int) -> Truth:
        rng, space = np.random.default_rng([7, seed]), _space(templates)
        return coins(rng, kind(space, rng), space)

    return make


TRAINING: Mapping[str, Callable[[int], Truth]] = {
    "settings interact": _drawn(_interacting, 12, 80, 0, 80),
    "60 templates": _drawn(_interacting, 60, 80, 0, 80),
    "coins": _coin(_interacting, 12),
    "seeds differ": _drawn(_interacting, 12, 80, 120, 30),
}
TEST: Mapping[str, Callable[[int], Truth]] = {
    "additive": _drawn(_additive, 12, 80, 40, 60),
    "no structure": _drawn(_unstructured, 12, 80, 0, 60),
    "one in a hundred": _drawn(_rarely_good, 12, 80, 40, 40),
    "one text in 60": _drawn(_one_text, 60, 80, 40, 40),
}
TRUTHS = {**TRAINING, **TEST}
