"""The race: all play the same seeds in order, the good play on, and the best is seldom dropped."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab.agent.candidate import Candidate
from lab.agent.template import PromptTemplate
from lab.experiment.objective import Objective
from lab.experiment.space import Choices, Range, Space
from lab.search.race import Entrant, Race, State
from lab.search.returns import Scores
from lab.stats.moderated_t import NOTHING_KNOWN, Spread, common_spread, p_above_zero

ERROR_RATE, MOST, RACES = 0.1, 8, 40
BY_RETURN = Objective()


def space(texts: int, *, numbers: bool = False) -> Space:
    templates = {f"t{i}": PromptTemplate(f"t{i}", f"system {i}", "turn") for i in range(texts)}
    free: dict[str, Choices | Range] = {"template": Choices(tuple(templates))}
    if numbers:
        free["temperature"] = Range(0.0, 1.0)
    return Space(free, Candidate(templates["t0"]), templates)


def run(race: Race, episodes: int, reward: Callable[[Candidate], float], in_flight: int = 1) -> None:
    """Play a race of so many episodes, several at a time, each over in the order of its start."""
    waiting: list[tuple[Entrant, int]] = []
    for _ in range(episodes):
        while len(waiting) < in_flight and (heat := race.next()) is not None:
            entrant = race.begin(heat)
            waiting += [(entrant, place) for place in heat.places]
        if not waiting:
            return
        entrant, place = waiting.pop(0)
        race.record(entrant, place, reward(entrant.candidate))


def a_race(where: Space, seed: int = 0, objective: Objective = BY_RETURN) -> Race:
    return Race(where, objective, MOST, ERROR_RATE, seed)


@pytest.mark.parametrize("in_flight", [1, 8, 32])
def test_every_entrant_plays_the_seeds_in_order_and_in_rungs(in_flight: int) -> None:
    race, played, rng = a_race(space(5, numbers=True)), dict[int, list[int]](), np.random.default_rng(1)
    waiting: list[tuple[Entrant, int]] = []
    for _ in range(150):
        while len(waiting) < in_flight and (heat := race.next()) is not None:
            entrant = race.begin(heat)
            assert heat.places.start == len(played.setdefault(entrant.index, []))
            assert heat.places.stop in (1, 2, 4, 8)
            played[entrant.index] += heat.places
            waiting += [(entrant, place) for place in heat.places]
        entrant, place = waiting.pop(0)
        race.record(entrant, place, float(rng.normal(100, 10)))
    assert any(len(places) == MOST for places in played.values())


def test_no_candidate_enters_twice_and_a_small_space_runs_out() -> None:
    race, rng = a_race(space(3)), np.random.default_rng(0)
    run(race, 1000, lambda _: float(rng.normal()))
    assert len(race.entrants) == 3
    assert race.next() is None
    assert race.enter(race.entrants[0].candidate) is None


def test_the_good_play_on_and_the_best_is_found() -> None:
    rng = np.random.default_rng(2)
    race = a_race(space(13, numbers=True))
    truth = {f"t{i}": 300.0 + 30 * i for i in range(13)}
    run(race, 120, lambda candidate: float(rng.normal(truth[candidate.template.name], 50)), in_flight=8)
    assert race.best(1)[0].candidate.template.name in ("t11", "t12")
    good = [entrant.played for entrant in race.entrants if entrant.candidate.template.name in ("t11", "t12")]
    assert sum(good) > 120 / 3


NOISES: dict[str, Callable[[np.random.Generator], float]] = {
    "normal": lambda rng: float(rng.normal()),
    "skewed": lambda rng: float(rng.lognormal(0, 1)),
    "heavy tails": lambda rng: float(rng.standard_t(2)),
    "coin": lambda rng: float(rng.random() < 0.5),
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_one_of_many_equals_is_dropped_no_more_often_than_stated(
    noise: Callable[[np.random.Generator], float],
) -> None:
    """The hardest case for a true best: all others are as good. With room for chance (3 sigma)."""
    dropped = 0
    for seed in range(RACES):
        rng = np.random.default_rng(seed)
        race = a_race(space(15), seed)
        run(race, 90, lambda _, rng=rng: noise(rng))  # type: ignore[misc]
        best = next(entrant for entrant in race.entrants if entrant.candidate.template.name == "t0")
        dropped += best.state is State.DROPPED
    assert dropped / RACES <= ERROR_RATE + 3 * (ERROR_RATE * (1 - ERROR_RATE) / RACES) ** 0.5


def test_the_clearly_worse_are_dropped() -> None:
    rng, race = np.random.default_rng(3), a_race(space(15))
    run(race, 90, lambda candidate: float(rng.normal(100 if candidate.template.name == "t0" else 20, 10)))
    dropped = {entrant.candidate.template.name for entrant in race.entrants if entrant.state is State.DROPPED}
    assert len(dropped) >= 8
    assert "t0" not in dropped


def test_an_episode_that_can_no_longer_matter_is_seen_in_the_middle() -> None:
    race, rng = a_race(space(12)), np.random.default_rng(4)
    run(race, 60, lambda candidate: float(rng.normal(100 if candidate.template.name == "t0" else 60, 3)))
    worst = next(entrant for entrant in race.entrants if entrant.candidate.template.name != "t0")
    worst.state = State.ALIVE
    place = worst.played % MOST
    assert race.drops(worst, (place, 5.0))
    assert not race.drops(worst, (place, 1000.0))
    worst.owed += 1
    race.cut(worst, place, 5.0)
    assert worst.state is State.DROPPED


def test_a_candidate_that_cannot_be_played_is_not_among_the_best() -> None:
    race = a_race(space(2))
    first, second = (race.enter(Candidate(text)) for text in space(2).templates.values())
    assert first is not None
    assert second is not None
    for _ in range(2):
        heat = race.next()
        assert heat is not None
        race.begin(heat)
    race.fail(first)
    race.record(second, 0, 1.0)
    assert race.best(5) == [second]


def test_new_texts_join_as_equals_and_what_was_played_still_counts() -> None:
    rng, small = np.random.default_rng(5), space(10)
    race = a_race(small)
    run(race, 40, lambda _: float(rng.normal(100, 5)))
    new = PromptTemplate("new", "a better text", "turn")
    wider = small.widened([new], [])
    race.widen(wider)
    race.enter(Candidate(new))
    run(race, 30, lambda candidate: float(rng.normal(150 if candidate.template.name == "new" else 100, 5)))
    assert race.best(1)[0].candidate.template.name == "new"
    assert race.best(1)[0].played >= 4


def test_with_a_cost_the_cheap_one_within_reach_leads() -> None:
    race = a_race(space(10), objective=Objective("tokens", 0.05))
    for text in space(10).templates.values():
        race.enter(Candidate(text))
    cost = {"t0": 100.0, "t1": 10.0, "t2": 1.0}
    worth = {"t0": 100.0, "t1": 98.0, "t2": 50.0}
    while (heat := race.next()) is not None:
        name, entrant = heat.candidate.template.name, race.begin(heat)
        for place in heat.places:
            race.record(entrant, place, worth.get(name, 40.0) + place * 0.1, cost.get(name, 50.0))
    assert [entrant.candidate.template.name for entrant in race.best(2)] == ["t1", "t0"]


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12).filter(lambda values: len(set(values)) > 1))
def test_without_a_prior_the_test_is_the_paired_t_test(values: list[float]) -> None:
    mean, variance = float(np.mean(values)), float(np.var(values, ddof=1))
    ours = p_above_zero(mean, len(values), Spread(variance, len(values) - 1), NOTHING_KNOWN)
    theirs = stats.ttest_1samp(values, 0, alternative="greater").pvalue
    if mean <= 0:
        assert ours == 1.0
    elif variance > 1e-12:
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_the_common_spread_is_recovered_from_many_variances() -> None:
    """Variances drawn as the method assumes: s² = s0² · F(d, d0)."""
    rng = np.random.default_rng(0)
    df = np.full(4000, 3.0)
    found = common_spread(25.0 * rng.f(3, 10, size=4000), df)
    assert found.variance == pytest.approx(25, rel=0.05)
    assert found.df == pytest.approx(10, rel=0.15)


def test_equal_variances_are_pooled_and_too_few_say_nothing() -> None:
    rng = np.random.default_rng(0)
    variances = 4.0 * rng.chisquare(3, size=50) / 3
    assert common_spread(variances, np.full(50, 3.0)).df > 50
    assert common_spread(variances[:2], np.full(2, 3.0)) == NOTHING_KNOWN


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 12)), min_size=2, max_size=12),
    st.lists(st.floats(-500, 500), min_size=2, max_size=4),
)
def test_who_has_played_the_easy_tasks_alone_gains_nothing_by_it(
    entrants: list[tuple[float, int]], hard: list[float]
) -> None:
    scores = Scores(12, len(hard))
    for number, (level, played) in enumerate([*entrants, (0.0, len(hard))]):  # one has played each once
        scores.add_row()
        scores.values[number, :played] = [level + hard[place % len(hard)] for place in range(played)]
    expected = [level + sum(hard) / len(hard) for level, _ in [*entrants, (0.0, 0)]]
    assert scores.means == pytest.approx(expected, abs=1e-6)
