"""The result of a study as `lab.tune` prints it: claim, figures, cost, what to do next.

It owns the layout; the sentences about the verdict are `lab.verdict.words`'.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from statistics import fmean

from lab.agent.evaluation import Evaluation
from lab.agent.task import OTHER
from lab.search.trouble_words import troubles_text
from lab.stats.format import count, estimate_text, number, percent, token_notes
from lab.submission.frozen import BEST
from lab.verdict.outcome import Outcome, Unvalidated
from lab.verdict.verdict import estimate
from lab.verdict.words import (
    REPEATED,
    alike,
    at_limit,
    below_scores,
    claim,
    figures,
    other_mean,
    trouble_cautions,
)

CONTINUE = "To search on, raise [budget] and run the same command: it continues, and judges on new episodes."


def summary(
    outcome: Outcome,
    path: Path | None,
    untracked: Sequence[str] | None,
    experiment: Path = Path("EXPERIMENT"),
    urls: Mapping[str, str] | None = None,
) -> str:
    """The result for people: what was frozen, its gain, its cost, what to do next.

    Args:
        path: Path of the frozen file; None if it could not be written.
        untracked: What MLflow rejected, one line per reason; None if nothing was sent to it.
        experiment: The experiment file.
        urls: Pages of the study on an MLflow server, by what they show; without one, `mlflow ui` serves them.
    """
    lines = [
        claim(outcome.frozen_prompt()),
        *trouble_cautions(outcome.verdict),
        *(f"The verdict before this one: {one}" for one in outcome.verdict.earlier[-1:]),
        *_search_lines(outcome),
        *_holdout_lines(outcome),
        *_cost_lines(outcome),
        *(_next_lines(path, untracked, urls or {}) if path else []),
        *([CONTINUE] if path and outcome.verdict.winner is None else []),
        *untracked_lines(untracked, experiment),
    ]
    return "\n".join(lines)


def unvalidated_summary(study: Unvalidated, path: Path | None, again: str) -> str:
    """The result without a verdict: the best so far, why it is not validated, and what to do.

    Args:
        path: Path of the frozen file; None if it was not written.
        again: Command that resumes the study.
    """
    measure, confidence = study.experiment.objective.maximise, study.experiment.verdict.confidence
    found = {study.best.name: estimate(study.best.evaluation, confidence)}
    if study.baseline:
        found["baseline"] = estimate(study.baseline, confidence)
    said = [f"Written to {path}, marked as not validated."]
    if path is None:
        said = [
            "Next:",
            f"  raise the limit, then {again}   resumes; no answered call is repeated",
            f"  {again} --freeze-unvalidated   freezes this candidate without validation",
        ]
    lines = [
        f"No verdict: {study.reason.what.rstrip('.')} ({study.reason.where or 'the holdout'}).",
        claim(study.frozen_prompt()),
        f"Search, mean episode {measure} with {percent(confidence)} interval:",
        *(f"  {name:<9} {estimate_text(one)}, n = {count(one.n, 'episode')}" for name, one in found.items()),
        f"Cost: {study.spending.calls:,} calls, {study.judged.minutes:.1f} minutes.",
        *said,
    ]
    return "\n".join(lines)


def untracked_lines(untracked: Sequence[str] | None, experiment: Path) -> list[str]:
    """What MLflow rejected, and the command that logs it again; see `summary`."""
    if not untracked:
        return []
    again = f"python -m lab.report {quote(str(experiment))} --mlflow"
    told = [f"  {line}" for line in untracked]
    return ["MLflow rejected some items:", *told, f"  {again}   logs them again from the record"]


def _search_lines(outcome: Outcome) -> list[str]:
    """What the search showed against there being anything to gain; a gain on the holdout refutes it."""
    refuted = outcome.verdict.winner is not None
    lines = [str(outcome.headroom)] if outcome.headroom and not (outcome.headroom.found or refuted) else []
    if outcome.alike is not None:
        check = "Check the environment's rewards, and whether an episode is long enough to earn any."
        lines.append(f"{alike(outcome.alike)} {check}")
    elif outcome.repeated:
        lines.append(f"{REPEATED} python -m lab.doctor tests whether the endpoint samples.")
    return lines


def _holdout_lines(outcome: Outcome) -> list[str]:
    verdict, evidence = outcome.verdict, outcome.evidence
    judged = f"mean episode {verdict.measure}" + (" of the worst task" if verdict.by == "worst" else "")
    shown = {"baseline": estimate_text(evidence.baseline_value)}
    for one in verdict.finalists:
        value, gap = verdict.value(one.unseen), one.difference
        shown[one.trial.name] = figures(value, gap, verdict.confidence, one.p_value, relative=one.relative)
    lines = [
        f"Holdout, {count(evidence.episodes, 'unseen episode')} each, {judged} with"
        f" {percent(verdict.confidence)} interval:"
    ]
    for name, played in verdict.holdout.items():
        model = f" on {played.candidate.model}" if played.candidate.model else ""
        lines.append(f"  {name:<9} {shown[name]}  {played.candidate.template.name}{model}")
        lines += [f"            {told}"] if (told := troubles_text(played.troubles)) else []
    return lines + [
        f"  task {task}: " + ", ".join(f"{name} {_mean(one, task)}" for name, one in verdict.holdout.items())
        for task in verdict.baseline.by_task
    ]


def _mean(evaluation: Evaluation, task: str) -> str:
    values = evaluation.by_task[task]
    return number(fmean(values.values())) if values else "none completed"


def _cost_lines(outcome: Outcome) -> list[str]:
    verdict, spent = outcome.verdict, outcome.spending
    dollars = f", {spent.money}" if spent.dollars or spent.unpriced else ""
    notes = token_notes(spent.calls, spent.thinking_tokens, spent.estimated)
    finalist = next(iter(verdict.finalists), None) if verdict.winner is None else None
    played = [finalist.unseen if finalist else verdict.frozen, verdict.baseline]
    shown, baseline = (other_mean(one) for one in played)
    of = f" of {finalist.trial.name}" if finalist else ""
    lines = [
        f"Mean {OTHER[verdict.measure]}{of} {shown}, baseline {baseline}.",
        f"Cost: {spent.calls:,} calls in {spent.episodes} whole episodes, {spent.prompt_tokens:,} tokens in,"
        f" {spent.completion_tokens:,} out{notes}{dollars}, {outcome.judged.minutes:.1f} minutes.",
    ]
    if outcome.failures:
        told = ", ".join(f"{times} x {what.rstrip('.')}" for what, times in outcome.failures.items())
        lines.append(f"Failed attempts: {told}.")
    if outcome.troubles.troubled:
        lines.append(f"In the whole study, {troubles_text(outcome.troubles)}.")
    scores = [score for one in verdict.holdout.values() for score in one.scores]
    return [*lines, *(below_scores(verdict) or at_limit(scores, verdict.measure))]


def _next_lines(path: Path, untracked: Sequence[str] | None, urls: Mapping[str, str]) -> list[str]:
    play = "python inference.py"
    if path.resolve() != BEST.resolve():
        play += f" {quote(str(path))}"
    lines = [f"Written to {path}. Next:", f"  {play}   plays it and prints what an evaluator reads"]
    if urls:
        lines += ["In MLflow:", *(f"  {text}: {url}" for text, url in urls.items())]
    elif untracked is not None and not untracked:
        lines.append(f"  {'mlflow ui':<{len(play)}}   shows every trial, prompt and episode")
    return lines
