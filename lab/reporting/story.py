"""A Story: a study's record, arranged for the report; nothing is called, played or written.

It owns the order of episodes and leaders, and which figures the report shows; it leaves display to the
charts and the page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lab.agent.episode import Episode, FailedEpisode, Tally
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.agent.task import Measure
from lab.agent.troubles import Troubles
from lab.experiment.budget import Spending, Spent
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.search.first_answers import stop_error
from lab.search.headroom import Headroom
from lab.search.loop import Search
from lab.search.player import Player
from lab.stats.intervals import Estimate, t_interval
from lab.storage.call_cache import Nothing
from lab.storage.journal import Begun, Opened, Over, Taken
from lab.storage.optuna_trials import importance
from lab.storage.record import CONFIRMATION, HOLDOUT, Record, Which
from lab.study.past_study import PastStudy
from lab.verdict.outcome import Outcome

CONFIDENCE = 0.95
"""Confidence level of a single candidate's interval in the search."""

PHASES = ("search", "confirmation", "holdout")


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
class Cost:
    """The study's cost.

    Attributes:
        dollars: Cost in dollars; None if a price is unknown.
        minutes: Working time in minutes.
    """

    spent: Spent
    dollars: float | None
    minutes: float


@dataclass(frozen=True)
class Story:
    """The content of the report.

    Attributes:
        trials: Trials, best first, with the baseline.
        outcome: Outcome of the study; None without a verdict.
        reigns: Leaders, in order of time.
        importance: Optuna's importance of each free setting; empty if unavailable.
        failures: Number of failed attempts at calls, by what happened.
        failed: Candidates with failed episodes, and the errors.
        troubles: Troubles of all steps of the study.
        stopped: Error that stopped the study for good; empty if none did.
        extremes: Best and worst episode of each candidate in `shown`; one if it has only one.
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
    cost: Cost
    failures: Mapping[str, int]
    failed: tuple[tuple[str, str], ...]
    troubles: Troubles = field(default_factory=Troubles)
    stopped: str = ""
    extremes: Mapping[str, tuple[Episode, ...]] = field(default_factory=dict)

    @property
    def measure(self) -> Measure:
        """The number that is judged, which every mean and value in the report refers to."""
        return self.experiment.objective.maximise

    @property
    def candidates(self) -> list[Trial]:
        """The trials without the baseline, best first."""
        return [trial for trial in self.trials if trial.number != BASELINE]

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
            winner = self.outcome.verdict.winner
            return (winner.trial.name if winner else "baseline", self.outcome.verdict.frozen)
        return next(((trial.name, trial.evaluation) for trial in self.trials), None)

    @property
    def shown(self) -> dict[str, Evaluation]:
        """The candidates whose episodes are shown: the chosen one, and the baseline."""
        chosen = {} if self.chosen is None else {self.chosen[0]: self.chosen[1]}
        baseline = {} if self.baseline is None else {"baseline": self.baseline}
        return {name: one for name, one in (chosen | baseline).items() if one.episodes}

    @property
    def templates(self) -> list[str]:
        """Names, in the order of their best trials, which determines their colours."""
        return list(dict.fromkeys(trial.candidate.template.name for trial in self.trials))


def estimate(evaluation: Evaluation, confidence: float = CONFIDENCE) -> Estimate:
    """Mean value with its interval."""
    return t_interval(list(evaluation.values.values()), confidence)


def tell(past: PastStudy) -> Story:
    """The story of a study; takes as long as all of the search's choices did."""
    record, experiment = past.record, past.experiment
    names = {trial.candidate.digest: trial.name for trial in past.trials}
    names[experiment.baseline.digest] = "baseline"
    plays = _plays(record, experiment, names)
    reigns, headroom = _reigns(record, experiment, {(play.name, play.seed): play.ended for play in plays})
    story = Story(
        experiment=experiment,
        model=past.model,
        study=record.name,
        trials=past.trials,
        outcome=past.outcome,
        plays=tuple(plays),
        reigns=tuple(reigns),
        headroom=headroom,
        importance=importance(record.store.trials_url, record.name),
        cost=_cost(past),
        failures=past.outcome.failures if past.outcome else record.failures(),
        failed=tuple(
            (names.get(digest, f"a candidate without an episode ({digest[7:15]})"), played.error.what)
            for (digest, _), played in record.ended.items()
            if isinstance(played, FailedEpisode)
        ),
        troubles=record.troubles,
        stopped=stop_error(record.stopped).one_line if record.stopped else "",
    )
    return replace(story, extremes={name: _extremes(record, one) for name, one in story.shown.items()})


def _extremes(record: Record, evaluation: Evaluation) -> tuple[Episode, ...]:
    ranked = sorted(evaluation.values.items(), key=lambda earned: -earned[1])
    ends = (ranked[0], ranked[-1]) if len(ranked) > 1 else ranked
    return tuple(record.episodes_of(evaluation.candidate.digest, [seed for seed, _ in ends]))


def minutes(record: Record) -> list[float]:
    """For each entry of the journal, the working minutes until then, without breaks."""
    passed, before, last = list[float](), 0.0, 0.0
    for at, event in zip(record.times, record.events, strict=True):
        paused = not passed or (isinstance(event, Opened) and event.alone)
        before += 0.0 if paused else max(at - last, 0.0) / 60
        passed.append(before)
        last = at
    return passed


def phase_of(seed: int, experiment: Experiment) -> str:
    """The phase of the study that plays this seed."""
    return PHASES[(seed - experiment.seed >= CONFIRMATION) + (seed - experiment.seed >= HOLDOUT)]


def _plays(record: Record, experiment: Experiment, names: Mapping[str, str]) -> list[Play]:
    began: dict[Which, float] = {}
    plays: list[Play] = []
    for minute, event in zip(minutes(record), record.events, strict=True):
        match event:
            case Begun(candidate, first, last):
                began |= {(candidate.digest, seed): minute for seed in range(first, last)}
            case Taken(digest, seed):
                began[digest, seed] = minute
            case Over(digest, seed):
                played = record.ended[digest, seed]
                earned = None
                if isinstance(played, Tally):
                    earned = experiment.task.value_of(played.rewards, experiment.objective.maximise)
                start = began.get((digest, seed), minute)
                phase = phase_of(seed, experiment)
                plays.append(Play(names.get(digest, ""), phase, seed, start, minute, earned))
            case _:
                pass
    return plays


def _reigns(
    record: Record, experiment: Experiment, ended: Mapping[tuple[str, int], float]
) -> tuple[list[Reign], Headroom | None]:
    """Replay the race from the journal, and note the leader after each round."""
    reigns: list[Reign] = []
    found: list[Headroom] = []

    def on_trial(trial: Trial) -> None:
        if trial.place != 1 and not (reigns and reigns[-1].name == trial.name):
            return
        minute = (
            ended.get((trial.name, trial.evaluation.episodes[-1].seed)) if trial.evaluation.episodes else None
        )
        first = trial if trial.place == 1 else search.trials[0]
        if minute is not None and first.evaluation.episodes:
            figures = (first.evaluation.mean, len(first.evaluation.episodes))
            reigns.append(Reign(minute, first.name, *figures))

    nothing = Nothing(record.ends_here)
    player = Player(nothing, nothing, experiment.task, experiment.search.in_flight, Spending(), record)
    search = Search(experiment, player, None, on_trial, found.append, record)
    search.catch_up(telling=True)
    return reigns, found[0] if found else None


def _cost(past: PastStudy) -> Cost:
    experiment, record, outcome = past.experiment, past.record, past.outcome
    if outcome:
        spending = outcome.spending
        tokens = (spending.prompt_tokens, spending.completion_tokens)
        spent = Spent(spending.calls, *tokens, spending.dollars, spending.unpriced)
    else:
        prices = experiment.prices_of(past.model)
        other = experiment.proposals.prices if experiment.proposals and past.proposer else prices
        spent = record.spent_elsewhere(prices, proposals=False)
        spent += record.spent_elsewhere(other, proposals=True)
    worked = outcome.judged.minutes if outcome else record.earlier_minutes
    return Cost(spent, None if spent.unpriced else spent.dollars, worked)
