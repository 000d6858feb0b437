"""Rounds: what comes into the space on the way: new texts from a proposer, demonstrations from episodes.

It owns when that happens, and what the proposer is told; how texts are written is the proposer's.
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
"""Kept, best first; the most that a candidate may have."""


@dataclass(frozen=True)
class Found:
    """What a round brought."""

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
    """The rounds of one search, at equal distances through its budget; of several workers one does each.

    Attributes:
        found: What the rounds have brought, in order.
        owed_calls: Calls of a round in progress, until its texts are in the race: a call and an episode each.

    Args:
        study: Keeps what was found.
        record: has the texts of the episodes.
        proposer: None where only demonstrations are to be brought.
        on_round: told of what each round's proposer gave, with the round's number.
        warn: told in words of a round that was lost.
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
        """Whether the next round is to begin, `progress` being the share of the search that is over."""
        number = len(self.found) + 1
        return not self.in_progress and number <= self._rounds and progress >= number / (self._rounds + 1)

    def begin(self) -> bool:
        """Begin the next round; False where another worker that is alive has begun it."""
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
        """The round's texts wait in the search."""
        self.found.append(found)
        self._study.state_fact("rounds", [one.as_json() for one in self.found])
        self.in_progress, self.owed_calls = False, 0

    def _mine(self) -> dict[str, float]:
        return {"round": len(self.found), "at": time.time()}

    async def bring(self, trials: Sequence[Trial]) -> Found:
        """New texts and the demonstrations, from what was played so far, best first.

        A proposer that fails costs its round and nothing else.
        """
        texts = await self._texts(trials) if self._proposer is not None else ()
        # In a thread: where there are few actions, all episodes are looked at.
        return Found(texts, await asyncio.to_thread(demonstrations, trials, self._record))

    async def _texts(self, trials: Sequence[Trial]) -> tuple[PromptTemplate, ...]:
        settings, number = self._experiment.proposals, len(self.found) + 1
        assert self._proposer is not None
        assert settings is not None
        try:
            told = await asyncio.to_thread(briefing, self._experiment, trials, self._record)
            proposals = await self._proposer.propose(told, settings.texts, number)
        except Exception as raised:  # a foreign library's, too: the search goes on without this round
            error = first_of(raised)
            reason = error.one_line if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
            self._warn(f"Round {number} of proposals was lost: {reason}")
            return ()
        self._on_round(number, proposals)
        return proposals.accepted


def briefing(experiment: Experiment, trials: Sequence[Trial], record: Record) -> Briefing:
    """What a proposer is told: the objective, and each text with its best trial's best and worst episodes."""
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
    """The best step of each of the best episodes, no action twice; best episode first."""
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
