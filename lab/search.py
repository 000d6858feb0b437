"""The search: let the race choose, play what it chose, tell it what was returned.

It owns the loop, and when it ends: as soon as what is left of the budget is what the verdict needs. A heat is
chosen as late as possible, when an episode could begin at once. Whatever changes the race is an entry of the
journal first, so that a search that was broken off goes on where it was.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from math import inf

import numpy as np

from lab.episode import CutEpisode, Episode, FailedEpisode
from lab.errors import CallError
from lab.evaluation import Evaluation
from lab.experiment import Experiment
from lab.headroom import Headroom, HeadroomTest
from lab.journal import Begun, Ended, Event, Failed, Renewed, Searched
from lab.player import Hopeless, Played, Player
from lab.race import Entrant, Heat, Race, State
from lab.renewal import Renewal
from lab.sampling import spread_out
from lab.space import Space
from lab.store import Record
from lab.trial import BASELINE, Trial

OnTrial = Callable[[Trial], None]
Place = tuple[Entrant, int]
"""An entrant, and which of the search's seeds."""


class Search:
    """One search; `trials` holds what has played, also when the search is cut short.

    Args:
        renewal: brings new texts and demonstrations into the space on the way; None for neither.
        on_trial: told of a trial each time that it has finished a rung.
        on_headroom: told once, when it can be told whether candidates differ.
        record: what was done before is taken from it, and what is done kept there; None for a search that
            nobody will go on with.
    """

    def __init__(
        self,
        experiment: Experiment,
        player: Player,
        renewal: Renewal | None,
        on_trial: OnTrial,
        on_headroom: Callable[[Headroom], None],
        record: Record | None = None,
    ) -> None:
        self.space: Space = experiment.space
        self.all_begun = asyncio.Event()
        self._experiment, self._player, self._renewal = experiment, player, renewal
        self._on_trial, self._on_headroom, self._record = on_trial, on_headroom, record
        self._over = False
        self._ended = asyncio.Event()
        self._episodes: defaultdict[int, list[Episode]] = defaultdict(list)
        self._cut: defaultdict[int, int] = defaultdict(int)
        settings = experiment.search
        self._race = Race(
            experiment.space, experiment.objective, settings.episodes, settings.error_rate, experiment.seed
        )
        self._headroom = HeadroomTest(self._race, self._enter_first())

    async def run(self) -> None:
        """Play until the budget leaves no more than the verdict needs.

        Raises:
            LabError: endpoint or environment are not to be had, or the baseline cannot be played.
        """
        unended = self._restore(self._record.events if self._record else ())
        try:
            async with asyncio.TaskGroup() as group:
                for entrant, place in () if self._over else unended:
                    self._play(entrant, place, group)
                while not self._over and (await self._room_for(1) or await self._renewed()):
                    if self._renewal is not None and self._renewal.due(self._progress()):
                        group.create_task(self._renew(self._renewal))
                    heat = self._race.next()
                    if heat is None:
                        if not await self._something_ended():
                            break
                    elif await self._room_for(len(heat.places)):
                        self._begin(heat, group)
                    elif not await self._renewed():
                        break
                self.all_begun.set()
        finally:
            self.all_begun.set()

    def end(self) -> None:
        """The search is over, and will not go on another time."""
        if not self._over:
            self._write(Searched())

    @property
    def trials(self) -> list[Trial]:
        """All that have played, best first."""
        return [self._trial(entrant, place) for place, entrant in enumerate(self._ranking(), 1)]

    def best(self, count: int) -> list[Trial]:
        """The `count` best trials, without the baseline."""
        return [trial for trial in self.trials if trial.number != BASELINE][:count]

    def _enter_first(self) -> list[Entrant]:
        """The baseline and candidates that lie far apart: they open the race."""
        rng = np.random.default_rng(self._experiment.seed)
        spread = spread_out(self.space, self._experiment.search.headroom - 1, rng)
        candidates = [self._experiment.baseline, *map(self.space.candidate, spread)]
        entered = map(self._race.enter, candidates)
        return [entrant for entrant in entered if entrant is not None]

    async def _room_for(self, episodes: int) -> bool:
        """Wait for a free slot; whether the budget has room for so many episodes beside all that is owed."""
        await self._player.room()
        owed = self._player.owed_calls + episodes * self._experiment.task.max_steps
        if self._renewal is not None:
            owed += self._renewal.owed_calls
        return self._player.spending.room_for(owed, self._experiment.verdict_calls)

    def _progress(self) -> float:
        return self._player.spending.progress(self._experiment.verdict_calls)

    def _begin(self, heat: Heat, group: asyncio.TaskGroup) -> None:
        self._write(Begun(heat.candidate, heat.places.start, heat.places.stop))
        entrant = self._race.begin(heat)
        for place in heat.places:
            self._play(entrant, place, group)

    def _play(self, entrant: Entrant, place: int, group: asyncio.TaskGroup) -> None:
        playing = self._player.episode(entrant.candidate, self._seed(place), self._hopeless(entrant, place))
        group.create_task(self._record_played(entrant, place, playing))

    def _hopeless(self, entrant: Entrant, place: int) -> Hopeless | None:
        if self._experiment.task.max_step_reward == inf or self._number(entrant) == BASELINE:
            return None
        return lambda bound: self._race.drops(entrant, (place, bound))

    async def _record_played(self, entrant: Entrant, place: int, playing: Awaitable[Played]) -> None:
        played = await playing
        if isinstance(played, FailedEpisode):
            error = played.error
            if self._number(entrant) == BASELINE:
                raise error  # without a baseline there is nothing to compare with
            texts = (error.what, error.where, error.why, error.do)
            self._write(Failed(entrant.candidate.digest, played.seed, *texts))
        headroom = self._take(entrant, place, played)
        self._ended.set()
        if entrant.owed == 0 and entrant.state is not State.FAILED:
            rank = self._race.best(len(self._race.entrants)).index(entrant) + 1
            self._on_trial(self._trial(entrant, rank))
        if headroom is not None:
            self._on_headroom(headroom)

    def _take(self, entrant: Entrant, place: int, played: Played) -> Headroom | None:
        """Tell the race how an episode ended, now or in the record."""
        match played:
            case Episode() as episode:
                self._episodes[entrant.index].append(episode)
                cost = self._experiment.objective.cost_of(episode)
                self._race.record(entrant, place, episode.episode_return, cost)
            case CutEpisode(bound=bound):
                self._cut[entrant.index] += 1
                self._race.cut(entrant, place, bound)
            case FailedEpisode():
                self._race.fail(entrant)
        return self._headroom.look()

    def _restore(self, events: Sequence[Event]) -> list[Place]:
        """Stand where the record ends; the episodes that were begun and had not ended are to be played."""
        unended = dict[tuple[str, int], Place]()
        for event in events:
            match event:
                case Begun(candidate, first, last):
                    entrant = self._race.begin(Heat(candidate, range(first, last)))
                    places = {
                        (candidate.digest, self._seed(place)): (entrant, place)
                        for place in range(first, last)
                    }
                    unended |= places
                case Ended(digest, played) if (digest, played.seed) in unended:
                    self._take_again(*unended.pop((digest, played.seed)), played)
                case Failed(digest, seed, what, where, why, do):
                    error = CallError(what, where=where, why=why, do=do)
                    self._take_again(*unended.pop((digest, seed)), FailedEpisode(seed, error))
                case Renewed():
                    if self._renewal is not None:
                        self._renewal.skip()
                    self._widen(event)
                case Searched():
                    self._over = True
                case _:
                    pass
        for trial in self.trials:
            self._on_trial(trial)
        return list(unended.values())

    def _take_again(self, entrant: Entrant, place: int, played: Played) -> None:
        if (headroom := self._take(entrant, place, played)) is not None:
            self._on_headroom(headroom)

    def _write(self, event: Event) -> None:
        if self._record is not None:
            self._record.append(event)

    async def _something_ended(self) -> bool:
        """Wait until an episode or a renewal ends; False where neither goes on."""
        renewing = self._renewal is not None and self._renewal.owed_calls
        if not renewing and not any(entrant.owed for entrant in self._race.entrants):
            return False
        self._ended.clear()
        await self._ended.wait()
        return True

    async def _renewed(self) -> bool:
        """Wait for a renewal that is going on: the budget was kept for its first episodes. False for none."""
        if self._renewal is None or not self._renewal.owed_calls:
            return False
        while self._renewal.owed_calls:
            await self._something_ended()
        return True

    async def _renew(self, renewal: Renewal) -> None:
        found = await renewal.bring(self.trials)
        event = Renewed(found.texts, found.demonstrations, self._race.best(1)[0].candidate)
        self._write(event)
        self._widen(event)
        renewal.owed_calls = 0
        self._ended.set()

    def _widen(self, event: Renewed) -> None:
        self.space = self.space.widened(event.texts, event.demonstrations)
        self._race.widen(self.space)
        for text in event.texts:
            self._race.enter(replace(event.incumbent, template=text))

    def _ranking(self) -> list[Entrant]:
        ranked = self._race.best(len(self._race.entrants))
        return [entrant for entrant in ranked if self._episodes[entrant.index]]

    def _trial(self, entrant: Entrant, place: int) -> Trial:
        evaluation = Evaluation(
            entrant.candidate, self._experiment.task, tuple(self._episodes[entrant.index])
        )
        dropped = entrant.state is State.DROPPED
        return Trial(self._number(entrant), evaluation, place, dropped, self._cut[entrant.index])

    def _seed(self, place: int) -> int:
        return self._experiment.seed + place

    def _number(self, entrant: Entrant) -> int:
        return BASELINE + entrant.index  # the baseline enters first
