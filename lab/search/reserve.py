"""The Reserve: the calls of the verdict, by the model that makes them, for which the search leaves room."""

from collections.abc import Sequence

from lab.agent.evaluation import BASELINE, Trial
from lab.experiment.budget import BASELINES, Calls
from lab.experiment.experiment import Experiment
from lab.search.player import Player


class Reserve:
    """The reserve of one search; it changes with the candidates that would be confirmed now."""

    def __init__(self, experiment: Experiment, player: Player) -> None:
        self._experiment, self._player = experiment, player
        self._contenders = [player.model_of(experiment.space.start)]

    def look_at(self, trials: Sequence[Trial]) -> None:
        """Take the best of `trials`, best first, as those that would be confirmed."""
        models = [self._player.model_of(one.candidate) for one in trials if one.number != BASELINE]
        self._contenders = models[: self._experiment.confirmation.candidates] or self._contenders

    @property
    def calls(self) -> Calls:
        """Maximum calls of confirmation and holdout; the finalists are assumed to play on the dearest."""
        experiment, contenders = self._experiment, self._contenders
        steps, verdict = experiment.task.max_steps, experiment.verdict
        calls = Calls({BASELINES: verdict.episodes * steps})
        calls[self._player.spending.dearest(contenders)] += verdict.finalists * verdict.episodes * steps
        for place in range(experiment.confirmation.candidates):
            model = contenders[place] if place < len(contenders) else contenders[0]
            calls[model] += experiment.confirmation.episodes * steps
        return calls
