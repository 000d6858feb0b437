"""Rounds: additions to the space during the search: new texts from a proposer, demonstrations from episodes.

It owns when they happen, what the search keeps for them, and the proposer's input; writing texts is the
proposer's.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from math import inf, isfinite
from statistics import fmean

from pydantic import TypeAdapter

from lab.agent.candidate import Demonstration
from lab.agent.episode import Episode
from lab.agent.evaluation import Trial
from lab.agent.step import Step
from lab.errors import BudgetError, LabError, first_of
from lab.experiment.experiment import Experiment
from lab.proposers.briefing import briefing
from lab.proposers.proposal import Proposals
from lab.proposers.proposer import TRIES, Proposer
from lab.storage.optuna_storage import GRACE_S
from lab.storage.record import Record
from lab.storage.trials import Trials

DEMONSTRATIONS = 8
"""Number of demonstrations kept, best first; the maximum of a candidate."""

FIRST = 3
"""Episodes of a new text before it may be dropped."""

HALF = 0.5
"""Share of the search after which demonstrations are due, and a round whose time has come earlier."""

TAKEN = 2
"""Times that demonstrations are taken where no texts are proposed, each halfway to the search's end."""


_STORED = TypeAdapter(list[Proposals])


def _stored(study: Trials) -> list[Proposals]:
    return _STORED.validate_python(study.fact("rounds") or [])


def proposals_of(study: Trials) -> list[str]:
    """What each round of a study proposed, for people; demonstrations alone are none."""
    some = [one for one in _stored(study) if one.texts or one.refused or one.duplicates]
    return [f"Round {number} of proposals: {one}" for number, one in enumerate(some, 1)]


class Rounds:
    """The rounds of one search; one of several workers runs each.

    A round is due once the texts before have played. Demonstrations come with the texts of the middle round
    and of each later one; without texts, at half and at three quarters of the search. Those of a later round
    replace the ones before, for new candidates: an answer that was shown teaches the model better ones.

    Attributes:
        found: Additions of the rounds, in order.

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
        self._rounds = experiment.proposals.rounds if experiment.proposals else 0
        self._shows = "demonstrations" in experiment.space.free
        self.found, self._mine, self._elsewhere = list[Proposals](), False, False

    def read(self) -> list[Proposals]:
        """Return what other workers or processes have found since the last call."""
        if self._mine:
            self._study.state_fact("round_by", self._by())
            return []
        new = _stored(self._study)[len(self.found) :]
        self.found += new
        self._elsewhere = self._elsewhere and not new
        return new

    @property
    def in_progress(self) -> bool:
        """Whether this process or, as far as known, another one runs a round."""
        return self._mine or self._elsewhere

    @property
    def awaited(self) -> bool:
        """Whether texts will be written, or are being written, and none has joined yet."""
        return len(self.found) < self._rounds and not any(found.texts for found in self.found)

    def due(self, progress: float, episodes: int) -> bool:
        """Whether to start the next round.

        Args:
            progress: The share of the search that is over.
            episodes: Number of reported episodes; negative while a new text is owed some.
        """
        number = len(self.found) + 1
        if self._mine or number > (self._rounds or TAKEN * self._shows):
            return False
        if not self._rounds:
            return progress >= 1 - HALF**number
        enough = self._experiment.search.headroom * number
        return episodes >= enough or (episodes > 0 and progress >= HALF * number / (self._rounds + 1))

    def owed_calls(self, search_calls: float) -> int:
        """Calls that no other episode may use while texts are awaited, or written.

        The texts of the first of R rounds join before 1 / (R + 1) of the search's calls are spent, those of
        the second before 2 / (R + 1), and so on: players wait for a slow proposer.

        Args:
            search_calls: Number of calls that the search has in all; infinite without a limit.
        """
        if not (self.awaited or self.in_progress):
            return 0
        left = max(self._rounds - len(self.found), 0) / (self._rounds + 1)
        kept = int(left * search_calls) if isfinite(search_calls) else 0
        return max(self.round_calls if self.in_progress else 0, kept)

    @property
    def round_calls(self) -> int:
        """Calls of the next round: for each text, those of the proposer and its first episodes."""
        proposals, task = self._experiment.proposals, self._experiment.task
        if proposals is None or len(self.found) >= self._rounds:
            return 0
        return proposals.texts * (TRIES + FIRST * task.max_steps)

    def begin(self) -> bool:
        """Start the next round; False if another live worker has started it."""
        if self._record.store.shared:
            with self._record.store.exclusively():
                by = self._study.fact("round_by")
                if by and by["round"] == len(self.found) and time.time() - by["at"] < GRACE_S:
                    self._elsewhere = True
                    return False
                self._study.state_fact("round_by", self._by())
        self._mine, self._elsewhere = True, False
        return True

    def end(self, found: Proposals) -> None:
        """End the round, once its texts are waiting in the search."""
        self.found.append(found)
        self._study.state_fact("rounds", _STORED.dump_python(self.found, mode="json"))
        self._mine = False

    def _by(self) -> dict[str, float]:
        return {"round": len(self.found), "at": time.time()}

    async def bring(self, trials: Sequence[Trial]) -> Proposals:
        """Return the next round's texts and demonstrations, from `trials`, best first.

        If the proposer fails, the round has no texts.
        """
        number = len(self.found) + 1
        made = await self._proposals(trials) if self._rounds else Proposals(())
        if self._shows and number >= (self._rounds + 1) // 2:
            # In a thread: with few distinct actions, all episodes are read.
            shown = await asyncio.to_thread(demonstrations, trials, self._record)
            made = replace(made, demonstrations=shown)
        return made

    async def _proposals(self, trials: Sequence[Trial]) -> Proposals:
        settings, number = self._experiment.proposals, len(self.found) + 1
        assert self._proposer is not None
        assert settings is not None
        try:
            about = await asyncio.to_thread(briefing, self._experiment, trials, self._record)
            proposals = await self._proposer.propose(about, settings.texts, number)
        except Exception as raised:  # also a foreign library's: the search continues without this round
            error = first_of(raised)
            if isinstance(error, BudgetError):  # the round is made once the limit is raised
                raise error from None
            reason = error.one_line if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
            self._warn(f"Round {number} of proposals failed: {reason}")
            return Proposals((), (f"the whole round failed: {reason}",))
        self._on_round(number, proposals)
        return proposals


def demonstrations(trials: Sequence[Trial], record: Record) -> tuple[Demonstration, ...]:
    """The best step of each of the best episodes, without repeated actions; best episode first.

    A model imitates what it is shown: a step is left out if it earned less than halfway from the average step
    to the best one, even if few are left.
    """
    episodes = [
        (trial.evaluation.values[one.seed], trial.candidate.digest, one)
        for trial in trials
        for one in trial.evaluation.episodes
    ]
    earned = [reward for _, _, one in episodes for reward in one.rewards] or [0.0]
    most = max(earned)
    least = min((fmean(earned) + most) / 2, most)  # rounding could raise the mean of equal ones
    named = frozenset[str]().union(*(trial.candidate.template.fields for trial in trials))
    found: dict[str, Demonstration] = {}
    for _, digest, played in sorted(episodes, key=lambda episode: -episode[0]):
        if len(found) == DEMONSTRATIONS:
            break
        if max(played.rewards, default=-inf) < least:  # its texts need not be read
            continue
        episode = record.episode(digest, played.seed)
        own = [step for step in episode.steps if step.error is None and step.reward >= least]
        if not own:
            continue
        best = max(own, key=lambda step: step.reward)
        found.setdefault(best.action, demonstration(episode, best, named))
    return tuple(found.values())


def demonstration(episode: Episode, step: Step, named: Collection[str]) -> Demonstration:
    """A step of an episode as a demonstration.

    Args:
        named: Observation fields that templates use.
    """
    last = episode.steps[step.number - 2] if step.number > 1 else None
    before = last.observation if last else episode.opening
    fields = (last or episode).fields.items()
    shown = tuple((name, text) for name, text in fields if name in named and text is not None)
    return Demonstration(step.number, before, step.action, shown)
