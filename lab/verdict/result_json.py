"""The Result: a study's outcome as one JSON document, for programs; `docs/result.md` describes it.

It owns the document's keys. Within one `format` they keep their meaning; new ones may be added.
"""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from lab.agent.candidate import Candidate
from lab.agent.evaluation import BASELINE, Evaluation, Trial, trial_name
from lab.agent.step import FALLBACK, Troubles
from lab.experiment.budget import Spending, Spent
from lab.search.headroom import Headroom
from lab.stats.intervals import Estimate
from lab.verdict.model_cost import ModelCost
from lab.verdict.outcome import Outcome, Unvalidated, rounded
from lab.verdict.rows import trial_row
from lab.verdict.verdict import Compared, Confirmed, Verdict, estimate
from lab.verdict.words import claim, trouble_cautions

FORMAT = 1


def result(
    study: Outcome | Unvalidated,
    frozen_file: Path | None,
    untracked: Sequence[str] | None,
    urls: Mapping[str, str],
) -> str:
    """The document. Unknown or unbounded values are null, and so is the `verdict` of a study without one.

    The last two arguments are as in `lab.verdict.summary`.
    """
    table = {
        "format": FORMAT,
        "study": study.study,
        "experiment": study.experiment.name,
        "model": {
            "endpoint": study.model.shown,
            "name": study.model.name,
            **({"dialect": dialect} if (dialect := study.model.dialect.as_table()) else {}),
        },
        "frozen_file": str(frozen_file) if frozen_file else None,
        **(_judged(study) if isinstance(study, Outcome) else _unjudged(study)),
        "untracked": None if untracked is None else list(untracked),
        "mlflow": dict(urls),
    }
    return json.dumps(_bounded(table), indent=2, allow_nan=False, ensure_ascii=False)


def _judged(outcome: Outcome) -> dict[str, Any]:
    verdict, frozen, spent = outcome.verdict, outcome.frozen_prompt(), outcome.spending
    return {
        "judged": outcome.judged.created,
        "verdict": {
            "outcome": frozen.evidence.outcome,
            "frozen": trial_name(outcome.chosen[0]),
            "claim": claim(frozen),
            "cautions": trouble_cautions(verdict),
            "judged": verdict.measure,
            "refused": [one.trial.name for one in verdict.refused],
            "method": verdict.method,
            "confidence": verdict.confidence,
            "pairs": verdict.pairs,
            "planned_pairs": outcome.experiment.verdict.episodes,
            "limit": outcome.judged.limit or None,
            "earlier": list(verdict.earlier),
        },
        "candidate": _candidate(frozen.candidate),
        "evidence": frozen.as_table()["evidence"],
        "headroom": _headroom(outcome.headroom),
        "baseline": _played(verdict.baseline, verdict.confidence),
        "finalists": [_finalist(one, verdict.confidence) for one in verdict.finalists],
        "confirmed": [_confirmed(one) for one in verdict.confirmed],
        "trials": _trials(outcome.trials, verdict),
        "cost": {
            **_spent(spent),
            "episodes": spent.episodes,
            "dollars": spent.cost,
            "minutes": outcome.judged.minutes,
            "models": [_model_cost(one) for one in outcome.models],
        },
        "failures": dict(outcome.failures),
        "answers": _answers(outcome.troubles),
    }


def _unjudged(study: Unvalidated) -> dict[str, Any]:
    best = study.best
    return {
        "verdict": None,
        "reason": {"what": study.reason.what, "where": study.reason.where},
        "unvalidated": {
            "trial": best.name,
            "candidate": _candidate(best.candidate),
            "judged": study.experiment.objective.maximise,
            "return": best.evaluation.mean_return,
            "score": best.evaluation.mean_score,
            "episodes": len(best.evaluation.episodes),
            "baseline_return": study.baseline.mean_return if study.baseline else None,
        },
        "trials": _trials(study.trials, None),
        "cost": {"calls": study.spending.calls, "minutes": study.judged.minutes},
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {"digest": candidate.digest, "settings": candidate.settings}


def _headroom(headroom: Headroom | None) -> dict[str, Any] | None:
    if headroom is None:
        return None
    spread = {"spread": headroom.spread.mean, "interval": _interval(headroom.spread), "noise": headroom.noise}
    size = {"candidates": headroom.candidates, "episodes": headroom.spread.n}
    p_values = {"p_value": headroom.p_value, "p_large": headroom.p_large}
    return {"found": headroom.found, "result": headroom.result, **spread, **size, **p_values}


def _trials(trials: Sequence[Trial], verdict: Verdict | None) -> dict[str, Any]:
    tried = [trial for trial in trials if trial.number != BASELINE]
    return {
        "played": len(tried),
        "dropped": sum(trial.dropped for trial in tried),
        "troubled": [
            {"trial": trial.name, "answers": _answers(trial.evaluation.troubles)}
            for trial in trials
            if trial.evaluation.troubles.troubled
        ],
        "all": [{**trial_row(trial, verdict), "settings": trial.candidate.settings} for trial in trials],
    }


def _answers(troubles: Troubles) -> dict[str, Any]:
    """Shares of unusable answers."""
    reasons = {kind: reason for kind in troubles.kinds if (reason := troubles.reason(kind))}
    shares = {kind: troubles.share_of(kind) for kind in ("empty", "no_action", "refused")}
    return {"steps": troubles.steps, **shares, "fallback": troubles.share_of(*FALLBACK), "reasons": reasons}


def _finalist(one: Compared, confidence: float) -> dict[str, Any]:
    return {
        "trial": one.trial.name,
        "settings": one.trial.candidate.settings,
        **_played(one.unseen, confidence),
        "difference": one.difference.mean,
        "difference_interval": _interval(one.difference),
        "pairs": one.difference.n,
        "p_value": one.p_value,
        "other": {
            "name": one.unseen.other.measure,
            "difference": one.other.mean,
            "difference_interval": _interval(one.other),
        },
    }


def _confirmed(one: Confirmed) -> dict[str, Any]:
    return {
        "trial": one.trial.name,
        "return": one.unseen.mean_return,
        "score": one.unseen.mean_score,
        "interval": _interval(one.mean),
        "episodes": one.mean.n,
        "answers": _answers(one.unseen.troubles),
    }


def _played(unseen: Evaluation, confidence: float) -> dict[str, Any]:
    """One candidate's holdout."""
    mean = estimate(unseen, confidence)
    return {
        "return": unseen.mean_return,
        "interval": _interval(mean),
        "episodes": mean.n,
        "failed": len(unseen.failed),
        "score": unseen.mean_score,
        "tokens": unseen.tokens,
        "answers": _answers(unseen.troubles),
    }


def _model_cost(one: ModelCost) -> dict[str, Any]:
    return {
        "name": one.name,
        "model": one.model.choice.name,
        "endpoint": one.model.choice.shown,
        "candidates": one.candidates,
        "episodes": len(one.episodes),
        **_spent(one.spent),
        "dollars": one.dollars,
        "dollars_per_episode": one.dollars_per_episode,
    }


def _spent(spent: Spending | Spent) -> dict[str, int]:
    return {
        "calls": spent.calls,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "thinking_tokens": spent.thinking_tokens,
        "estimated_calls": spent.estimated,
    }


def _interval(one: Estimate) -> list[float]:
    return [one.low, one.high]


def _bounded(value: object) -> object:
    """Replace infinities, which JSON lacks, by null, and round as the frozen file does."""
    match value:
        case dict():
            return {key: _bounded(one) for key, one in value.items()}
        case list() | tuple():
            return [_bounded(one) for one in value]
        case float():
            return rounded(value) if isfinite(value) else None
        case _:
            return value
