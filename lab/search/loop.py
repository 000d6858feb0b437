"""The search: start what the race chooses, play it, store it, report it.

It owns the loop, and its end: when only the verdict's share of the budget is left, and no running episode
can leave more. A choice is made as late as possible, when an episode can start at once. An episode is stored
before it is reported: the next process reports what a killed one did not.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict

import optuna

from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode, Tally
from lab.agent.evaluation import BASELINE, Trial
from lab.errors import BudgetError
from lab.experiment.experiment import Experiment
from lab.proposers.rounds import FIRST, Rounds
from lab.search.headroom import Headroom
from lab.search.open_trial import OpenTrial
from lab.search.player import Played, Player
from lab.search.publication import Publication
from lab.search.race import Race
from lab.search.room import Room
from lab.search.running import Hopeless
from lab.search.trials import Standings, best_of, distributions_of, expected
from lab.storage.record import Record
from lab.storage.trials import NONE_YET, Trials

Playing = Coroutine[None, None, Played | Ending]
"""An episode to play."""


class Search:
    """The search of one process.

    Attributes:
        full: Set once the budget has no room for another episode, until a running one ends early.
        stopped_by: The budget limit that interrupted episodes; the search resumes once it is raised.

    Args:
        rounds: Adds new texts and demonstrations to the space; None for neither.
        on_trial: Called with a trial at the end of each of its rungs.
        on_headroom: Called with each new result of the warm-up test.
    """

    def __init__(
        self,
        experiment: Experiment,
        player: Player,
        rounds: Rounds | None,
        on_trial: Callable[[Trial], None],
        on_headroom: Callable[[Headroom], None],
        record: Record,
        study: Trials,
    ) -> None:
        self._experiment, self._player, self._rounds = experiment, player, rounds
        self._on_headroom, self._record, self._study = on_headroom, record, study
        self._race = Race(
            study,
            experiment.space,
            distributions_of(experiment),
            experiment.search.episodes,
            experiment.objective.maximise,
            shared=record.store.shared,
        )
        self._standings = Standings(experiment, record.ended)
        self._over, self._unstarted = False, set[Playing]()
        self._room = Room(experiment, player, self._race, rounds, record.ended)
        self._publication = Publication(study, self.trials, self._room.look_at, on_trial)
        self.full, self._changed = asyncio.Event(), asyncio.Event()
        self.stopped_by: BudgetError | None = None
        self.wake()

    @property
    def running(self) -> list[optuna.Trial]:
        """The trials played by this process."""
        return [one.trial for one in self._race.open.values()]

    def trials(self, of: Sequence[int] | None = None) -> list[Trial]:
        """All trials with a completed episode, best first.

        Args:
            of: Numbers in Optuna's study of those that need the model's interval; None for all.
        """
        if self._record.store.shared:
            self._study.read()  # and then the episodes: each is stored before it is reported
            self._record.refresh()
        return self._standings.ranked(self._study.known, expected(self._study, of))

    def best(self, count: int) -> list[Trial]:
        """The `count` best trials, without the baseline; see `best_of`."""
        return best_of(self.trials(), count, self._study.fact("winner"))

    @property
    def progress(self) -> float:
        """The share of the search's budget that is used; see `Room`."""
        return self._room.progress

    async def run(self) -> None:
        """Play until only the verdict's share of the budget is left, and no worker is playing.

        Raises:
            LabError: Endpoint or environment failed, the baseline cannot be played, or none of the first
                answers could be used.
        """
        if not self._over:
            self._begin_study()
        self._publication.publish(everything=True)
        try:
            async with asyncio.TaskGroup() as group:
                while self.stopped_by is None and not self._over:
                    await self._player.room()
                    if self._player.first is not None:
                        self._player.first.look()
                    if self._publication.due_s == 0:
                        self._publication.publish()
                    if self._begins_something(group):
                        await asyncio.sleep(0)
                    elif self.full.is_set() and not self._room.in_use:
                        break
                    else:
                        await self._change()
        except BaseException:
            self._study.hand_over(self.running)
            raise
        finally:
            self.full.set()
            for episode in self._unstarted:  # cancelled before they ran
                episode.close()
        self._publication.publish()
        if self.stopped_by is not None:
            self._study.hand_over(self.running)

    async def _change(self) -> None:
        """Wait until something has changed, or a publication is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._publication.due_s):
                await self._changed.wait()
        self._changed.clear()

    def leave_out(self, names: Collection[str]) -> str:
        """Choose without these settings from now on; returns what that changes, in words."""
        return self._race.new.leave_out(names)

    def end(self) -> None:
        """End the search for good; running trials end with the episodes they have."""
        self._race.end()
        self._publication.publish()
        if not self._over:
            self._look_at_headroom(last=True)
            self._over = True
            self._study.state_fact("searched", self._player.spending.minutes)

    async def at_rest(self) -> None:
        """Wait until no process plays the search's episodes."""
        while self._race.elsewhere() > 0:
            await self._changed.wait()
            self._changed.clear()

    def wake(self) -> None:
        """Take in what other processes have changed."""
        for found in self._rounds.read() if self._rounds else []:
            self._race.new.include(found.texts, found.demonstrations)
        self._race.release()
        self._look_whether_over()
        self._changed.set()

    def _look_whether_over(self) -> None:
        self._over = self._over or self._study.fact("searched") is not None

    def _begin_study(self) -> None:
        """Enqueue the baseline and the initial candidates of a new study, or resume open trials."""
        with self._record.store.exclusively():
            self._study.read()
            if self._study.fact("opening") is None:
                self._study.state_fact("verdict", NONE_YET)  # first, where optuna-dashboard shows it
                self._race.new.enqueue(self._experiment.baseline)
                if self._race.is_own:
                    self._race.new.enqueue_spread(self._experiment.search.headroom - 1, self._experiment.seed)
                self._study.state_fact("opening", len(self._study.known))
        self._race.open_with(self._study.fact("opening") or 0)
        if not self._record.store.shared:
            for one in self._race.take_up():
                self._take_known(one)

    def _take_known(self, one: OpenTrial) -> None:
        """Report a trial's recorded episodes; a baseline that failed in an earlier process is retried."""
        reported = self._study.known[one.trial.number].intermediate_values
        for step in range(self._experiment.search.episodes):
            key = (one.candidate.digest, self._experiment.seed + step)
            ending = self._record.ended.get(key)
            if isinstance(ending, FailedEpisode) and one.number == BASELINE:
                self._record.forget_failure(*key)
            elif ending is None and self._player.has_begun(*key):
                one.begun.add(step)
            elif ending is not None and step not in reported:
                self._take(one, step, ending)

    # What is next

    def _begins_something(self, group: asyncio.TaskGroup) -> bool:
        """Start the next round or trial if the budget has room; False once there is nothing to start."""
        if self._record.store.shared:
            self._look_whether_over()
        if self._over:
            return False
        rounds = self._rounds
        if rounds and self._room.has_round(rounds) and rounds.begin():
            group.create_task(self._renew(rounds))
            return True
        wanted = self._race.next()
        if move := wanted and self._room.part_of(wanted):
            # Two workers may have chosen the same, or both found the last room in the budget.
            with self._record.store.exclusively():
                one = (move.trial or self._race.ask()) if self._room.still_has(move) else None
                steps = move.steps
                if one is not None and move.trial is None:
                    if one.number != one.trial.number:  # another worker left it
                        self._player.look_again()
                    self._take_known(one)
                    steps = self._race.first_steps(one)[: len(steps)]
                if one is not None and steps:
                    self._play(one, steps, group)
            return True
        # Once a round has ended, others may use the budget that was reserved for its first episodes.
        if not self._room.is_kept and (wanted is not None or not self._room.in_use):
            self.full.set()
        return False

    # Playing

    def _play(self, one: OpenTrial, steps: Sequence[int], group: asyncio.TaskGroup) -> None:
        self._race.begin(one, steps)
        for step in steps:
            seed = self._experiment.seed + step
            episode = self._player.episode(one.candidate, seed, self._hopeless(one, step))
            self._unstarted.add(episode)
            group.create_task(self._episode(one, step, episode))

    async def _episode(self, one: OpenTrial, step: int, episode: Playing) -> None:
        self._unstarted.discard(episode)
        with self._within_budget():
            ending = await episode
            self._take(one, step, ending.tally if isinstance(ending, Episode) else ending)
        self._changed.set()

    @contextmanager
    def _within_budget(self) -> Iterator[None]:
        """Stop the search if the budget refuses a call in the block; its trials stay open."""
        try:
            yield
        except BudgetError as error:
            self.stopped_by = error

    def _hopeless(self, one: OpenTrial, step: int) -> Hopeless | None:
        task, measure = self._experiment.task, self._experiment.objective.maximise
        early = one.number == BASELINE or one.reported < one.owed
        if not self._race.drops_in_the_middle or not task.bounds(measure) or early:
            return None
        return lambda bound: self._race.drops(one, step, task.most_value(bound, measure))

    def _take(self, one: OpenTrial, step: int, ending: Ending) -> None:
        """Report to the race how an episode ended."""
        objective, task = self._experiment.objective, self._experiment.task
        ended = True
        match ending:
            case Tally() as tally:
                cost = None if objective.cost is None else objective.cost_of(tally, one.candidate.model)
                value = task.value_of(tally.rewards, objective.maximise, tally.own_score)
                ended = self._race.report(one, step, value, cost)
            case CutEpisode(bound=bound):
                self._race.cut(one, step, task.most_value(bound, objective.maximise))
            case FailedEpisode(error=error):
                if one.number == BASELINE:  # there is nothing to compare with
                    error.do = error.do or "run the same command to play the baseline once more, or change it"
                    raise error
                self._race.fail(one, error.what)
        if ended:
            self._publication.add(one.number, one.trial.number)
        self._look_at_headroom()

    def _look_at_headroom(self, *, last: bool = False) -> None:
        if (headroom := self._race.headroom(last=last)) is not None:
            self._study.state_fact("headroom", asdict(headroom))
            self._on_headroom(headroom)

    async def _renew(self, rounds: Rounds) -> None:
        with self._within_budget():
            found = await rounds.bring(self.trials())
            leader = self.trials()[0].candidate
            self._race.new.include(found.texts, found.demonstrations)
            for text in found.texts:
                self._race.new.enqueue_text(text.name, leader, owed=FIRST)
            rounds.end(found)
        self._changed.set()
