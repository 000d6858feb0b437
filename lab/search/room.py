"""The Room: what the budget has left for the search, besides what is set aside.

Set aside are the verdict's calls, by the model that makes them, the rest of running episodes, and the calls
of texts that are being written.
"""

from collections.abc import Sequence
from math import ceil

from optuna.trial import TrialState

from lab.agent.evaluation import BASELINE, Trial
from lab.experiment.budget import ANY, BASELINES, Calls
from lab.experiment.experiment import Experiment
from lab.proposers.rounds import Rounds
from lab.search.player import Player
from lab.search.race import Race
from lab.search.trials import number_of


class Room:
    """The room of one search; the verdict's share changes with the candidates that would be confirmed now."""

    def __init__(self, experiment: Experiment, player: Player, race: Race, rounds: Rounds | None) -> None:
        self._experiment, self._player, self._race, self._rounds = experiment, player, race, rounds
        self._contenders = [player.model_of(experiment.space.start)]

    def look_at(self, trials: Sequence[Trial]) -> None:
        """Take the best of `trials`, best first, as those that would be confirmed."""
        models = [self._player.model_of(one.candidate) for one in trials if one.number != BASELINE]
        self._contenders = models[: self._experiment.confirmation.candidates] or self._contenders

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

    def has(self, episodes: int, others_calls: int = 0) -> bool:
        """Whether there is room for this many episodes besides those already due.

        Args:
            others_calls: Calls of other workers that are not counted yet.
        """
        owed = others_calls
        if self._rounds is not None and self.in_use:
            owed += self._rounds.owed_calls(self._player.spending.calls_in_all(self._of_verdict))
        return self._fits(episodes, owed)

    def still_has(self, episodes: int) -> bool:
        """Whether there is, after `has`, also with what other workers have done since they were counted.

        Exact if no other worker asks at the same time.
        """
        spending = self._player.spending
        if not spending.uncounted or self.has(episodes, spending.uncounted):
            return True
        self._race.study.read()
        spending.recount()
        return self.has(episodes)

    def has_round(self, rounds: Rounds) -> bool:
        """Whether there is room for the next round; the first one is asked for anyway."""
        calls = 0 if rounds.awaited else rounds.round_calls
        return self._fits(max(ceil(calls / self._experiment.task.max_steps), 1))

    def _fits(self, episodes: int, owed_calls: int = 0) -> bool:
        spending = self._player.spending
        if spending.time_is_up and self._has_rival:
            return False
        more = (self._race.elsewhere() + episodes) * self._experiment.task.max_steps + owed_calls
        return spending.room_for(self._player.owed_calls + Calls({ANY: more}), self._of_verdict)

    @property
    def _of_verdict(self) -> Calls:
        """Maximum calls of confirmation and holdout; the finalists are assumed to play on the dearest."""
        experiment, contenders = self._experiment, self._contenders
        steps, verdict = experiment.task.max_steps, experiment.verdict
        calls = Calls({BASELINES: verdict.episodes * steps})
        calls[self._player.spending.dearest(contenders)] += verdict.finalists * verdict.episodes * steps
        for place in range(experiment.confirmation.candidates):
            model = contenders[place] if place < len(contenders) else contenders[0]
            calls[model] += experiment.confirmation.episodes * steps
        return calls

    @property
    def _is_in_round(self) -> bool:
        return self._rounds is not None and self._rounds.in_progress

    @property
    def _awaits_texts(self) -> bool:
        return self._rounds is not None and self._rounds.awaited

    @property
    def _has_rival(self) -> bool:
        """Whether a trial besides the baseline has started: without one there is nothing to judge."""
        begun = (one for one in self._race.study.known if one.state is not TrialState.WAITING)
        return any(number_of(one) != BASELINE for one in begun)
