"""What a running study shows live: its race, the episodes being played, how far each phase is."""

from lab.display.progress import Watched
from lab.display.race_table import Playing
from lab.display.screen import Progress
from lab.experiment.experiment import Experiment
from lab.search.loop import Search
from lab.search.player import Player
from lab.study.unseen import Unseen

EARLY = 0.02
"""Share of the search below which its rate says too little about the time left."""


def watching(title: str, experiment: Experiment, search: Search, unseen: Unseen, player: Player) -> Watched:
    """The running study, for the live screen."""

    def playing() -> list[Playing]:
        numbers, most = search.numbers, experiment.task.max_steps
        return [
            Playing(numbers[one.candidate.digest], one.candidate, one.steps, most)
            for one in player.playing
            if one.candidate.digest in numbers
        ]

    def phases() -> list[Progress]:
        share = min(search.progress, 1.0)
        left = player.spending.minutes * (1 / share - 1) if share >= EARLY else None
        return [Progress("search", share, left), *unseen.progress()]

    return Watched(title, player.spending, search.trials, playing, phases)
