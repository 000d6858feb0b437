"""A study in MLflow: a parent run, and a child run for each candidate's play.

It owns what is written when. It blocks, and raises if nothing can be written; `lab.tracking.tracker` calls
it. Child runs, the registered prompt, the description and the pages have separate modules.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Literal

from lab.agent.candidate import Candidate
from lab.agent.evaluation import Trial, trial_name
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.proposers.proposal import Proposals
from lab.search.headroom import Headroom
from lab.search.trouble_words import troubles_text
from lab.storage.record import Record
from lab.submission.freeze import frozen_text
from lab.submission.frozen import FrozenPrompt
from lab.tracking.child_runs import ChildRuns, Play, model_tags
from lab.tracking.description import description, unfinished
from lab.tracking.holdout import EVALUATION_RUN, Dataset
from lab.tracking.metrics import difference_figures, ended_ms, outcome_figures, trouble_figures
from lab.tracking.missed import Missed
from lab.tracking.pages import TRIALS, Pages, on_server
from lab.tracking.prompts import Prompt
from lab.tracking.store import CONTENTS, Point, Store, contents_of
from lab.verdict.verdict import Verdict

Status = Literal["FINISHED", "FAILED", "KILLED"]

PLACES = ("confirmed", "finalist", "winner")
"""How far the search's best trials came, in the tag `race`; after a later verdict, `earlier` precedes it."""

RACE = "race"
"""Name of the run with the race by episodes; the study's own run has the verdict's metrics: MLflow lists the
metrics of a run in the order in which they were first written."""

MOST_POINTS = 300
"""Points of the race that are written together; a batch may have 1,000 metrics, and a point has two."""


class MlflowStore:
    """One study in MLflow, at `MLFLOW_TRACKING_URI` or MLflow's own default.

    Attributes:
        complete: Whether an earlier process wrote the study's outcome and report.
        links: URLs of its pages by what they show, relative to MLflow's page.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: ModelChoice,
        record: Record,
        missed: Missed,
        say: Callable[[str], None],
    ) -> None:
        self._experiment, self._model, self._record = experiment, model, record
        self._race, self._leader, self._drawn = dict[str, Trial](), "", 0
        self._points = list[Point]()
        self._contents, self.complete = "", False
        self._last = ""  # of the names that a later verdict would have in common with an earlier one
        self._store = Store(experiment, missed, say)
        name = record.name  # it may contain characters that MLflow's filters do not allow
        self._began_ms = round(record.began * 1000)  # also the time of metrics without one
        run = self._store.found("tags.kind = 'study'").get(name)
        tags = {"kind": "study", **model_tags(model)}
        self._parent = run or self._store.create_run(name, tags, self._began_ms)
        self._runs = ChildRuns(self._store, experiment, model, record, self._parent)
        self._pages = Pages(self._store.experiment_id, name, self._parent)
        self.links = {TRIALS: self._pages.trials}
        if run is not None:
            self._resume()
        self._begun = CONTENTS in self._store.tags[self._parent] or self._begin()

    def _begin(self) -> bool:
        """Write what does not change; returns whether MLflow took it."""
        store, experiment = self._store, self._experiment
        with store.item("the tables of runs"):
            self._pages.save_views(store.client, experiment)
        with store.item("the experiment's description"):
            self._pages.link_from_experiment(store.client, experiment)
        with store.item("the baseline's settings"):
            note = {"mlflow.note.content": unfinished(experiment, self.links)}
            store.log(self._parent, params=_prefixed("baseline_", experiment.baseline), tags=note)
        with store.item("experiment.toml"):
            store.client.log_text(self._parent, experiment.text, "experiment.toml")
        return store.whole

    def _resume(self) -> None:
        """Find the child runs of an earlier process."""
        store = self._store
        store.client.update_run(self._parent, status="RUNNING")
        self._runs.ids = store.found(f"tags.`mlflow.parentRunId` = '{self._parent}'")
        if RACE in self._runs.ids:
            drawn = store.client.get_metric_history(self._runs.ids[RACE], "contenders")
            self._drawn = max((point.step for point in drawn), default=0)

    @property
    def urls(self) -> dict[str, str]:
        """URLs of the study's pages by what they show; empty without a tracking server."""
        links = {"The study": self._pages.study, **self.links}
        return on_server(self._store.client.tracking_uri, links)

    def trial(self, trial: Trial, *, newest: bool) -> None:
        """Write a trial's child run after a rung: settings, metrics, first prompt, episodes so far.

        The run of the race gets a point by episodes: the leader's mean, and how many trials still compete.

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
                f"search_leader_{evaluation.measure}": self._race[self._leader].evaluation.mean,
                "contenders": sum(not one.dropped for one in self._race.values()),
            }
            self._points.append(Point(race, played, ended_ms(evaluation)))
        if newest:
            tags = {"race": "dropped"} if trial.dropped else {}
            traces, cut = self._experiment.tracking.traces, {"episodes_cut": trial.cut}
            self._runs.write(Play(trial.name, "search", evaluation, traces, cut, tags))
        if self._points and (newest or len(self._points) >= MOST_POINTS):
            self._store.log(self._race_run(), *self._points)
            self._points.clear()

    def headroom(self, headroom: Headroom) -> None:
        """Write the warm-up test to the run of the race; its result is the study's tag."""
        spread, others = headroom.spread, {"noise": headroom.noise, "p_value": headroom.p_value}
        figures = {"spread": spread.mean, "low": spread.low, "high": spread.high, **others}
        metrics = {f"headroom_{key}": value for key, value in figures.items()}
        self._store.log(self._race_run(), Point(metrics, spread.n, self._began_ms))
        self._store.log(self._parent, tags={"headroom": headroom.result})

    def proposals(self, number: int, proposals: Proposals) -> None:
        """Write a round's texts, and the reasons for refused ones."""
        figures = {
            "proposals_accepted": len(proposals.texts),
            "proposals_refused": len(proposals.refused),
            "proposals_duplicates": proposals.duplicates,
        }
        self._store.log(self._race_run(), Point(figures, number, self._began_ms))
        texts = [asdict(text) for text in proposals.texts]
        table = {"accepted": texts, "refused": list(proposals.refused), "parents": dict(proposals.parents)}
        self._store.client.log_text(self._parent, json.dumps(table, indent=1), f"proposals-{number}.json")

    def verdict(self, verdict: Verdict) -> None:
        """Write a child run for each candidate of confirmation and holdout, and how far each trial came."""
        some, runs = self._experiment.tracking.traces, self._runs
        self._last = f"-{verdict.number}" if verdict.earlier else ""
        for one in verdict.confirmed:
            runs.write(Play(self._name("confirmation", one.trial.name), "confirmation", one.unseen, some))
        baseline, every = verdict.baseline, len(verdict.baseline.episodes) if some else 0
        dataset = Dataset(self._store, self._experiment.name, baseline.task, [*baseline.values])
        own = self._name("holdout", "baseline")
        runs.write(Play(own, "holdout", baseline, every, {}, EVALUATION_RUN, dataset))
        shown = verdict.winner or next(iter(verdict.finalists), None)
        for finalist in verdict.finalists:
            name = self._name("holdout", finalist.trial.name)
            figures = difference_figures(finalist.difference, finalist.p_value)
            play = Play(name, "holdout", finalist.unseen, some, figures)
            if finalist is shown:
                play = replace(play, traces=every, tags=EVALUATION_RUN, dataset=dataset)
            runs.write(play)
        places = _places(verdict)
        for trial, run in runs.ids.items():
            if (place := self._store.tags[run].get("race")) in PLACES and trial not in places:
                runs.tag_race(trial, f"earlier {place}")
        for trial, place in places.items():
            runs.tag_race(trial, place)
        if shown:
            self.links["Confirmation"] = self._pages.confirmation
            compared = self._pages.holdout(runs.ids[self._name("holdout", shown.trial.name)], runs.ids[own])
            self.links[f"Holdout of {shown.trial.name} and baseline, side by side"] = compared

    def frozen(self, frozen: FrozenPrompt) -> None:
        """Write the outcome to the parent run, unless it is there: frozen prompt, evidence, cost."""
        text, store = frozen_text(frozen), self._store
        prompt = Prompt(store.client, frozen)
        self.links["Baseline and frozen prompt"] = self._pages.prompt(prompt.name)
        self._contents = contents_of(text)
        self.complete = store.has(self._parent, self._contents)
        if self.complete:
            return
        store.whole = True
        whole = self._record.troubles
        tags = {"troubles": troubles_text(whole)} if whole.troubled else {}
        created_ms = round(datetime.fromisoformat(frozen.provenance.created).timestamp() * 1000)
        store.log(
            self._parent,
            Point(outcome_figures(frozen) | trouble_figures(whole), at_ms=created_ms),
            params=_prefixed("frozen_", frozen.candidate, self._last),
            tags={"outcome": frozen.evidence.outcome, "digest": frozen.candidate.digest, **tags},
        )
        with store.item("best.toml"):
            store.client.log_text(self._parent, text, "best.toml")
        version = self._registered(prompt, trial_name(frozen.provenance.trial))
        note = description(self._experiment, frozen, version, self.links)
        registered = {"prompt": version} if version else {}
        store.log(self._parent, tags={"mlflow.note.content": note, **registered})
        if not (store.whole and self._begun):
            self._contents = ""

    def _registered(self, prompt: Prompt, trial: str) -> str:
        """Register the baseline and then the frozen prompt; `name/version`, empty if it was rejected.

        Each is linked to the study's run and to that of its holdout.
        """
        baseline, ids = self._experiment.baseline, self._runs.ids
        model = self._experiment.played_by(baseline, self._model).choice.name
        with self._store.item("the baseline in the registry"):
            runs = filter(None, [self._parent, ids.get(self._name("holdout", "baseline"))])
            prompt.register_baseline(baseline, model, runs)
        with self._store.item("the frozen prompt in the registry"):
            return prompt.register_frozen(filter(None, [self._parent, ids.get(self._name("holdout", trial))]))
        return ""

    def _name(self, phase: str, candidate: str) -> str:
        """Name of a candidate's run in the verdict's confirmation or holdout."""
        return f"{phase}-{candidate}{self._last}"

    def report(self, page: str) -> None:
        """Write the report as an artifact of the parent run, which then has all of its contents."""
        self._store.client.log_text(self._parent, page, "report.html")
        if self._contents:
            self._store.log(self._parent, tags={CONTENTS: self._contents})

    def end(self, status: Status) -> None:
        """Close the parent run and that of the race."""
        for run in (self._runs.ids.get(RACE), self._parent):
            if run:
                self._store.client.set_terminated(run, status)

    def _race_run(self) -> str:
        if RACE not in self._runs.ids:
            tags = {"mlflow.parentRunId": self._parent, "kind": RACE}
            self._runs.ids[RACE] = self._store.create_run(RACE, tags, self._began_ms)
        return self._runs.ids[RACE]


def _prefixed(prefix: str, candidate: Candidate, last: str = "") -> dict[str, object]:
    return {f"{prefix}{name}{last}": value for name, value in candidate.settings.items()}


def _places(verdict: Verdict) -> dict[str, str]:
    """How far trials came that were not dropped, by name: one of `PLACES`."""
    confirmed, finalist, winner = PLACES
    places = {one.trial.name: confirmed for one in verdict.confirmed}
    places |= {one.trial.name: finalist for one in verdict.finalists}
    return places | ({verdict.winner.trial.name: winner} if verdict.winner else {})
