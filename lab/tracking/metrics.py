"""Metrics and texts of MLflow runs, from evaluations, intervals and frozen prompts.

It owns the metrics' names, which are the same for every kind of run.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from statistics import fmean

from lab.agent.episode import Episode
from lab.agent.evaluation import Evaluation
from lab.agent.messages import chat
from lab.agent.step import FALLBACK, Troubles
from lab.agent.task import Task
from lab.errors import plain
from lab.stats.intervals import Estimate, t_interval
from lab.submission.frozen import FrozenPrompt

LONGEST = 20_000
"""Maximum characters of a text (message, action, observation) sent to MLflow; the record has all."""

_NOTE = 40
"""Maximum characters of the note about a cut."""


def cut(text: str, most: int = LONGEST) -> str:
    """`text` in at most `most` characters, which end in a note of how many are missing."""
    if len(text) <= most:
        return text
    return f"{text[: most - _NOTE]} [... {len(text) - most + _NOTE:,} characters more]"


def safe_name(name: str, others: str = r"[^a-zA-Z0-9_.-]") -> str:
    """`name` with a dash for each of `others`, which MLflow rejects; distinct names stay distinct."""
    safe = re.sub(others, "-", name)
    return safe if safe == name else f"{safe[:200]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def run_figures(evaluation: Evaluation, confidence: float) -> dict[str, float]:
    """Metrics of a child run; its interval is not corrected for multiple comparisons."""
    judged = evaluation.measure
    figures = {
        f"{judged}_mean": evaluation.mean,  # first: MLflow's compare view opens with it
        "return_mean": evaluation.mean_return,
        "episodes": len(evaluation.episodes),
        "episodes_failed": len(evaluation.failed),
        "score_mean": evaluation.mean_score,
        "score_clamped_share": evaluation.clamped_share,
        "calls": evaluation.calls,
        "tokens_in": sum(episode.prompt_tokens for episode in evaluation.episodes),
        "tokens_out": sum(episode.completion_tokens for episode in evaluation.episodes),
        "tokens_per_episode": evaluation.tokens,
        "latency_mean_s": evaluation.latency_s,
    }
    figures |= trouble_figures(evaluation.troubles)
    named = {safe_name(task, r"^\.+$"): one for task, one in evaluation.by_task.items()}
    figures |= {f"{judged}_mean/{task}": fmean(one.values()) for task, one in named.items() if one}
    if evaluation.spread is not None:
        interval = t_interval(list(evaluation.values.values()), confidence)
        figures |= {f"{judged}_sd": evaluation.spread}
        figures |= {f"{judged}_low": interval.low, f"{judged}_high": interval.high}
    return figures


def trouble_figures(troubles: Troubles) -> dict[str, float]:
    """Shares of unusable answers, in [0, 1]; empty if all were usable."""
    kinds = {"empty": ["empty"], "no_action": ["no_action"], "refused": ["refused"], "fallback": FALLBACK}
    shares = {f"share_{name}": troubles.share_of(*which) for name, which in kinds.items()}
    return {name: share for name, share in shares.items() if share}


def outcome_figures(frozen: FrozenPrompt) -> dict[str, float]:
    """Metrics of the parent run; without a cost if a price is unknown."""
    evidence, cost = frozen.evidence, frozen.provenance
    figures = {
        f"{evidence.judged}_mean": evidence.frozen_value.mean,  # as in child runs, of the holdout
        "frozen_return": evidence.frozen_return,
        "baseline_return": evidence.baseline_return,
        "frozen_score": evidence.frozen_score,
        "baseline_score": evidence.baseline_score,
        **difference_figures(evidence.gap, evidence.p_value),
        "frozen_tokens": evidence.frozen_tokens,
        "baseline_tokens": evidence.baseline_tokens,
        "calls": cost.calls,
        "tokens_in": cost.prompt_tokens,
        "tokens_out": cost.completion_tokens,
        **({"tokens_thinking": cost.thinking_tokens} if cost.thinking_tokens else {}),
        **({"calls_estimated": cost.estimated_calls} if cost.estimated_calls else {}),
        "minutes": cost.minutes,
    }
    return figures if cost.dollars is None else {**figures, "dollars": cost.dollars}


def began_ms(evaluation: Evaluation) -> int | None:
    """Start of its first episode, in ms since 1970; None if not recorded."""
    return min((int(one.began * 1000) for one in evaluation.episodes if one.began), default=None)


def ended_ms(evaluation: Evaluation) -> int | None:
    """End of its last episode, in ms since 1970, from the durations of its steps."""
    ends = (one.began + one.duration_s for one in evaluation.episodes if one.began)
    return max((int(end * 1000) for end in ends), default=None)


def difference_figures(gap: Estimate, p_value: float) -> dict[str, float]:
    """A difference from the baseline, with its interval and test."""
    ends = {"difference_low": gap.low, "difference_high": gap.high}
    return {"difference": gap.mean, **ends, "p_value": p_value}


def prompt_text(evaluation: Evaluation, episode: Episode) -> str:
    """The messages sent before the first and the last step of an episode."""
    parts = []
    for steps in ((), episode.steps[:-1]):
        messages = chat(evaluation.candidate, evaluation.task, episode.start, steps)
        parts.append(f"===== before step {len(steps) + 1} =====")
        parts.extend(f"--- {message.role}\n{cut(message.content)}" for message in messages)
    return plain("\n\n".join(parts)) + "\n"


def episodes_json(episodes: Iterable[Episode], task: Task) -> str:
    """A JSON line per episode: with an indent, Python would take ten times as long."""
    lines = [json.dumps(_episode_table(episode, task)) for episode in episodes]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _episode_table(episode: Episode, task: Task) -> dict[str, object]:
    steps = [
        {
            "step": step.number,
            "action": cut(step.action),
            "reward": step.reward,
            "done": step.done,
            "error": cut(step.error) if step.error else step.error,
            "tokens_out": step.completion.completion_tokens if step.completion else None,
            "latency_s": round(step.completion.latency_s, 3) if step.completion else None,
        }
        for step in episode.steps
    ]
    return {
        "seed": episode.seed,
        **({"task": task.setup(episode.seed)[0].name} if task.tasks else {}),
        "return": episode.episode_return,
        "score": task.score_of(episode.rewards, episode.own_score),
        "opening": cut(episode.opening),
        "steps": steps,
    }
