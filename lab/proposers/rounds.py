"""Rounds: additions to the space during the search: new texts from a proposer, demonstrations from episodes.

It owns when they happen, and the proposer's input; writing texts is the proposer's.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from lab.agent.candidate import Demonstration
from lab.agent.evaluation import Trial
from lab.agent.template import PromptTemplate
from lab.errors import LabError, first_of
from lab.experiment.experiment import Experiment
from lab.proposers.briefing import Briefing, Rated
from lab.proposers.proposal import Proposals
from lab.proposers.proposer import Proposer
from lab.storage.optuna_storage import GRACE_S
from lab.storage.record import Record
from lab.storage.trials import Trials

DEMONSTRATIONS = 8
"""Number of demonstrations kept, best first; the maximum of a candidate."""


@dataclass(frozen=True)
class Found:
    """The additions of one round."""

    texts: tuple[PromptTemplate, ...]
    demonstrations: tuple[Demonstration, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        table: dict[str, Any] = _FOUND.dump_python(self, mode="json")
        return table


_FOUND = TypeAdapter(Found)


def read_found(table: Any) -> Found:  # noqa: ANN401  # of JSON
    """Return the inverse of `Found.as_json`."""
    return _FOUND.validate_python(table)


class Rounds:
    """The rounds of one search, evenly spaced through its budget; one of several workers runs each.

    Attributes:
        found: Additions of the rounds, in order.
        owed_calls: Calls due for a round in progress: for each text, its own and those of an episode.

    Args:
        study: Stores the additions.
        record: Has the texts of the episodes.
        proposer: The proposer; None for demonstrations only.
        on_round: Called with each round's number and proposals.
        warn: Called with a sentence about a round that failed.
    """

    def __init__(
        self,
        experiment: Experiment,
        study: Trials,
        record: Record,
        proposer: Proposer | None,
        on_round: Callable[[int, Proposals], None],
        warn: Callable[[str], None],
    ) -> None:
        self._experiment, self._study, self._record = experiment, study, record
        self._proposer, self._on_round, self._warn = proposer, on_round, warn
        self._rounds = experiment.proposals.rounds if experiment.proposals else 1
        self.found, self.in_progress, self.owed_calls = list[Found](), False, 0

    def read(self) -> list[Found]:
        """Return what other workers or processes have found since the last call."""
        if self.in_progress:
            self._study.state_fact("round_by", self._mine())
            return []
        new = [read_found(table) for table in (self._study.fact("rounds") or [])[len(self.found) :]]
        self.found += new
        return new

    def due(self, progress: float) -> bool:
        """Whether to start the next round at this `progress`, the share of the search that is over."""
        number = len(self.found) + 1
        return not self.in_progress and number <= self._rounds and progress >= number / (self._rounds + 1)

    def begin(self) -> bool:
        """Start the next round; False if another live worker has started it."""
        if self._record.store.shared:
            with self._record.store.exclusively():
                by = self._study.fact("round_by")
                if by and by["round"] == len(self.found) and time.time() - by["at"] < GRACE_S:
                    return False
                self._study.state_fact("round_by", self._mine())
        texts = self._experiment.proposals.texts if self._experiment.proposals else 0
        self.in_progress, self.owed_calls = True, texts * (1 + self._experiment.task.max_steps)
        return True

    def end(self, found: Found) -> None:
        """End the round, once its texts are waiting in the search."""
        self.found.append(found)
        self._study.state_fact("rounds", [one.as_json() for one in self.found])
        self.in_progress, self.owed_calls = False, 0

    def _mine(self) -> dict[str, float]:
        return {"round": len(self.found), "at": time.time()}

    async def bring(self, trials: Sequence[Trial]) -> Found:
        """Return new texts and the demonstrations, from `trials`, best first.

        If the proposer fails, the round has no texts.
        """
        texts = await self._texts(trials) if self._proposer is not None else ()
        # In a thread: with few distinct actions, all episodes are read.
        return Found(texts, await asyncio.to_thread(demonstrations, trials, self._record))

    async def _texts(self, trials: Sequence[Trial]) -> tuple[PromptTemplate, ...]:
        settings, number = self._experiment.proposals, len(self.found) + 1
        assert self._proposer is not None
        assert settings is not None
        try:
            about = await asyncio.to_thread(briefing, self._experiment, trials, self._record)
            proposals = await self._proposer.propose(about, settings.texts, number)
        except Exception as raised:  # also a foreign library's: the search continues without this round
            error = first_of(raised)
            reason = error.one_line if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
            self._warn(f"Round {number} of proposals failed: {reason}")
            return ()
        self._on_round(number, proposals)
        return proposals.accepted


def briefing(experiment: Experiment, trials: Sequence[Trial], record: Record) -> Briefing:
    """The proposer's input: the objective, and each text with its best trial's best and worst episodes."""
    by_text: dict[str, Rated] = {}
    for trial in trials:
        template, values = trial.candidate.template, trial.evaluation.values
        if template.name not in by_text:
            ranked = sorted(values, key=lambda seed: values[seed])
            best, worst = record.episodes_of(trial.candidate.digest, [ranked[-1], ranked[0]])
            figures = (trial.evaluation.mean, len(values))
            by_text[template.name] = Rated(template, *figures, best, worst, trial.evaluation.measure)
    task, measure = experiment.task, experiment.objective.maximise
    objective = f"{experiment.about} The objective is the mean episode {measure}, {task.described(measure)}."
    return Briefing(objective, task, tuple(by_text.values()))


def demonstrations(trials: Sequence[Trial], record: Record) -> tuple[Demonstration, ...]:
    """The best step of each of the best episodes, without repeated actions; best episode first."""
    values = {
        (trial.candidate.digest, seed): earned
        for trial in trials
        for seed, earned in trial.evaluation.values.items()
    }
    named = frozenset[str]().union(*(trial.candidate.template.fields for trial in trials))
    found: dict[str, Demonstration] = {}
    for which in sorted(values, key=lambda which: -values[which]):
        if len(found) == DEMONSTRATIONS:
            break
        episode = record.episode(*which)
        own = [step for step in episode.steps if step.error is None]
        if not own:
            continue
        best = max(own, key=lambda step: step.reward)
        last = episode.steps[best.number - 2] if best.number > 1 else None
        before = last.observation if last else episode.opening
        fields = (last or episode).fields.items()
        shown = tuple((name, text) for name, text in fields if name in named and text is not None)
        found.setdefault(best.action, Demonstration(best.number, before, best.action, shown))
    return tuple(found.values())
