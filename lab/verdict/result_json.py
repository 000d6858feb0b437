"""The Result: a study's outcome as one JSON document, for programs; `docs/result.md` describes it.

It owns the document's keys. Within one `format` they keep their meaning; new ones may be added.
"""

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.agent.troubles import FALLBACK, Troubles
from lab.search.headroom import Headroom
from lab.stats.intervals import Estimate, t_interval
from lab.verdict.cautions import trouble_cautions
from lab.verdict.outcome import Outcome
from lab.verdict.summary import claim
from lab.verdict.verdict import Compared, Confirmed

FORMAT = 1


def result(outcome: Outcome, frozen_file: Path | None, untracked: Sequence[str] | None) -> str:
    """The document. Unknown or unbounded values are null; `untracked` is as in `lab.verdict.summary`."""
    verdict, frozen = outcome.verdict, outcome.verdict.frozen.candidate
    table = {
        "format": FORMAT,
        "study": outcome.study,
        "experiment": outcome.experiment.name,
        "model": {
            "endpoint": outcome.model.shown,
            "name": outcome.model.name,
            "dialect": outcome.model.dialect.as_table(),
        },
        "judged": outcome.judged.created,
        "verdict": {
            "outcome": outcome.evidence.outcome,
            "frozen": verdict.winner.trial.name if verdict.winner else "baseline",
            "claim": claim(outcome),
            "cautions": trouble_cautions(verdict),
            "judged": verdict.measure,
            "refused": [one.trial.name for one in verdict.refused],
            "method": verdict.method,
            "confidence": verdict.confidence,
            "pairs": verdict.pairs,
            "planned_pairs": outcome.experiment.verdict.episodes,
            "limit": outcome.judged.limit or None,
        },
        "frozen_file": str(frozen_file) if frozen_file else None,
        "candidate": {"digest": frozen.digest, "settings": frozen.settings},
        "evidence": outcome.frozen_prompt().as_table()["evidence"],
        "headroom": _headroom(outcome.headroom),
        "baseline": _played(verdict.baseline, verdict.confidence),
        "finalists": [_finalist(one, verdict.confidence) for one in verdict.finalists],
        "confirmed": [_confirmed(one) for one in verdict.confirmed],
        "trials": _trials(outcome.trials),
        "cost": _cost(outcome),
        "failures": dict(outcome.failures),
        "answers": _answers(outcome.troubles),
        "untracked": None if untracked is None else list(untracked),
    }
    return json.dumps(_bounded(table), indent=2, allow_nan=False, ensure_ascii=False)


def _headroom(headroom: Headroom | None) -> dict[str, Any] | None:
    if headroom is None:
        return None
    ahead = {"ahead": headroom.ahead.mean, "interval": _interval(headroom.ahead)}
    return {"found": headroom.found, **ahead, "p_value": headroom.p_value}


def _trials(trials: Sequence[Trial]) -> dict[str, Any]:
    tried = [trial for trial in trials if trial.number != BASELINE]
    return {
        "played": len(tried),
        "dropped": sum(trial.dropped for trial in tried),
        "troubled": [
            {"trial": trial.name, "answers": _answers(trial.evaluation.troubles)}
            for trial in trials
            if trial.evaluation.troubles.troubled
        ],
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
    estimate = t_interval(list(unseen.values.values()), confidence)
    return {
        "return": unseen.mean_return,
        "interval": _interval(estimate),
        "episodes": estimate.n,
        "failed": len(unseen.failed),
        "score": unseen.mean_score,
        "tokens": unseen.tokens,
        "answers": _answers(unseen.troubles),
    }


def _cost(outcome: Outcome) -> dict[str, Any]:
    spent = outcome.spending
    return {
        "calls": spent.calls,
        "episodes": spent.episodes,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "thinking_tokens": spent.thinking_tokens,
        "estimated_calls": spent.estimated,
        "dollars": None if spent.unpriced else spent.dollars,
        "minutes": outcome.judged.minutes,
    }


def _interval(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]


def _bounded(value: object) -> object:
    """Replace infinities, which JSON lacks, by null, and round to 6 significant digits."""
    match value:
        case dict():
            return {key: _bounded(one) for key, one in value.items()}
        case list() | tuple():
            return [_bounded(one) for one in value]
        case float():
            return float(f"{value:.6g}") if isfinite(value) else None
        case _:
            return value
