"""What the lab writes to MLflow: a parent run a study, a child run a trial, by the names used everywhere.

It owns what is written when; it blocks, and raises what MLflow raises. When it is called is `lab.tracking`'s;
figures, traces, the registered prompt and the description have modules of their own. What is told again is
written over, and adds nothing.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from lab.description import description, unfinished
from lab.episode import Episode
from lab.evaluation import Evaluation
from lab.experiment import Experiment
from lab.figures import (
    began_ms,
    ended_ms,
    episodes_json,
    interval_figures,
    outcome_figures,
    prompt_text,
    run_figures,
    trouble_figures,
)
from lab.freeze import frozen_text
from lab.frozen import FrozenPrompt
from lab.headroom import Headroom
from lab.proposal import Proposals
from lab.record import Record
from lab.registry import register
from lab.settings import ModelChoice
from lab.task import OTHER
from lab.traces import Traced, log_traces
from lab.trial import Trial
from lab.verdict import Verdict
from lab.words import troubles_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]


class MlflowStore:
    """One study in MLflow, at `MLFLOW_TRACKING_URI` or MLflow's own default."""

    def __init__(self, experiment: Experiment, model: ModelChoice, record: Record) -> None:
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # or each table of a new store is announced
        self._client: MlflowClient = mlflow.MlflowClient()
        self._experiment, self._model, self._record = experiment, model, record
        self._prices = experiment.prices_of(model)
        self._race, self._leader, self._drawn = dict[str, Trial](), "", 0
        self._traced = dict[str, set[int]]()
        found = self._client.get_experiment_by_name(experiment.name)
        self._experiment_id = found.experiment_id if found else self._create_experiment()
        self._runs = dict[str, str]()
        parents = self._found(f"attributes.run_name = '{record.name}' and tags.kind = 'study'")
        if record.name in parents:
            self._parent = parents[record.name]
            self._client.update_run(self._parent, status="RUNNING")
            self._runs = self._found(f"tags.`mlflow.parentRunId` = '{self._parent}'")
            drawn = self._client.get_metric_history(self._parent, "contenders")
            self._drawn = max((point.step for point in drawn), default=0)
            return
        tags = {"mlflow.note.content": unfinished(experiment), "kind": "study", **self._model_tags}
        self._parent = self._create_run(record.name, tags, round(record.times[0] * 1000))
        self._save_view(record.name)
        self._log(self._parent, params=experiment.baseline.settings, prefix="baseline_")
        self._client.log_text(self._parent, experiment.text, "experiment.toml")

    def trial(self, trial: Trial) -> None:
        """A child run, written anew with each rung: settings, figures, first prompt and episodes so far.

        On the parent run the race is drawn by episodes: who is in front, and how many may still win.
        """
        evaluation = trial.evaluation
        tags = {"race": "dropped" if trial.dropped else "alive"}
        traces = self._experiment.tracking.traces
        self._write(trial.name, "search", evaluation, {"episodes_cut": trial.cut}, tags, traces)
        self._race[trial.name] = trial
        if trial.place == 1:
            self._leader = trial.name
        played = sum(len(one.evaluation.episodes) for one in self._race.values())
        if played > self._drawn and evaluation.episodes and self._leader:
            self._drawn = played
            race = {
                f"search_{evaluation.measure}": evaluation.mean,
                f"search_leader_{evaluation.measure}": self._race[self._leader].evaluation.mean,
                "contenders": sum(not one.dropped for one in self._race.values()),
            }
            self._log(self._parent, race, step=played, at_ms=ended_ms(evaluation))

    def headroom(self, headroom: Headroom) -> None:
        """The headroom test, on the parent run."""
        ahead = headroom.ahead
        figures = {"ahead": ahead.mean, "low": ahead.low, "high": ahead.high, "p_value": headroom.p_value}
        told = {f"headroom_{key}": value for key, value in figures.items()}
        tags = {"headroom": "found" if headroom.found else "none seen"}
        self._log(self._parent, told, at_ms=self._began_ms, tags=tags)

    def proposals(self, number: int, proposals: Proposals) -> None:
        """A round's texts, and why others were refused."""
        figures = {
            "proposals_accepted": len(proposals.accepted),
            "proposals_refused": len(proposals.refused),
            "proposals_duplicates": proposals.duplicates,
        }
        self._log(self._parent, figures, step=number, at_ms=self._began_ms)
        texts = [asdict(text) for text in proposals.accepted]
        table = {"accepted": texts, "refused": list(proposals.refused)}
        self._client.log_text(self._parent, json.dumps(table, indent=1), f"proposals-{number}.json")

    def verdict(self, verdict: Verdict) -> None:
        """Confirmation and holdout: a child run for each that played there."""
        some = self._experiment.tracking.traces
        for one in verdict.confirmed:
            self._unseen("confirmation", one.trial.name, one.unseen, {}, some)
        every = len(verdict.baseline.episodes) if some else 0
        self._unseen("holdout", "baseline", verdict.baseline, {}, every)
        for finalist in verdict.finalists:
            figures = {**interval_figures("difference", finalist.difference), "p_value": finalist.p_value}
            traces = every if finalist is verdict.winner else some
            self._unseen("holdout", finalist.trial.name, finalist.unseen, figures, traces)
        whole = self._record.troubles
        tags = {"troubles": troubles_text(whole)} if whole.troubled else {}
        self._log(self._parent, trouble_figures(whole), at_ms=self._began_ms, tags=tags)

    def _unseen(
        self, kind: str, name: str, unseen: Evaluation, figures: Mapping[str, float], traces: int
    ) -> None:
        self._write(f"{kind}-{name}", kind, unseen, figures, {}, traces)

    def frozen(self, frozen: FrozenPrompt) -> None:
        """The outcome, on the parent run: what was frozen, its evidence, and what it all cost."""
        self._log(
            self._parent,
            outcome_figures(frozen),
            params=frozen.candidate.settings,
            prefix="frozen_",
            at_ms=round(datetime.fromisoformat(frozen.provenance.created).timestamp() * 1000),
            tags={"outcome": frozen.evidence.outcome, "digest": frozen.candidate.digest},
        )
        self._client.log_text(self._parent, frozen_text(frozen), "best.toml")
        prompt = register(self._client, frozen, self._parent)
        view = f"#/experiments/{self._experiment_id}/runs?viewStateShareKey={frozen.provenance.study}"
        told = description(self._experiment, frozen, prompt, view)
        self._log(self._parent, tags={"prompt": prompt, "mlflow.note.content": told})

    def report(self, page: str) -> None:
        """The report on the study, as an artifact of the parent run."""
        self._client.log_text(self._parent, page, "report.html")

    def end(self, status: Status) -> None:
        """Close the parent run."""
        self._client.set_terminated(self._parent, status)

    def _write(
        self,
        name: str,
        kind: str,
        evaluation: Evaluation,
        more: Mapping[str, float],
        tags: Mapping[str, str],
        traces: int,
    ) -> None:
        """A child run as it stands; it lasts from its first episode's beginning to its last one's end."""
        params = dict[str, object]()
        whole = self._record.episodes_of(evaluation.candidate.digest, list(evaluation.values))
        run = self._runs.get(name)
        if run is None:
            digest = {"digest": evaluation.candidate.digest}
            known = {"mlflow.parentRunId": self._parent, "kind": kind, **digest, **self._model_tags}
            run = self._runs[name] = self._create_run(name, known, began_ms(evaluation))
            params = dict(evaluation.candidate.settings)
            if whole:
                self._client.log_text(run, prompt_text(evaluation, whole[0]), "prompt.txt")
        if evaluation.troubles.troubled:
            tags = {**tags, "troubles": troubles_text(evaluation.troubles)}
        figures, ended = dict[str, float](), ended_ms(evaluation)
        if evaluation.episodes:
            figures = run_figures(evaluation, self._experiment.verdict.confidence)
        self._log(run, {**figures, **more}, params, step=len(evaluation.episodes), at_ms=ended, tags=tags)
        self._client.log_text(run, episodes_json(whole, evaluation.task), "episodes.json")
        self._client.set_terminated(run, end_time=ended)
        self._trace(run, name, evaluation, whole, traces)

    def _trace(
        self, run: str, name: str, evaluation: Evaluation, whole: Sequence[Episode], most: int
    ) -> None:
        """Make traces of the run's first episodes, up to `most`, and of those that failed, once each."""
        if not most:
            return
        done = self._traced.setdefault(run, set())
        first = sorted(whole, key=lambda episode: episode.seed)
        owed = [episode for episode in first if episode.seed not in done][: max(0, most - len(done))]
        failed = [broken for broken in evaluation.failed if broken.seed not in done]
        done |= {one.seed for one in owed} | {broken.seed for broken in failed}
        traced = Traced(self._experiment_id, run, name, self._model.name, self._prices, evaluation)
        log_traces(traced, owed, failed)

    @cached_property
    def _began_ms(self) -> int:
        """The parent run's beginning: the moment of figures that have none of their own."""
        return int(self._client.get_run(self._parent).info.start_time)

    @property
    def _model_tags(self) -> dict[str, str]:
        return {"model": self._model.name, "endpoint": self._model.shown}

    def _create_experiment(self) -> str:
        tags = {
            "mlflow.note.content": self._experiment.about,
            "mlflow.experiment.primaryMetric.name": f"{self._experiment.objective.maximise}_mean",
            "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
        }
        return self._client.create_experiment(self._experiment.name, tags=tags)

    def _save_view(self, name: str) -> None:
        """Keep a view of the table of runs, as MLflow's page does under Views: this study's, best first."""
        judged = self._experiment.objective.maximise
        ends = (f"{judged}_{end}" for end in ("mean", "low", "high"))
        figures = (*ends, f"{OTHER[judged]}_mean", "episodes", "tokens_per_episode")
        view = {
            "searchFilter": f"tags.`mlflow.parentRunId` = '{self._parent}'",
            "orderByKey": f"metrics.`{judged}_mean`",
            "orderByAsc": False,
            "selectedColumns": [
                *(f"tags.`{tag}`" for tag in ("kind", "race")),
                *(f"metrics.`{figure}`" for figure in figures),
                *(f"params.`{setting}`" for setting in self._experiment.space.free),
            ],
        }
        tag = f"mlflow.sharedViewState.{name}"
        self._client.set_experiment_tag(self._experiment_id, tag, json.dumps(view))

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

    def _create_run(self, name: str, tags: Mapping[str, str], at_ms: int | None = None) -> str:
        run = self._client.create_run(self._experiment_id, at_ms, dict(tags), name)
        return str(run.info.run_id)

    def _log(
        self,
        run: str,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        *,
        prefix: str = "",
        step: int = 0,
        at_ms: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """All in one batch. Its moment is that of what happened: told again, it is the same point."""
        from mlflow.entities import Metric, Param, RunTag

        now = at_ms or int(time.time() * 1000)
        self._client.log_batch(
            run,
            [Metric(key, float(f"{value:.10g}"), now, step) for key, value in (metrics or {}).items()],
            [Param(prefix + key, str(value)) for key, value in (params or {}).items()],
            [RunTag(key, value) for key, value in (tags or {}).items()],
        )
