"""The Room: what the budget has left for the search, besides what is set aside.

Set aside are the calls that the verdict still needs, by the model that makes them, the rest of running
episodes, and the calls of texts that are being written.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil

from optuna.trial import TrialState

from lab.agent.candidate import Candidate
from lab.agent.episode import Ending
from lab.agent.evaluation import BASELINE, Trial
from lab.experiment.budget import ANY, BASELINES, Calls
from lab.experiment.experiment import Experiment
from lab.proposers.rounds import Rounds
from lab.search.open_trial import Move
from lab.search.player import Player
from lab.search.race import Race
from lab.search.running import calls_left, usual_calls
from lab.search.trials import best_of, number_of, seeds_of
from lab.storage.keys import CONFIRMATION, HOLDOUT, EpisodeKey


class Room:
    """The room of one search; the verdict's share changes with the candidates that would be confirmed now.

    Args:
        ended: The ending of each ended episode.
    """

    def __init__(
        self,
        experiment: Experiment,
        player: Player,
        race: Race,
        rounds: Rounds | None,
        ended: Mapping[EpisodeKey, Ending],
    ) -> None:
        self._experiment, self._player, self._race, self._rounds = experiment, player, race, rounds
        self._ended, self._contenders = ended, [experiment.space.start]
        self.look_at([])

    def look_at(self, trials: Sequence[Trial]) -> None:
        """Take the best of `trials`, best first, as those that would be confirmed."""
        count, winner = self._experiment.confirmation.candidates, self._race.study.fact("winner")
        best = [one.candidate for one in best_of(trials, count, winner)]
        self._contenders = best or self._contenders
        episodes, task = self._experiment.verdict.episodes, self._experiment.task
        judged = (self._experiment.baseline, *self._contenders)
        self._usual = usual_calls(judged, self._ended, episodes, task)  # by candidate

    @property
    def progress(self) -> float:
        """The share of the search's budget that is used; see `Spending.progress`."""
        return self._player.spending.progress(self._of_verdict)

    @property
    def in_use(self) -> bool:
        """Whether any process plays an episode or runs a round."""
        return self._is_in_round or self._race.playing > 0 or self._race.elsewhere() > 0

    @property
    def is_kept(self) -> bool:
        """Whether something may still end that frees what is set aside for texts."""
        return self._is_in_round or (self._awaits_texts and self.in_use)

    def part_of(self, move: Move) -> Move | None:
        """The part of a move that there is room for, as many of its steps as fit; None if not one does."""
        parts = [replace(move, steps=move.steps[: place + 1]) for place in range(len(move.steps))]
        count = bisect_left(parts, True, key=lambda part: not self.has(part))
        return parts[count - 1] if count else None

    def has(self, move: Move, others_calls: int = 0) -> bool:
        """Whether there is room for a move's episodes besides those already due.

        Args:
            others_calls: Calls of other workers that are not counted yet.
        """
        calls, others = self._calls_of(move), others_calls
        if calls == 0:  # all of them are on record
            return True
        if self._rounds is not None and self.in_use:
            others += self._rounds.owed_calls(self._player.spending.calls_in_all(self._of_verdict))
        has_begun = calls < len(move.steps) * self._experiment.task.max_steps  # before the time was up
        model = ANY if move.candidate is None else self._player.model_of(move.candidate)
        return (has_begun or self._is_in_time) and self._fits(Calls({model: calls}) + Calls({ANY: others}))

    def still_has(self, move: Move) -> bool:
        """Whether there is, after `has`, also with what other workers have done since they were counted.

        Exact if no other worker asks at the same time.
        """
        spending = self._player.spending
        if not spending.uncounted or self.has(move, spending.uncounted):
            return True
        self._race.study.read()
        spending.recount()
        return self.has(move)

    def has_round(self, rounds: Rounds) -> bool:
        """Whether the next round is due, and has room; for the first texts an episode's is enough."""
        if not rounds.due(self.progress, self._race.episodes):
            return False
        calls = 0 if rounds.awaited else rounds.round_calls
        return self._is_in_time and self._fits(Calls({ANY: max(calls, self._experiment.task.max_steps)}))

    def _calls_of(self, move: Move) -> int:
        if move.candidate is None:
            return len(move.steps) * self._experiment.task.max_steps
        return self._calls_left(move.candidate, (self._experiment.seed + step for step in move.steps))

    def _fits(self, calls: Calls) -> bool:
        elsewhere = Calls({ANY: self._race.elsewhere() * self._experiment.task.max_steps})
        unseen = self._experiment.seed + CONFIRMATION  # from here on, seeds are in the verdict's share
        owed = calls_left(one for one in self._player.requested if one.seed < unseen)
        return self._player.spending.room_for(owed + elsewhere + calls, self._of_verdict)

    @property
    def _of_verdict(self) -> Calls:
        """Calls to reserve for the rest of the verdict; see `usual_calls`. One episode may be the longest.

        Its finalists are assumed to play on the dearest model, and as long as the longest-playing contender.
        """
        experiment, contenders = self._experiment, self._contenders
        models = [self._player.model_of(one) for one in contenders]
        verdict, confirmation = experiment.verdict, experiment.confirmation
        longest = max(self._usual[one.digest] for one in contenders)
        finalists = self._player.spending.dearest(models)
        calls = Calls({BASELINES: self._usual_left(experiment.baseline, seeds_of(experiment, HOLDOUT))})
        calls[finalists] += ceil(verdict.finalists * verdict.episodes * longest)
        calls[finalists] += ceil(experiment.task.max_steps - longest)
        for model, one in zip(models, contenders, strict=True):
            calls[model] += self._usual_left(one, seeds_of(experiment, CONFIRMATION))
        unknown = confirmation.candidates - len(contenders)
        calls[models[0]] += ceil(unknown * confirmation.episodes * longest)
        return calls

    def _usual_left(self, candidate: Candidate, seeds: Iterable[int]) -> int:
        """The calls that a candidate will usually still make on these seeds."""
        usual = self._usual[candidate.digest]
        return ceil(sum(min(most, usual) for most in self._most_left(candidate, seeds)))

    def _calls_left(self, candidate: Candidate, seeds: Iterable[int]) -> int:
        """Maximum calls that a candidate may still make on these seeds."""
        return sum(self._most_left(candidate, seeds))

    def _most_left(self, candidate: Candidate, seeds: Iterable[int]) -> list[int]:
        """The same of each episode that has not ended."""
        unended = (seed for seed in seeds if (candidate.digest, seed) not in self._ended)
        return [self._player.most_calls(candidate, seed) for seed in unended]

    @property
    def _is_in_round(self) -> bool:
        return self._rounds is not None and self._rounds.in_progress

    @property
    def _awaits_texts(self) -> bool:
        return self._rounds is not None and self._rounds.awaited

    @property
    def _is_in_time(self) -> bool:
        """Whether more may start; without a trial besides the baseline there would be nothing to judge."""
        if not self._player.spending.time_is_up:
            return True
        begun = (one for one in self._race.study.known if one.state is not TrialState.WAITING)
        return all(number_of(one) == BASELINE for one in begun)
