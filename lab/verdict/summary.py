"""The summary of a study's outcome, for people: result, confidence, cost, what to do next."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from statistics import fmean

from lab.agent.evaluation import Evaluation
from lab.agent.task import OTHER
from lab.search.trouble_words import troubles_text
from lab.stats.format import estimate_text, number, p_text, recorded, token_notes
from lab.stats.intervals import Estimate
from lab.submission.frozen import BEST
from lab.verdict.cautions import MOSTLY, lower_cautions, trouble_cautions
from lab.verdict.outcome import Outcome
from lab.verdict.verdict import Verdict


def summary(
    outcome: Outcome,
    path: Path | None,
    untracked: Sequence[str] | None,
    experiment: Path = Path("EXPERIMENT"),
) -> str:
    """The result for people: what was frozen, its gain, its cost, what to do next.

    Args:
        path: Path of the frozen file; None if it could not be written.
        untracked: What MLflow rejected, one line per reason; None if nothing was sent to it.
        experiment: The experiment file.
    """
    lines = [*_verdict_lines(outcome), *_cost_lines(outcome), *(_next_lines(path, untracked) if path else [])]
    return "\n".join([*lines, *untracked_lines(untracked, experiment)])


def untracked_lines(untracked: Sequence[str] | None, experiment: Path) -> list[str]:
    """What MLflow rejected, and the command that logs it again; see `summary`."""
    if not untracked:
        return []
    again = f"python -m lab.report {quote(str(experiment))} --mlflow"
    told = [f"  {line}" for line in untracked]
    return ["MLflow rejected some items:", *told, f"  {again}   logs them again from the record"]


def _verdict_lines(outcome: Outcome) -> list[str]:
    verdict, evidence = outcome.verdict, outcome.evidence
    percent = f"{verdict.confidence:.0%}"
    judged = f"mean episode {verdict.measure}" + (" of the worst task" if verdict.by == "worst" else "")
    lines = lower_cautions(verdict)
    lines += [str(outcome.headroom)] if outcome.headroom and not outcome.headroom.found else []
    lines += _alike_lines(outcome)
    lines += [
        f"Holdout, {evidence.episodes} unseen episodes each, {judged} with {percent} interval:",
        f"  baseline  {recorded(evidence.baseline_mean, evidence.baseline_interval, evidence.episodes)}"
        f"  {verdict.baseline.candidate.template.name}",
        *_trouble_lines(verdict.baseline),
    ]
    for finalist in verdict.finalists:
        lines.append(
            f"  {finalist.trial.name:<9} {number(verdict.value(finalist.unseen))}"
            f" ({_signed(finalist.difference)} vs. baseline),"
            f" {p_text(finalist.p_value)}  {finalist.trial.candidate.template.name}"
        )
        lines += _trouble_lines(finalist.unseen)
    return [
        *lines,
        *_task_lines(verdict),
        *_shortfall(outcome),
        _frozen(outcome),
        *trouble_cautions(verdict),
    ]


def _shortfall(outcome: Outcome) -> list[str]:
    """A note if the verdict uses fewer episodes than planned, with the reason."""
    planned, limit = outcome.experiment.verdict.episodes, outcome.judged.limit
    pairs = outcome.verdict.pairs
    if pairs == planned:
        return []
    why = f"{limit} was reached" if limit else "the others failed"
    return [f"Note: the verdict is based on {pairs} of {planned} planned pairs of episodes: {why}."]


def _alike_lines(outcome: Outcome) -> list[str]:
    if outcome.alike is None:
        return []
    told = f"Every episode returned {number(outcome.alike)}, so candidates cannot be told apart."
    return [f"{told} Check the environment's rewards, and whether an episode is long enough to earn any."]


def _trouble_lines(evaluation: Evaluation) -> list[str]:
    told = troubles_text(evaluation.troubles)
    return [f"            {told}"] if told else []


def _task_lines(verdict: Verdict) -> list[str]:
    """One line per task, if there are several."""
    played = [("baseline", verdict.baseline), *((one.trial.name, one.unseen) for one in verdict.finalists)]
    return [
        f"  task {task}: " + ", ".join(f"{name} {_mean(one.by_task[task])}" for name, one in played)
        for task in verdict.baseline.by_task
    ]


def _mean(values: Mapping[int, float]) -> str:
    return number(fmean(values.values())) if values else "none completed"


def claim(outcome: Outcome) -> str:
    """The claim about the frozen prompt, after any caution."""
    return " ".join([*lower_cautions(outcome.verdict), _frozen(outcome)])


def _frozen(outcome: Outcome) -> str:
    verdict, evidence = outcome.verdict, outcome.evidence
    winner = verdict.winner
    if winner is None and verdict.refused:
        return "The baseline is frozen."
    if winner is None:
        return "No candidate beats the baseline on unseen episodes: the baseline is frozen."
    name, gain, tokens = winner.trial.name, winner.difference, evidence.baseline_tokens
    if evidence.outcome == "cheaper":
        less = 1 - evidence.frozen_tokens / tokens if tokens else 0.0
        return (
            f"Frozen: {name}, {less:.0%} fewer tokens an episode than the baseline;"
            f" {_signed(gain)} {verdict.measure}."
        )
    share = f", {gain.mean / evidence.baseline_mean:+.0%}" if evidence.baseline_mean > 0 else ""
    return (
        f"Frozen: {name}, {_signed(gain)} over the baseline{share}, {p_text(winner.p_value)}"
        f" ({verdict.method})."
    )


def _cost_lines(outcome: Outcome) -> list[str]:
    verdict, spent = outcome.verdict, outcome.spending
    dollars = f", {spent.money}" if spent.dollars or spent.unpriced else ""
    notes = token_notes(spent.calls, spent.thinking_tokens, spent.estimated)
    lines = [
        _other_line(verdict),
        f"Cost: {spent.calls:,} calls in {spent.episodes} whole episodes, {spent.prompt_tokens:,} tokens in,"
        f" {spent.completion_tokens:,} out{notes}{dollars}, {outcome.judged.minutes:.1f} minutes.",
    ]
    if outcome.failures:
        told = ", ".join(f"{times} x {what.rstrip('.')}" for what, times in outcome.failures.items())
        lines.append(f"Failed attempts: {told}.")
    if outcome.troubles.troubled:
        lines.append(f"In the whole study, {troubles_text(outcome.troubles)}.")
    return [*lines, *_clamp_lines(verdict)]


def _other_line(verdict: Verdict) -> str:
    """The means of the number that was not judged."""
    if verdict.measure == "score":
        frozen, baseline = (number(one.mean_return) for one in (verdict.frozen, verdict.baseline))
    else:
        frozen, baseline = (f"{one.mean_score:.3f}" for one in (verdict.frozen, verdict.baseline))
    return f"Mean {OTHER[verdict.measure]} {frozen}, baseline {baseline}."


def _clamp_lines(verdict: Verdict) -> list[str]:
    """A note if most scores are at a limit, where they cannot tell candidates apart."""
    evaluations = [verdict.baseline, *(finalist.unseen for finalist in verdict.finalists)]
    scores = [score for evaluation in evaluations for score in evaluation.scores]
    share = sum(score >= 1.0 for score in scores) / len(scores)
    note = f"of {len(scores)} holdout episodes reached the"
    if verdict.measure == "return":
        blind = f"Note: {share:.0%} {note} maximum score, 1.0; compare returns instead."
        return [blind] if share >= MOSTLY else []
    ends = (("maximum score, 1.0", share), ("minimum score, 0.0", scores.count(0.0) / len(scores)))
    return [
        f"Note: {here:.0%} {note} {end}: among these, scores cannot tell candidates apart;"
        ' [objective] maximise = "return" would.'
        for end, here in ends
        if here >= MOSTLY
    ]


def _next_lines(path: Path, untracked: Sequence[str] | None) -> list[str]:
    play = "python inference.py"
    if path.resolve() != BEST.resolve():
        play += f" {quote(str(path))}"
    lines = [f"Written to {path}. Next:", f"  {play}   plays it and prints what an evaluator reads"]
    if untracked is not None and not untracked:
        lines.append(f"  {'mlflow ui':<{len(play)}}   shows every trial, prompt and episode")
    return lines


def _signed(estimate: Estimate) -> str:
    return estimate_text(estimate, sign=True)
