"""The search: let the race choose, play what it chose, tell it what was returned.

It owns the loop, and when it ends: as soon as what is left of the budget is what the verdict needs. A heat is
chosen as late as possible, when an episode could begin at once. Whatever changes the race is an entry of the
journal first, and the race changes as the journal is read: so a search that was broken off goes on where it
was, and several workers that read one journal run one race.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import replace

import numpy as np

from lab.agent.candidate import Candidate
from lab.agent.episode import CutEpisode, Ending, FailedEpisode, Tally
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.errors import BudgetError
from lab.experiment.experiment import Experiment
from lab.experiment.space import Space
from lab.proposers.rounds import Renewal
from lab.search.headroom import Headroom, HeadroomTest
from lab.search.player import Player
from lab.search.points import spread_out
from lab.search.race import Entrant, Heat, Race, State
from lab.search.running import Hopeless
from lab.storage.journal import Begun, Entered, Over, Renewed, Renewing, Searched, Seen
from lab.storage.record import Record, Which

OnTrial = Callable[[Trial], None]


class Search:
    """One search; `trials` holds what has played, also when the search is cut short.

    Attributes:
        stopped_by: the budget's limit that broke episodes off; the search resumes once it is raised.

    Args:
        renewal: brings new texts and demonstrations into the space on the way; None for neither.
        on_trial: told of a trial each time that it has finished a rung.
        on_headroom: told once, when it can be told whether candidates differ.
        record: what was done before, or is done by other workers, is taken from it; what is done is kept
            there, by the player too.
    """

    def __init__(
        self,
        experiment: Experiment,
        player: Player,
        renewal: Renewal | None,
        on_trial: OnTrial,
        on_headroom: Callable[[Headroom], None],
        record: Record,
    ) -> None:
        self.space: Space = experiment.space
        self.all_begun = asyncio.Event()
        self._experiment, self._player, self._renewal = experiment, player, renewal
        self._on_trial, self._on_headroom, self._record = on_trial, on_headroom, record
        self._over, self._applied, self._caught_up = False, 0, False
        self._unended: dict[Which, tuple[Entrant, int]] = {}
        self._renewer = ""
        self._episodes: defaultdict[int, list[Tally]] = defaultdict(list)
        self._cut: defaultdict[int, list[CutEpisode]] = defaultdict(list)
        settings = experiment.search
        self._race = Race(
            experiment.space,
            experiment.objective,
            settings.episodes,
            settings.error_rate,
            experiment.seed,
            max(len(experiment.task.tasks), 1),
        )
        self._opening: list[Entrant] = []
        self._headroom: HeadroomTest | None = None
        self.stopped_by: BudgetError | None = None

    async def run(self) -> None:
        """Play until the budget leaves no more than the verdict needs, and no worker plays any more.

        Raises:
            LabError: endpoint or environment are not to be had, the baseline cannot be played, or none of
                the first answers could be used.
        """
        self._read()
        while self._headroom is None and not self._over:
            self._record.propose(Entered(self._first()))
            self._read()
        self._caught_up = True
        for trial in self.trials:
            self._on_trial(trial)
        try:
            async with asyncio.TaskGroup() as group:
                while not self._over and self.stopped_by is None:
                    await self._player.room()
                    self._read()
                    self._look_at_first()
                    if self._over or self._begins_something(group):
                        continue
                    if self.all_begun.is_set() and not self._goes_on:
                        self._record.propose(Searched())
                    else:
                        await self._record.changed()
        finally:
            self.all_begun.set()

    def catch_up(self, *, telling: bool = False) -> None:
        """Stand where the record stands, and begin nothing; `telling` of each rung on the way there."""
        self._caught_up = self._caught_up or telling
        self._read()

    def end(self) -> None:
        """The search is over, and will not go on another time."""
        self._read()
        if not self._over:
            self._record.append(Searched())
            self._read()

    @property
    def trials(self) -> list[Trial]:
        """All that have played, best first."""
        return [self._trial(entrant, place) for place, entrant in enumerate(self._ranking(), 1)]

    def best(self, count: int) -> list[Trial]:
        """The `count` best trials, without the baseline."""
        return [trial for trial in self.trials if trial.number != BASELINE][:count]

    def _first(self) -> tuple[Candidate, ...]:
        """The baseline and candidates that lie far apart: they open the race."""
        rng = np.random.default_rng(self._experiment.seed)
        spread = spread_out(self.space, self._experiment.search.headroom - 1, rng)
        return (self._experiment.baseline, *map(self.space.candidate, spread))

    def _look_at_first(self) -> None:
        """Stop where no answer could be used so far, in one way or the other; see
        `lab.search.first_answers`.
        """
        if (first := self._player.first) is None:
            return
        first.check()
        played = [self._episodes[entrant.index][:1] for entrant in self._opening]
        if first.useless and all(played):
            first.returned([tally.episode_return for (tally,) in played])

    @property
    def _goes_on(self) -> bool:
        """Whether an episode or a renewal goes on, here or elsewhere."""
        return bool(self._unended or self._renewing)

    @property
    def _renewing(self) -> bool:
        return self._renewer != ""

    def _begins_something(self, group: asyncio.TaskGroup) -> bool:
        """Begin one thing, where there is one to begin and a slot is free; also True for a lost attempt."""
        abandoned = self._abandoned()
        if abandoned is not None:
            if self._record.claim(abandoned):
                self._play(*self._unended[abandoned], group)
            return True
        if self._renewing and self._renewer not in self._record.alive:
            return self._begin_renewal(group)
        if self.all_begun.is_set():
            return False
        due = self._renewal is not None and not self._renewing and self._renewal.due(self._progress())
        if due and self._room_for(1):
            return self._begin_renewal(group)
        heat = self._race.next()
        if heat is not None and self._room_for(len(heat.places)):
            return self._begin(heat, group)
        # Once a renewal has ended, the budget that was kept for its first episodes is there for them.
        if not self._renewing and (heat is not None or not self._unended):
            self.all_begun.set()
        return False

    def _abandoned(self) -> Which | None:
        """An episode whose worker is gone."""
        alive, players = self._record.alive, self._record.unended
        return next((which for which in self._unended if players.get(which) not in alive), None)

    def _room_for(self, episodes: int) -> bool:
        """Whether the budget has room for so many episodes beside all that is owed."""
        if self._fits(episodes + self._record.uncounted):
            return True
        if not self._record.uncounted:
            return False
        self._player.spending.recount()
        return self._fits(episodes)

    def _fits(self, episodes: int) -> bool:
        players, me = self._record.unended, self._record.worker
        if self._player.spending.time_is_up and self._has_rival:
            return False
        elsewhere = sum(players.get(which) != me for which in self._unended)
        owed = self._player.owed_calls + (elsewhere + episodes) * self._experiment.task.max_steps
        if self._renewal is not None:
            owed += self._renewal.owed_calls
        return self._player.spending.room_for(owed, self._experiment.verdict_calls)

    @property
    def _has_rival(self) -> bool:
        """Whether anything besides the baseline has begun: without it there would be nothing to judge."""
        others = (one for one in self._race.entrants if self._number(one) != BASELINE)
        return any(one.owed or one.played for one in others)

    def _progress(self) -> float:
        return self._player.spending.progress(self._experiment.verdict_calls)

    def _begin(self, heat: Heat, group: asyncio.TaskGroup) -> bool:
        seeds = [self._experiment.seed + place for place in heat.places]
        if self._record.propose(Begun(heat.candidate, seeds[0], seeds[-1] + 1)):
            self._read()
            for seed in seeds:
                self._play(*self._unended[heat.candidate.digest, seed], group)
        return True

    def _play(self, entrant: Entrant, place: int, group: asyncio.TaskGroup) -> None:
        seed = self._experiment.seed + place
        hopeless = self._hopeless(entrant, place)
        group.create_task(self._within_budget(self._player.episode(entrant.candidate, seed, hopeless)))

    async def _within_budget(self, work: Coroutine[None, None, object]) -> None:
        """Do it; where a limit of the budget breaks it off, the search stops, and its journal stays open."""
        try:
            await work
        except BudgetError as error:
            self.stopped_by = error
            self._record.tell()

    def _hopeless(self, entrant: Entrant, place: int) -> Hopeless | None:
        task, measure = self._experiment.task, self._experiment.objective.maximise
        if not task.bounds(measure) or self._number(entrant) == BASELINE:
            return None
        return lambda bound: self._race.drops(entrant, (place, task.most_value(bound, measure)))

    def _begin_renewal(self, group: asyncio.TaskGroup) -> bool:
        if self._record.propose(Renewing(self._record.worker)):
            self._read()
            group.create_task(self._within_budget(self._renew()))
        return True

    async def _renew(self) -> None:
        assert self._renewal is not None
        found = await self._renewal.bring(self.trials)
        incumbent = self._race.best(1)[0].candidate
        self._record.append(Renewed(found.texts, found.demonstrations, incumbent))

    def _read(self) -> None:
        """Take in what the journal has that the race has not."""
        while self._applied < len(self._record.events):
            event = self._record.events[self._applied]
            self._applied += 1
            if not self._over:
                self._apply(event)

    def _apply(self, event: Seen) -> None:
        match event:
            case Entered(candidates) if self._headroom is None:
                entered = map(self._race.enter, candidates)
                self._opening = [one for one in entered if one is not None]
                self._headroom = HeadroomTest(self._race, self._opening)
            case Begun(candidate, first, last):
                places = range(first - self._experiment.seed, last - self._experiment.seed)
                entrant = self._race.begin(Heat(candidate, places))
                for seed, place in zip(range(first, last), places, strict=True):
                    self._unended[candidate.digest, seed] = (entrant, place)
            case Over(digest, seed) if self._is_over((digest, seed)):
                if self._is_of_a_failed_baseline((digest, seed)) and not self._caught_up:
                    self._record.reopen((digest, seed))  # it ended an earlier process, and may do better now
                else:
                    self._take((digest, seed))
            case Renewing(worker):
                if self._renewal is not None and not self._renewing:
                    self._renewal.begin()
                self._renewer = worker
            case Renewed() if self._renewing:
                self._renewer = ""
                if self._renewal is not None:
                    self._renewal.end()
                self._widen(event)
            case Searched():
                self._over = True
            case _:
                pass

    def _is_over(self, which: Which) -> bool:
        """Whether the race does not know yet that it ended; of a reopened one the record has no end."""
        return which in self._unended and which in self._record.ended

    def _is_of_a_failed_baseline(self, which: Which) -> bool:
        entrant, _ = self._unended[which]
        return self._number(entrant) == BASELINE and isinstance(self._record.ended[which], FailedEpisode)

    def _take(self, which: Which) -> None:
        """Tell the race how an episode ended."""
        entrant, place = self._unended.pop(which)
        headroom = self._tell_race(entrant, place, self._record.ended[which])
        if self._caught_up and entrant.owed == 0 and entrant.state is not State.FAILED:
            rank = self._race.best(len(self._race.entrants)).index(entrant) + 1
            self._on_trial(self._trial(entrant, rank))
        if headroom is not None:
            self._on_headroom(headroom)

    def _tell_race(self, entrant: Entrant, place: int, played: Ending) -> Headroom | None:
        task, objective = self._experiment.task, self._experiment.objective
        match played:
            case Tally() as tally:
                self._episodes[entrant.index].append(tally)
                value = task.value_of(tally.rewards, objective.maximise)
                self._race.record(entrant, place, value, objective.cost_of(tally))
            case CutEpisode(bound=bound) as cut:
                self._cut[entrant.index].append(cut)
                self._race.cut(entrant, place, task.most_value(bound, objective.maximise))
            case FailedEpisode(error=error):
                if self._number(entrant) == BASELINE:
                    raise error  # without a baseline there is nothing to compare with
                self._race.fail(entrant)
        return self._headroom.look() if self._headroom else None

    def _widen(self, event: Renewed) -> None:
        self.space = self.space.widened(event.texts, event.demonstrations)
        self._race.widen(self.space)
        for text in event.texts:
            self._race.enter(replace(event.incumbent, template=text))

    def _ranking(self) -> list[Entrant]:
        ranked = self._race.best(len(self._race.entrants))
        return [entrant for entrant in ranked if self._episodes[entrant.index]]

    def _trial(self, entrant: Entrant, place: int) -> Trial:
        episodes, cut = tuple(self._episodes[entrant.index]), tuple(self._cut[entrant.index])
        task, measure = self._experiment.task, self._experiment.objective.maximise
        evaluation = Evaluation(entrant.candidate, task, episodes, cut=cut, measure=measure)
        dropped = entrant.state is State.DROPPED
        return Trial(self._number(entrant), evaluation, place, dropped, len(cut))

    def _number(self, entrant: Entrant) -> int:
        return BASELINE + entrant.index  # the baseline enters first
