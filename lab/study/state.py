"""The StudyState: the state of a study as a value, computed from its trials and its record.

It owns that function, which makes no calls and writes nothing. Everything that shows or judges a study reads
this value, so that all agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.errors import LabError
from lab.experiment.budget import BASELINES, PROPOSERS, Spending
from lab.experiment.experiment import Experiment
from lab.llm.dialect import Dialect
from lab.llm.settings import ModelChoice, shown_proposer
from lab.search.first_answers import read_stopped
from lab.search.headroom import Headroom, as_headroom
from lab.search.trials import Standings, evaluation, expected, read_texts, seeds_of
from lab.storage.keys import CONFIRMATION, HOLDOUT
from lab.storage.record import Record
from lab.storage.study_trials import StudyTrials
from lab.storage.trials import Trials
from lab.verdict.model_cost import costs_by_model
from lab.verdict.outcome import Judged, Outcome
from lab.verdict.verdict import Verdict, confirm, judge


@dataclass(frozen=True)
class Leader:
    """The trial that led from `at` on (seconds since 1970), with its mean over its episodes."""

    at: float
    trial: int
    mean: float
    episodes: int


@dataclass(frozen=True)
class StudyState:
    """A study at a moment.

    Attributes:
        trials: Trials of the search with the baseline, best first.
        headroom: Last result of the warm-up test.
        leaders: In order of time.
        verdict: The verdict on the holdout so far; None while too little was played.
        judged: When the study ended; None before its final verdict.
        stopped: The error that ended the study for good.
    """

    trials: tuple[Trial, ...]
    headroom: Headroom | None
    leaders: tuple[Leader, ...]
    verdict: Verdict | None
    judged: Judged | None
    stopped: LabError | None


def read_state(experiment: Experiment, record: Record, trials: StudyTrials) -> StudyState:
    """Return the current state."""
    search, facts = trials.search, trials.search.facts
    read_texts(search)
    ranked = Standings(experiment, record.ended).ranked(search.known, expected(search))
    judged = facts.get("judged")
    return StudyState(
        trials=tuple(ranked),
        headroom=as_headroom(facts.get("headroom")),
        leaders=tuple(Leader(**one) for one in facts.get("leaders", [])),
        verdict=_verdict(experiment, record, trials, {one.number: one for one in ranked}),
        judged=Judged(**judged) if judged else None,
        stopped=read_stopped(search),
    )


def as_learnt(
    experiment: Experiment, model: ModelChoice, trials: StudyTrials
) -> tuple[Experiment, ModelChoice]:
    """Return a study's experiment with its earlier verdicts, and its models with the dialects found."""
    experiment = replace(experiment, verdicts=len(trials.earlier))
    models = dict(experiment.models)
    for name, table in (trials.search.fact("dialects") or {}).items():
        dialect = Dialect.from_table(table)
        if name == BASELINES:
            model = replace(model, dialect=dialect)
        else:
            models[name] = replace(models[name], choice=replace(models[name].choice, dialect=dialect))
    return replace(experiment, models=models), model


def _verdict(
    experiment: Experiment, record: Record, trials: StudyTrials, known: Mapping[int, Trial]
) -> Verdict | None:
    def played(phase: int, study: Trials) -> list[tuple[Trial, Evaluation]]:
        seeds = seeds_of(experiment, phase)
        chosen = [known[one] for one in _numbers(study) if one in known and one != BASELINE]
        return [(one, evaluation(experiment, one.candidate, seeds, record.ended)) for one in chosen]

    table, objective = experiment.verdict, experiment.objective
    confirmed = confirm(played(CONFIRMATION, trials.confirmation), table.confidence)
    baseline = evaluation(experiment, experiment.baseline, seeds_of(experiment, HOLDOUT), record.ended)
    finalists = played(HOLDOUT, trials.holdout)
    if not baseline.episodes or not finalists:
        return None
    verdict = judge(confirmed, baseline, finalists, objective, table.confidence, table.judge)
    return replace(verdict, earlier=trials.earlier) if verdict.finalists else None


def _numbers(study: Trials) -> Sequence[int]:
    """Numbers of the search's trials that play in a phase, in the order of choice."""
    return list(dict.fromkeys(one.user_attrs["trial"] for one in study.known if "trial" in one.user_attrs))


def spending_of(
    experiment: Experiment,
    model: ModelChoice,
    record: Record,
    trials: StudyTrials,
    proposer: str | None = None,
) -> Spending:
    """Return the spending, with the amounts that other processes have spent.

    Args:
        proposer: Name of a separate proposing model; None to read it from the environment variables.
    """
    prices, models = experiment.prices_of(model), experiment.others
    spending = Spending(
        experiment.budget,
        earlier_minutes=record.earlier_minutes,
        verdict_minutes=trials.verdict_minutes,
        prices={BASELINES: prices, **{name: one.prices for name, one in models.items()}},
    )
    is_separate = shown_proposer() if proposer is None else proposer
    proposing = experiment.proposals.prices if experiment.proposals and is_separate else prices

    def recount() -> None:
        spending.count_others(
            {
                BASELINES: record.spent_elsewhere(prices, proposals=False),
                PROPOSERS: record.spent_elsewhere(proposing, proposals=True),
                **{
                    name: record.spent_elsewhere(one.prices, proposals=False, model=name)
                    for name, one in models.items()
                },
            }
        )
        spending.episodes = record.episodes

    spending.recount = recount
    recount()
    return spending


def outcome_of(
    experiment: Experiment, model: ModelChoice, record: Record, spending: Spending, state: StudyState
) -> Outcome:
    """Return the outcome of a study that has a verdict."""
    assert state.verdict is not None
    assert state.judged is not None
    spending.recount()
    return Outcome(
        experiment,
        model,
        record.name,
        state.trials,
        spending,
        state.judged,
        state.verdict,
        state.headroom,
        record.failures(),
        record.troubles,
        tuple(costs_by_model(experiment, model, record, state.trials)),
    )
