"""A Story: a study's record, arranged for the report; nothing is called, played or written.

It owns the order of episodes and leaders, and which figures the report shows; it leaves display to the
charts and the page.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from statistics import fmean

import optuna

from lab.agent.episode import Ending, Episode, FailedEpisode, Tally
from lab.agent.evaluation import BASELINE, Evaluation, Trial, trial_name
from lab.agent.step import Troubles
from lab.agent.task import Measure
from lab.display.screen import PHASES
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.proposers.rounds import proposals_of
from lab.reporting.texts import endings_of, texts_of
from lab.search.headroom import Headroom
from lab.search.trials import numbers_of
from lab.stats.intervals import Estimate
from lab.storage.keys import CONFIRMATION, HOLDOUT, EpisodeKey
from lab.storage.record import Record
from lab.storage.trials import Trials
from lab.study.past_study import PastStudy
from lab.study.results import Past, history, result_of
from lab.verdict.model_cost import ModelCost, costs_by_model
from lab.verdict.outcome import Outcome

_STABLE = 5
"""Number of best trials below which Optuna calls an importance unstable."""

CONFIDENCE = 0.95
"""Confidence level of an interval of a step's reward."""


@dataclass(frozen=True)
class Play:
    """One episode: candidate, phase, and time in working minutes of the study.

    Attributes:
        earned: Return or score, whichever is judged; None if it was cut or failed.
    """

    name: str
    phase: str
    seed: int
    began: float
    ended: float
    earned: float | None


@dataclass(frozen=True)
class Reign:
    """A leader from `minute` on, with its mean over this many episodes."""

    minute: float
    name: str
    mean: float
    episodes: int


@dataclass(frozen=True)
class Story:
    """The content of the report.

    Attributes:
        trials: Trials, best first, with the baseline.
        outcome: Outcome of the study; None without a verdict.
        reigns: Leaders, in order of time.
        importance: Optuna's importance of each free setting; empty if unavailable.
        minutes: Working time in minutes.
        failures: Number of failed attempts at calls, by what happened.
        failed: Candidates with failed episodes, and the errors.
        troubles: Troubles of all steps of the study.
        stopped: Error that stopped the study for good; empty if none did.
        models: Costs by model, if the space has several.
        extremes: Best and worst episode of each candidate in `shown`; one if it has only one.
        endings: How each candidate's episodes ended, by its digest, in the order of seeds.
        texts: The episodes of the best candidates, as far as there is room for them.
        history: The experiment's last studies, with their holdouts beside this one's.
        proposals: What each round proposed, with the reason for each refused text.
    """

    experiment: Experiment
    model: ModelChoice
    study: str
    trials: tuple[Trial, ...]
    outcome: Outcome | None
    plays: tuple[Play, ...]
    reigns: tuple[Reign, ...]
    headroom: Headroom | None
    importance: Mapping[str, float]
    spent: Spending
    minutes: float
    failures: Mapping[str, int]
    failed: tuple[tuple[str, str], ...]
    troubles: Troubles = field(default_factory=Troubles)
    stopped: str = ""
    models: tuple[ModelCost, ...] = ()
    extremes: Mapping[str, tuple[Episode, ...]] = field(default_factory=dict)
    endings: Mapping[str, Mapping[int, Ending]] = field(default_factory=dict)
    texts: Mapping[EpisodeKey, Episode] = field(default_factory=dict)
    history: tuple[Past, ...] = ()
    proposals: tuple[str, ...] = ()

    @property
    def measure(self) -> Measure:
        """The number that is judged, which every mean and value in the report refers to."""
        return self.experiment.objective.maximise

    @property
    def baseline(self) -> Evaluation | None:
        """The baseline's episodes: of the holdout if played, else of the search."""
        if self.outcome:
            return self.outcome.verdict.baseline
        return next((trial.evaluation for trial in self.trials if trial.number == BASELINE), None)

    @property
    def chosen(self) -> tuple[str, Evaluation] | None:
        """The frozen candidate, or the leader so far; None before any episode."""
        if self.outcome:
            return trial_name(self.outcome.chosen[0]), self.outcome.verdict.frozen
        return next(((trial.name, trial.evaluation) for trial in self.trials), None)

    @property
    def shown(self) -> dict[str, Evaluation]:
        """The candidates whose episodes are shown: the chosen one, and the baseline."""
        chosen = {} if self.chosen is None else {self.chosen[0]: self.chosen[1]}
        baseline = {} if self.baseline is None else {"baseline": self.baseline}
        return {name: one for name, one in (chosen | baseline).items() if one.episodes}

    @cached_property
    def templates(self) -> list[str]:
        """Names, in the order of their best trials, which determines their colours."""
        return list(dict.fromkeys(trial.candidate.template.name for trial in self.trials))


def expected_of(trial: Trial) -> Estimate:
    """The estimate that the search ranks a trial by; see `Trial.expected`."""
    if trial.expected is not None:
        return trial.expected
    return Estimate(trial.evaluation.mean, -inf, inf, len(trial.evaluation.episodes))


def tell(past: PastStudy) -> Story:
    """The story of a study."""
    record, experiment = past.record, past.experiment
    names = {digest: trial_name(number) for digest, number in numbers_of(past.search.known).items()}
    names[experiment.baseline.digest] = "baseline"
    stretches = record.stretches()
    story = Story(
        experiment=experiment,
        model=past.model,
        study=record.name,
        trials=past.trials,
        outcome=past.outcome,
        plays=tuple(_plays(past, names, stretches)),
        reigns=tuple(
            Reign(minutes_at(one.at, stretches), trial_name(one.trial), one.mean, one.episodes)
            for one in past.state.leaders
        ),
        headroom=past.state.headroom,
        importance=importance(past.search),
        spent=past.spending,
        minutes=past.outcome.judged.minutes if past.outcome else record.earlier_minutes,
        failures=record.failures(),
        failed=tuple(
            (names.get(digest, "a candidate"), played.error.what)
            for (digest, _), played in record.ended.items()
            if isinstance(played, FailedEpisode)
        ),
        troubles=record.troubles,
        stopped=past.state.stopped.one_line if past.state.stopped else "",
        models=tuple(costs_by_model(experiment, past.model, record, past.trials)),
        endings=endings_of(record),
        history=tuple(history(past.storage, experiment.name, result_of(past) if past.outcome else None)),
        proposals=tuple(proposals_of(past.search)),
    )
    extremes = {name: _extremes(record, one) for name, one in story.shown.items()}
    candidates = [*story.shown.values(), *(trial.evaluation for trial in story.trials)]
    texts = texts_of(record, story.endings, [one.candidate.digest for one in candidates])
    return replace(story, extremes=extremes, texts=texts)


def _extremes(record: Record, evaluation: Evaluation) -> tuple[Episode, ...]:
    ranked = sorted(evaluation.values.items(), key=lambda earned: -earned[1])
    ends = (ranked[0], ranked[-1]) if len(ranked) > 1 else ranked
    return tuple(record.episodes_of(evaluation.candidate.digest, [seed for seed, _ in ends]))


def minutes_at(moment: float, stretches: Sequence[tuple[float, float]]) -> float:
    """The working minutes until a moment; pauses between two runs of the study do not count.

    Args:
        moment: Seconds since 1970.
        stretches: Periods of work, in order; see `Record.stretches`.
    """
    return sum(max(min(moment, until) - since, 0.0) for since, until in stretches) / 60


def phase_of(seed: int, experiment: Experiment) -> str:
    """The phase of the study that plays this seed."""
    return PHASES[(seed - experiment.seed >= CONFIRMATION) + (seed - experiment.seed >= HOLDOUT)]


def _plays(past: PastStudy, names: Mapping[str, str], stretches: Sequence[tuple[float, float]]) -> list[Play]:
    record, experiment = past.record, past.experiment
    plays: list[Play] = []
    for (digest, seed), at in record.ended_at().items():
        played, earned, began = record.ended.get((digest, seed)), None, at
        if isinstance(played, Tally):
            measure = experiment.objective.maximise
            earned = experiment.task.value_of(played.rewards, measure, played.own_score)
            began = at if played.began is None else played.began
        phase = phase_of(seed, experiment)
        since, until = (minutes_at(moment, stretches) for moment in (began, at))
        plays.append(Play(names.get(digest, ""), phase, seed, since, until, earned))
    return plays


def importance(trials: Trials) -> dict[str, float]:
    """Each parameter's share of the difference between the best trials and all, in descending order.

    Optuna's PED-ANOVA (Watanabe et al., IJCAI 2023) of the trials' mean reports. The best trials are a
    tenth of all, but at least as many as a stable result needs.

    Returns:
        Shares by parameter; empty if the trials are too few or do not differ.
    """
    played = [trial for trial in trials.known if trial.intermediate_values and trial.params]
    if len(played) < 2 * _STABLE:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator  # with sklearn and pandas: 1 s

    study = optuna.create_study()
    study.get_trials = lambda **_: played  # type: ignore[method-assign]  # adding 2,000 takes 0.5 s
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, _STABLE / len(played)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that lower is taken as better; hence the minus sign
        shares = evaluator.evaluate(study, target=lambda trial: -fmean(trial.intermediate_values.values()))
    whole = sum(shares.values())
    ranked = sorted(shares.items(), key=lambda share: -share[1])
    return {key: value / whole for key, value in ranked} if whole > 0 else {}
