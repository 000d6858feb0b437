"""The child runs of a study in MLflow: one for each candidate's play in search, confirmation or holdout.

It owns their contents: settings, metrics, the prompt, episodes and traces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.agent.episode import Episode
from lab.agent.evaluation import Evaluation
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.search.trouble_words import troubles_text
from lab.storage.record import Record
from lab.tracking.description import prompt_note
from lab.tracking.holdout import Dataset
from lab.tracking.metrics import began_ms, ended_ms, episodes_json, prompt_text, run_figures
from lab.tracking.store import CONTENTS, Point, Store, contents_of
from lab.tracking.traces import Traced, log_traces


@dataclass(frozen=True)
class Play:
    """A candidate's play of one kind (`search`, `confirmation`, `holdout`).

    Attributes:
        figures, tags: Those besides what every play has.
        traces: Number of episodes to trace.
        dataset: The rows that it played, if it is an evaluation run.
    """

    name: str
    kind: str
    evaluation: Evaluation
    traces: int
    figures: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    dataset: Dataset | None = None


class ChildRuns:
    """The child runs of the run `parent`; `ids` has their ids by name."""

    def __init__(
        self, store: Store, experiment: Experiment, model: ModelChoice, record: Record, parent: str
    ) -> None:
        self._store, self._experiment, self._model, self._record = store, experiment, model, record
        self._parent = parent
        self._begun, self._traced = set[str](), dict[str, set[int]]()
        self.ids = dict[str, str]()

    def write(self, play: Play) -> None:
        """Write a child run, which lasts from the start of its first episode to the end of its last one."""
        store, name, evaluation = self._store, play.name, play.evaluation
        figures, ended = dict(play.figures), ended_ms(evaluation)
        if evaluation.episodes:
            figures = {**run_figures(evaluation, self._experiment.verdict.confidence), **figures}
        if name not in self.ids:
            self._create(play)
        run, tags = self.ids[name], dict(play.tags)
        if evaluation.troubles.troubled:
            tags["troubles"] = troubles_text(evaluation.troubles)
        failed = [broken.error.one_line for broken in evaluation.failed]
        contents = contents_of((figures, tags, play.traces, ended, evaluation.values, failed))
        if store.has(run, contents):
            return
        store.whole = True
        whole = self._record.episodes_of(evaluation.candidate.digest, list(evaluation.values))
        if name not in self._begun:  # by this process: an earlier one may have failed to write it
            self._begin(run, play, whole)
        with store.item(f"episodes.json of {name}"):
            store.client.log_text(run, episodes_json(whole, evaluation.task), "episodes.json")
        with store.item(f"the traces of {name}"):
            self._trace(run, play, whole)
        with store.item(f"the figures of {name}"):
            tags = {**tags, CONTENTS: contents} if store.whole else tags
            store.log(run, Point(figures, len(evaluation.episodes), ended), tags=tags)
        store.client.set_terminated(run, end_time=ended)

    def tag_race(self, name: str, place: str) -> None:
        """Set how far a run's trial came, unless the run has it."""
        run = self.ids.get(name)
        if run and self._store.tags[run].get("race") != place:
            self._store.log(run, tags={"race": place})

    def _create(self, play: Play) -> None:
        candidate = play.evaluation.candidate
        played_by = self._experiment.played_by(candidate, self._model).choice
        tags = {"mlflow.parentRunId": self._parent, "kind": play.kind, "digest": candidate.digest}
        tags |= model_tags(played_by)
        self.ids[play.name] = self._store.create_run(play.name, tags, began_ms(play.evaluation))

    def _begin(self, run: str, play: Play, whole: Sequence[Episode]) -> None:
        """Write what does not change as the candidate plays more episodes."""
        store, candidate = self._store, play.evaluation.candidate
        with store.item(f"the settings of {play.name}"):
            store.log(run, params=candidate.settings, tags={"mlflow.note.content": prompt_note(candidate)})
        if whole:
            with store.item(f"prompt.txt of {play.name}"):
                store.client.log_text(run, prompt_text(play.evaluation, whole[0]), "prompt.txt")
        if play.dataset:
            with store.item(f"the dataset of {play.name}"):
                play.dataset.log(run)
        self._begun.add(play.name)

    def _trace(self, run: str, play: Play, whole: Sequence[Episode]) -> None:
        """Write traces of the run's first episodes and of failed ones, once each."""
        if not play.traces:
            return
        evaluation, done = play.evaluation, self._traced.setdefault(run, set())
        first = sorted(whole, key=lambda episode: episode.seed)
        most = max(0, play.traces - len(done))
        owed = [episode for episode in first if episode.seed not in done][:most]
        failed = [broken for broken in evaluation.failed if broken.seed not in done]
        model = self._experiment.played_by(evaluation.candidate, self._model)
        traced = Traced(
            self._store.experiment_id, run, play.name, model.choice.name, model.prices, evaluation
        )
        log_traces(traced, owed, failed)
        done |= {one.seed for one in owed} | {broken.seed for broken in failed}


def model_tags(model: ModelChoice) -> dict[str, str]:
    """The tags that name a model."""
    return {"model": model.name, "endpoint": model.shown}
