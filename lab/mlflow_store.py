"""What the lab writes to MLflow: a parent run a study, a child run a trial, by the names used everywhere.

It owns names and form; it blocks, and raises what MLflow raises. When it is called is `lab.tracking`'s.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from lab.chat import chat
from lab.episode import Episode
from lab.errors import plain
from lab.evaluation import Evaluation
from lab.experiment import Experiment
from lab.freeze import frozen_text
from lab.frozen import FrozenPrompt
from lab.headroom import Headroom
from lab.intervals import Estimate
from lab.proposal import Proposals
from lab.task import Task
from lab.trial import Trial
from lab.verdict import Verdict

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]


class MlflowStore:
    """One study in MLflow, at `MLFLOW_TRACKING_URI` or MLflow's own default."""

    def __init__(self, experiment: Experiment, study_name: str) -> None:
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # or each table of a new store is announced
        self._client: MlflowClient = mlflow.MlflowClient()
        self._best = float("-inf")
        found = self._client.get_experiment_by_name(experiment.name)
        self._experiment_id = (
            found.experiment_id if found else self._client.create_experiment(experiment.name)
        )
        self._runs = dict[str, str]()
        parents = self._found(f"attributes.run_name = '{study_name}' and tags.kind = 'study'")
        if study_name in parents:
            self._parent = parents[study_name]
            self._client.update_run(self._parent, status="RUNNING")
            self._runs = self._found(f"tags.`mlflow.parentRunId` = '{self._parent}'")
            self._best = self._client.get_run(self._parent).data.metrics.get("search_best_return", self._best)
            return
        self._parent = self._create_run(
            study_name, {"mlflow.note.content": experiment.about, "kind": "study"}
        )
        self._log(self._parent, params=experiment.baseline.settings, prefix="baseline_")
        self._client.log_text(self._parent, experiment.text, "experiment.toml")

    def trial(self, trial: Trial) -> None:
        """A child run, written anew with each rung: settings, figures, first prompt and episodes so far."""
        run = self._child(trial.name, trial.evaluation, "search")
        self._write(run, trial.evaluation, {"episodes_cut": trial.cut})
        self._client.set_tag(run, "race", "dropped" if trial.dropped else "alive")
        self._client.set_terminated(run)
        if trial.place == 1 and trial.evaluation.episodes and trial.evaluation.mean_return > self._best:
            self._best = trial.evaluation.mean_return
            self._log(self._parent, {"search_best_return": self._best}, step=max(trial.number, 0))

    def headroom(self, headroom: Headroom) -> None:
        """The headroom test, on the parent run."""
        ahead = headroom.ahead
        figures = {"ahead": ahead.mean, "low": ahead.low, "high": ahead.high, "p_value": headroom.p_value}
        self._log(self._parent, {f"headroom_{key}": value for key, value in figures.items()})
        self._client.set_tag(self._parent, "headroom", "found" if headroom.found else "none seen")

    def proposals(self, number: int, proposals: Proposals) -> None:
        """A round's texts, and why others were refused."""
        figures = {
            "proposals_accepted": len(proposals.accepted),
            "proposals_refused": len(proposals.refused),
            "proposals_duplicates": proposals.duplicates,
        }
        self._log(self._parent, figures, step=number)
        texts = [asdict(text) for text in proposals.accepted]
        table = {"accepted": texts, "refused": list(proposals.refused)}
        self._client.log_text(self._parent, json.dumps(table, indent=1), f"proposals-{number}.json")

    def verdict(self, verdict: Verdict) -> None:
        """Confirmation and holdout: a child run for each that played there."""
        for one in verdict.confirmed:
            self._unseen("confirmation", one.trial.name, one.unseen, _interval("return", one.mean))
        self._unseen("holdout", "baseline", verdict.baseline, {})
        for finalist in verdict.finalists:
            figures = {**_interval("difference", finalist.difference), "p_value": finalist.p_value}
            self._unseen("holdout", finalist.trial.name, finalist.unseen, figures)

    def _unseen(self, kind: str, name: str, unseen: Evaluation, figures: Mapping[str, float]) -> None:
        run = self._child(f"{kind}-{name}", unseen, kind)
        self._write(run, unseen, figures)
        self._client.set_terminated(run)

    def frozen(self, frozen: FrozenPrompt) -> None:
        """The outcome, on the parent run: what was frozen, its evidence, and what it all cost."""
        evidence, cost = frozen.evidence, frozen.provenance
        self._log(
            self._parent,
            {
                "frozen_return": evidence.frozen_return,
                "baseline_return": evidence.baseline_return,
                "difference": evidence.difference,
                "difference_low": evidence.difference_interval[0],
                "difference_high": evidence.difference_interval[1],
                "p_value": evidence.p_value,
                "frozen_tokens": evidence.frozen_tokens,
                "baseline_tokens": evidence.baseline_tokens,
                "calls": cost.calls,
                "tokens_in": cost.prompt_tokens,
                "tokens_out": cost.completion_tokens,
                "dollars": cost.dollars,
                "minutes": cost.minutes,
            },
            params=frozen.candidate.settings,
            prefix="frozen_",
        )
        self._client.set_tag(self._parent, "outcome", evidence.outcome)
        self._client.log_text(self._parent, frozen_text(frozen), "best.toml")

    def report(self, page: str) -> None:
        """The report on the study, as an artifact of the parent run."""
        self._client.log_text(self._parent, page, "report.html")

    def end(self, status: Status) -> None:
        """Close the parent run."""
        self._client.set_terminated(self._parent, status)

    def _child(self, name: str, evaluation: Evaluation, kind: str) -> str:
        if name in self._runs:
            return self._runs[name]
        tags = {"mlflow.parentRunId": self._parent, "kind": kind, "digest": evaluation.candidate.digest}
        run = self._runs[name] = self._create_run(name, tags)
        self._log(run, params=evaluation.candidate.settings)
        if evaluation.episodes:
            self._client.log_text(run, _first_prompt(evaluation), "prompt.txt")
        return run

    def _write(self, run: str, evaluation: Evaluation, more: Mapping[str, float]) -> None:
        figures = _figures(evaluation) if evaluation.episodes else {}
        self._log(run, {**figures, **more}, step=len(evaluation.episodes))
        self._client.log_text(run, _episodes_json(evaluation), "episodes.json")

    def _found(self, query: str) -> dict[str, str]:
        """Run ids by the names of the runs."""
        runs = dict[str, str]()
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment_id], query, page_token=token)
            runs |= {str(run.info.run_name): str(run.info.run_id) for run in page}
            token = page.token
            if not token:
                return runs

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment_id, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def _log(
        self,
        run: str,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        prefix: str = "",
        step: int = 0,
    ) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        self._client.log_batch(
            run,
            metrics=[Metric(key, value, now, step) for key, value in (metrics or {}).items()],
            params=[Param(prefix + key, str(value)) for key, value in (params or {}).items()],
        )


def _figures(evaluation: Evaluation) -> dict[str, float]:
    figures = {
        "return_mean": evaluation.mean_return,
        "episodes": len(evaluation.episodes),
        "episodes_failed": len(evaluation.failed),
        "score_mean": evaluation.mean_score,
        "score_clamped_share": evaluation.clamped_share,
        "calls": len(evaluation.completions),
        "tokens_in": sum(episode.prompt_tokens for episode in evaluation.episodes),
        "tokens_out": sum(episode.completion_tokens for episode in evaluation.episodes),
        "latency_mean_s": evaluation.latency_s,
    }
    means = {f"return_mean/{task}": fmean(one.values()) for task, one in evaluation.by_task.items() if one}
    spread = {} if evaluation.spread is None else {"return_sd": evaluation.spread}
    return {**figures, **means, **spread}


def _interval(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _first_prompt(evaluation: Evaluation) -> str:
    """The chat before the first and before the last step of the first episode, as it was sent."""
    episode = evaluation.episodes[0]
    parts = []
    for steps in ((), episode.steps[:-1]):
        messages = chat(evaluation.candidate, evaluation.task, episode.start, steps)
        parts.append(f"===== before step {len(steps) + 1} =====")
        parts.extend(f"--- {message.role}\n{message.content}" for message in messages)
    return plain("\n\n".join(parts)) + "\n"


def _episodes_json(evaluation: Evaluation) -> str:
    return json.dumps([_episode_table(episode, evaluation.task) for episode in evaluation.episodes], indent=1)


def _episode_table(episode: Episode, task: Task) -> dict[str, object]:
    steps = [
        {
            "step": step.number,
            "action": step.action,
            "reward": step.reward,
            "done": step.done,
            "error": step.error,
            "tokens_out": step.completion.completion_tokens if step.completion else None,
            "latency_s": round(step.completion.latency_s, 3) if step.completion else None,
        }
        for step in episode.steps
    ]
    return {
        "seed": episode.seed,
        **({"task": task.setup(episode.seed)[0].name} if task.tasks else {}),
        "return": episode.episode_return,
        "opening": episode.opening,
        "steps": steps,
    }
