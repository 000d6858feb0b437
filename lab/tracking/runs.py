"""The lab's runs in MLflow: a parent run per study, a child run per trial.

It owns what is written when, and that a rejected item affects no other. It blocks, and raises if nothing can
be written; `lab.tracking.tracker` calls it. Metrics, traces, the registered prompt and the description have
separate modules. An event that is repeated overwrites the earlier one; a run with all of its contents is left
as it is.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from typing import Literal

from lab.agent.episode import Episode
from lab.agent.evaluation import Evaluation, Trial
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.proposers.proposal import Proposals
from lab.search.headroom import Headroom
from lab.search.trouble_words import troubles_text
from lab.storage.record import Record
from lab.submission.freeze import frozen_text
from lab.submission.frozen import FrozenPrompt
from lab.tracking.batch import Point, log
from lab.tracking.description import description, unfinished
from lab.tracking.metrics import (
    began_ms,
    ended_ms,
    episodes_json,
    interval_figures,
    outcome_figures,
    prompt_text,
    run_figures,
    trouble_figures,
)
from lab.tracking.missed import Missed, is_gone
from lab.tracking.mlflow_experiment import active_experiment, open_client, save_view, view_url
from lab.tracking.prompts import register
from lab.tracking.traces import Traced, log_traces
from lab.verdict.verdict import Verdict

Status = Literal["FINISHED", "FAILED", "KILLED"]

MOST_POINTS = 300
"""Points of the race that are written together; a batch may have 1,000 metrics, and a point has three."""

CONTENTS = "contents"
"""The tag of a run that has all of its contents: a hash of them."""


class MlflowStore:
    """One study in MLflow, at `MLFLOW_TRACKING_URI` or MLflow's own default.

    Attributes:
        complete: Whether an earlier process wrote the study's outcome and report.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: ModelChoice,
        record: Record,
        missed: Missed,
        say: Callable[[str], None],
    ) -> None:
        self._client = open_client(say)
        self._experiment, self._model, self._record = experiment, model, record
        self._missed = missed
        self._race, self._leader, self._drawn = dict[str, Trial](), "", 0
        self._points = list[Point]()
        self._traced = dict[str, set[int]]()
        self._contents, self._whole, self.complete = dict[str, str](), True, False
        self._experiment_id = active_experiment(self._client, experiment, say)
        self._runs, self._begun = dict[str, str](), set[str]()
        self._parent = self._parent_run()
        with self._item("the table of runs"):
            save_view(self._client, experiment, self._experiment_id, record.name, self._parent)
        with self._item("the baseline's settings"):
            self._log(self._parent, params=experiment.baseline.settings, prefix="baseline_")
        with self._item("experiment.toml"):
            self._client.log_text(self._parent, experiment.text, "experiment.toml")

    def _parent_run(self) -> str:
        """The id of the study's run: a new one, or the existing one with its child runs."""
        name = self._record.name  # it may contain characters that MLflow's filters do not allow
        run = self._found("tags.kind = 'study'").get(name)
        if run is None:
            tags = {
                "mlflow.note.content": unfinished(self._experiment),
                "kind": "study",
                **_model_tags(self._model),
            }
            return self._create_run(name, tags, round(self._record.began * 1000))
        self._client.update_run(run, status="RUNNING")
        self._runs = self._found(f"tags.`mlflow.parentRunId` = '{run}'")
        drawn = self._client.get_metric_history(run, "contenders")
        self._drawn = max((point.step for point in drawn), default=0)
        return run

    def trial(self, trial: Trial, *, newest: bool) -> None:
        """Write a trial's child run after a rung: settings, metrics, first prompt, episodes so far.

        The parent run gets the race by episodes: the leader's mean, and how many trials still compete.

        Args:
            newest: Whether no later rung of the trial is known. Of the others, only the race is written.
        """
        evaluation = trial.evaluation
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
            self._points.append(Point(race, played, ended_ms(evaluation)))
        if newest:
            tags = {"race": "dropped" if trial.dropped else "alive"}
            traces = self._experiment.tracking.traces
            self._write(trial.name, "search", evaluation, {"episodes_cut": trial.cut}, tags, traces)
        if self._points and (newest or len(self._points) >= MOST_POINTS):
            log(self._client, self._parent, self._points, {}, {})
            self._points.clear()

    def headroom(self, headroom: Headroom) -> None:
        """Write the warm-up test to the parent run."""
        ahead = headroom.ahead
        figures = {"ahead": ahead.mean, "low": ahead.low, "high": ahead.high, "p_value": headroom.p_value}
        metrics = {f"headroom_{key}": value for key, value in figures.items()}
        tags = {"headroom": "found" if headroom.found else "none seen"}
        self._log(self._parent, metrics, at_ms=self._began_ms, tags=tags)

    def proposals(self, number: int, proposals: Proposals) -> None:
        """Write a round's texts, and the reasons for refused ones."""
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
        """Write a child run for each candidate of confirmation and holdout."""
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
        """Write the outcome to the parent run, unless it is there: frozen prompt, evidence, cost."""
        text = frozen_text(frozen)
        contents = _hash(text)
        self.complete = self._contents.get(self._parent) == contents
        if self.complete:
            return
        self._whole = True
        self._log(
            self._parent,
            outcome_figures(frozen),
            params=frozen.candidate.settings,
            prefix="frozen_",
            at_ms=round(datetime.fromisoformat(frozen.provenance.created).timestamp() * 1000),
            tags={"outcome": frozen.evidence.outcome, "digest": frozen.candidate.digest},
        )
        with self._item("best.toml"):
            self._client.log_text(self._parent, text, "best.toml")
        prompt = ""
        with self._item("the frozen prompt in the registry"):
            prompt = register(self._client, frozen, self._parent)
            self._log(self._parent, tags={"prompt": prompt})
        view = view_url(self._experiment_id, self._record.name)
        note = description(self._experiment, frozen, prompt, view)
        self._log(self._parent, tags={"mlflow.note.content": note})
        if self._whole:
            self._contents[self._parent] = contents

    def report(self, page: str) -> None:
        """Write the report as an artifact of the parent run, which then has all of its contents."""
        self._client.log_text(self._parent, page, "report.html")
        if contents := self._contents.get(self._parent):
            self._log(self._parent, tags={CONTENTS: contents})

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
        """Write a child run, which lasts from the start of its first episode to the end of its last one."""
        figures, ended = dict(more), ended_ms(evaluation)
        if evaluation.episodes:
            figures = {**run_figures(evaluation, self._experiment.verdict.confidence), **more}
        run = self._runs.get(name)
        if run is None:
            digest = {"digest": evaluation.candidate.digest}
            played_by = self._experiment.played_by(evaluation.candidate, self._model).choice
            known = {"mlflow.parentRunId": self._parent, "kind": kind, **digest, **_model_tags(played_by)}
            run = self._runs[name] = self._create_run(name, known, began_ms(evaluation))
        if evaluation.troubles.troubled:
            tags = {**tags, "troubles": troubles_text(evaluation.troubles)}
        failed = [broken.error.one_line for broken in evaluation.failed]
        contents = _hash(repr((figures, tags, traces, ended, evaluation.values, failed)))
        if self._contents.get(run) == contents:
            return
        self._whole = True
        whole = self._record.episodes_of(evaluation.candidate.digest, list(evaluation.values))
        if name not in self._begun:  # by this process: an earlier one may have failed to write it
            self._begin(run, name, evaluation, whole)
        with self._item(f"episodes.json of {name}"):
            self._client.log_text(run, episodes_json(whole, evaluation.task), "episodes.json")
        with self._item(f"the traces of {name}"):
            self._trace(run, name, evaluation, whole, traces)
        with self._item(f"the figures of {name}"):
            tags = {**tags, CONTENTS: contents} if self._whole else tags
            self._log(run, figures, step=len(evaluation.episodes), at_ms=ended, tags=tags)
        self._client.set_terminated(run, end_time=ended)

    def _begin(self, run: str, name: str, evaluation: Evaluation, whole: Sequence[Episode]) -> None:
        """Write what does not change as the candidate plays more episodes."""
        with self._item(f"the settings of {name}"):
            self._log(run, params=evaluation.candidate.settings)
        if whole:
            with self._item(f"prompt.txt of {name}"):
                self._client.log_text(run, prompt_text(evaluation, whole[0]), "prompt.txt")
        self._begun.add(name)

    def _trace(
        self, run: str, name: str, evaluation: Evaluation, whole: Sequence[Episode], most: int
    ) -> None:
        """Write traces of the run's first `most` episodes and of failed ones, once each."""
        if not most:
            return
        done = self._traced.setdefault(run, set())
        first = sorted(whole, key=lambda episode: episode.seed)
        owed = [episode for episode in first if episode.seed not in done][: max(0, most - len(done))]
        failed = [broken for broken in evaluation.failed if broken.seed not in done]
        model = self._experiment.played_by(evaluation.candidate, self._model)
        traced = Traced(self._experiment_id, run, name, model.choice.name, model.prices, evaluation)
        log_traces(traced, owed, failed)
        done |= {one.seed for one in owed} | {broken.seed for broken in failed}

    @cached_property
    def _began_ms(self) -> int:
        """Start of the parent run in ms since 1970: the time of metrics without one."""
        return int(self._client.get_run(self._parent).info.start_time)

    def _found(self, query: str) -> dict[str, str]:
        """Run ids by run name."""
        runs = dict[str, str]()
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment_id], query, page_token=token)
            runs |= {str(run.info.run_name): str(run.info.run_id) for run in page}
            self._contents |= {str(run.info.run_id): run.data.tags.get(CONTENTS, "") for run in page}
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
        """Log with the time of the event, so that a repeated event gives the same point."""
        named = {prefix + key: value for key, value in (params or {}).items()}
        log(self._client, run, [Point(metrics or {}, step, at_ms)], named, tags or {})

    @contextmanager
    def _item(self, what: str) -> Iterator[None]:
        """Record whether the block wrote `what`; raises only if the server is gone."""
        try:
            yield
        except Exception as error:
            if is_gone(error):
                raise
            self._whole = False
            self._missed.add(what, error)
        else:
            self._missed.took(what)


def _model_tags(model: ModelChoice) -> dict[str, str]:
    return {"model": model.name, "endpoint": model.shown}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
