"""The race: all trials play the same instances in order, good ones play more, the best is seldom pruned."""

from collections.abc import Callable
from hashlib import sha256

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from scipy import stats

from benchmarks.methods.lab_race import ERROR_RATE, a_race, leader, play
from benchmarks.methods.lab_race import MOST_EPISODES as MOST
from lab.agent.candidate import Candidate
from lab.agent.template import PromptTemplate
from lab.experiment.objective import Objective
from lab.experiment.space import Choices, Range, Space
from lab.search.headroom import TRIED
from lab.search.open_trial import STARTS, OpenTrial
from lab.search.points import Distributions, at_random, contains, spread_out
from lab.search.race import Race
from lab.search.returns import Returns
from lab.stats.moderated_t import NOTHING_KNOWN, Spread, common_spread, p_above_zero

OPENING = 10

RACES = 16


def space(texts: int, *, numbers: bool = False) -> Space:
    templates = {f"t{i}": PromptTemplate(f"t{i}", f"system {i}", "turn") for i in range(texts)}
    free: dict[str, Choices | Range] = {"template": Choices(tuple(templates))}
    if numbers:
        free["temperature"] = Range(0.0, 1.0)
    return Space(free, Candidate(templates["t0"]), templates)


def text_of(race: Race, number: int | None) -> str:
    assert number is not None
    return str(race.study.known[number].params["template"])


@pytest.mark.parametrize("in_flight", [1, 8, 32])
def test_trials_begin_with_one_of_four_instances_and_have_the_same_from_the_rung_of_four_on(
    in_flight: int,
) -> None:
    race, rng = a_race(space(5, numbers=True), 0), np.random.default_rng(1)
    race.open_with(OPENING)

    def earned(one: OpenTrial, step: int) -> float:
        assert step not in race.study.known[one.trial.number].intermediate_values
        return float(rng.normal(100, 10))

    play(race, 400, earned, in_flight)
    played = [list(trial.intermediate_values) for trial in race.study.known]
    alike = TRIED * OPENING
    for number, steps in enumerate(played):
        first = number % STARTS if number >= alike else 0
        assert steps == [first, *(step for step in range(MOST) if step != first)][: len(steps)]
    assert {steps[0] for steps in played[alike:] if steps} == set(range(STARTS))
    assert all(sorted(steps) == list(range(len(steps))) for steps in played if len(steps) >= STARTS)
    if in_flight == 1:
        assert {len(steps) for steps in played} <= {0, 1, 2, 3, 4, 5, 6, 7, 8}
    assert any(len(steps) == MOST for steps in played)


@settings(max_examples=12)
@given(st.lists(st.integers(1, 25), max_size=8), st.integers(0, 5))
def test_an_interrupted_race_resumes_exactly(stretches: list[int], seed: int) -> None:
    """With one episode in flight, the process may die at any point, within a rung or not."""

    def earned(one: OpenTrial, step: int) -> float:
        text = f"{seed} {one.candidate.digest} {step}".encode()
        noise = int.from_bytes(sha256(text).digest()[:4], "big") / 2**32
        return float(one.candidate.settings["template"] == "t1") + noise

    def again(race: Race) -> Race:
        after = a_race(space(4, numbers=True), seed, study=race.study)
        after.take_up()
        return after

    whole = a_race(space(4, numbers=True), seed)
    play(whole, 60, earned)
    broken, left = a_race(space(4, numbers=True), seed), 60
    for stretch in stretches:
        play(broken, min(stretch, left), earned)
        left -= min(stretch, left)
        broken = again(broken)
    play(broken, left, earned)
    trials = [
        [(one.params, one.intermediate_values, one.state) for one in race.study.known]
        for race in (whole, broken)
    ]
    assert trials[0] == trials[1]


@pytest.mark.parametrize("number", range(1, STARTS))
def test_a_trial_whose_process_died_in_its_first_episode_begins_with_the_same_instance(number: int) -> None:
    race = a_race(space(5, numbers=True), 0)
    for params in at_random(space(5, numbers=True).distributions(), STARTS, np.random.default_rng(0)):
        race.new.enqueue(space(5, numbers=True).candidate(params))
    play(race, number, lambda *_: 1.0)
    move = race.next()
    one = race.ask()
    assert move is not None
    assert one is not None
    race.begin(one, move.steps)
    after = a_race(space(5, numbers=True), 0, study=race.study)
    after.take_up()
    again = after.next()
    assert again is not None
    assert again.trial is not None
    assert again.trial.number == one.number == number
    assert list(again.steps) == list(move.steps) == [number]


def test_no_candidate_is_tried_twice_and_a_small_space_runs_out() -> None:
    race, rng = a_race(space(3), 0), np.random.default_rng(0)
    play(race, 1000, lambda *_: float(rng.normal()))
    assert len(race.study.known) == 3
    assert race.next() is None
    race.new.enqueue(Candidate(space(3).templates["t1"]))
    assert len(race.study.known) == 3


def test_the_good_play_on_and_the_best_is_found() -> None:
    rng, race = np.random.default_rng(2), a_race(space(13, numbers=True), 0)
    truth = {f"t{i}": 300.0 + 30 * i for i in range(13)}
    play(race, 120, lambda one, _: float(rng.normal(truth[one.candidate.template.name], 50)), in_flight=8)
    assert text_of(race, leader(race)) in ("t11", "t12")
    good = [trial for trial in race.study.known if trial.params["template"] in ("t11", "t12")]
    assert sum(len(trial.intermediate_values) for trial in good) > 120 / 3


NOISES: dict[str, Callable[[np.random.Generator], float]] = {
    "normal": lambda rng: float(rng.normal()),
    "skewed": lambda rng: float(rng.lognormal(0, 1)),
    "heavy tails": lambda rng: float(rng.standard_t(2)),
    "coin": lambda rng: float(rng.random() < 0.5),
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_one_of_many_equals_is_pruned_no_more_often_than_stated(
    noise: Callable[[np.random.Generator], float],
) -> None:
    """The hardest case for a true best: all others are equal. With a margin for chance (3 sigma)."""
    pruned = 0
    for seed in range(RACES):
        rng, race = np.random.default_rng(seed), a_race(space(15), seed)
        play(race, 90, lambda *_, rng=rng: noise(rng))
        best = [trial for trial in race.study.known if trial.params["template"] == "t0"]
        pruned += any(trial.state is TrialState.PRUNED for trial in best)
    assert pruned / RACES <= ERROR_RATE + 3 * (ERROR_RATE * (1 - ERROR_RATE) / RACES) ** 0.5


def test_the_clearly_worse_are_pruned_and_the_best_completes() -> None:
    rng, race = np.random.default_rng(3), a_race(space(15), 0)
    play(race, 90, lambda one, _: float(rng.normal(100 if one.candidate.template.name == "t0" else 20, 10)))
    pruned = {one.params["template"] for one in race.study.known if one.state is TrialState.PRUNED}
    assert len(pruned) >= 8
    assert "t0" not in pruned
    assert race.study.study.best_trial.params["template"] == "t0"
    values = race.study.study.best_trial.intermediate_values
    assert race.study.study.best_value == pytest.approx(sum(values.values()) / MOST)


def test_an_episode_that_can_no_longer_matter_is_seen_in_the_middle() -> None:
    race, rng = a_race(space(12), 0), np.random.default_rng(4)
    play(race, 30, lambda one, _: float(rng.normal(100 if one.candidate.template.name == "t0" else 60, 3)))
    worst = next(one for one in race.open.values() if one.candidate.template.name != "t0")
    assert race.drops(worst, worst.reported, 5.0)
    assert not race.drops(worst, worst.reported, 1000.0)
    race.cut(worst, worst.reported, 5.0)
    assert race.study.known[worst.trial.number].state is TrialState.PRUNED


def test_a_candidate_that_cannot_be_played_is_not_among_the_best() -> None:
    race = a_race(space(2), 0)
    for text in space(2).templates.values():
        race.new.enqueue(Candidate(text))
    first, second = race.ask(), race.ask()
    assert first is not None
    assert second is not None
    race.fail(first, "it cannot be played")
    race.report(second, 0, 1.0)
    assert leader(race) == second.trial.number
    assert race.study.known[first.trial.number].state is TrialState.FAIL


@pytest.mark.parametrize("end", ["cut", "fail", "elsewhere"])
def test_an_episode_that_ends_after_its_trial_is_not_reported(end: str) -> None:
    race = a_race(space(2), 0)
    race.new.enqueue(Candidate(space(2).templates["t1"]), owed=2)
    one = race.ask()
    assert one is not None
    race.begin(one, race.first_steps(one))
    if end == "cut":
        race.cut(one, 0, 1.0)
    elif end == "fail":
        race.fail(one, "it cannot be played")
    else:  # another worker takes it over, as if this one were dead
        race.study.study.tell(one.trial.number, state=TrialState.FAIL)
    assert not race.report(one, 1, 1.0)
    assert one.trial.number not in race.open
    assert not race.study.known[one.trial.number].intermediate_values


def test_what_a_new_text_is_owed_is_judged_before_it_plays_more() -> None:
    race = a_race(space(2), 0)
    race.new.enqueue(Candidate(space(2).templates["t1"]), owed=3)
    one = race.ask()
    assert one is not None
    race.begin(one, race.first_steps(one))
    assert len(one.playing) == 3
    while_playing = race.next()
    assert while_playing is None or while_playing.trial is not one
    for step in sorted(one.playing):
        race.report(one, step, 1.0)
    then = race.next()
    assert then is not None
    assert then.trial is one
    assert len(then.steps) == 1


def test_new_texts_join_as_equals_and_earlier_episodes_still_count() -> None:
    rng, wide = np.random.default_rng(5), space(11)
    templates = {name: text for name, text in wide.templates.items() if name != "t10"}
    small = Space({"template": Choices(tuple(templates))}, wide.start, templates)
    race = a_race(wide, 0)
    race.new.widen(small)
    play(race, 40, lambda *_: float(rng.normal(100, 5)))
    assert all(trial.params["template"] != "t10" for trial in race.study.known)
    race.new.widen(wide)
    race.new.enqueue(Candidate(wide.templates["t10"]))
    play(race, 30, lambda one, _: float(rng.normal(150 if one.candidate.template.name == "t10" else 100, 5)))
    best = leader(race)
    assert text_of(race, best) == "t10"
    assert len(race.study.known[best or 0].intermediate_values) >= 4


def test_with_a_cost_the_cheap_one_within_reach_is_played_on() -> None:
    objective = Objective("tokens", 0.05)
    race = a_race(space(10), 0, objective=objective)
    for text in space(10).templates.values():
        race.new.enqueue(Candidate(text))
    cost, worth = {"t0": 100.0, "t1": 10.0, "t2": 1.0}, {"t0": 100.0, "t1": 98.0, "t2": 50.0}
    while (move := race.next()) is not None:
        one = move.trial or race.ask()
        assert one is not None
        name = one.candidate.template.name
        race.begin(one, move.steps)
        for step in move.steps:
            race.report(one, step, worth.get(name, 40.0) + step * 0.1, cost.get(name, 50.0))
    assert race.study.study.best_trial.params["template"] == "t0"
    costs = race.study.known[1].user_attrs["costs"]
    assert costs == {str(step): 10.0 for step in range(MOST)}


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
    """Variances drawn from the assumed distribution: s² = s0² · F(d, d0)."""
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
def test_playing_only_the_easy_tasks_is_no_advantage(
    entrants: list[tuple[float, int]], hard: list[float]
) -> None:
    returns, everyone = Returns(len(hard)), [*entrants, (0.0, len(hard))]  # one has played each once
    study = optuna.create_study(direction="maximize")
    for level, played in everyone:
        values = {step: level + hard[step % len(hard)] for step in range(played)}
        study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values=values))
    returns.read(study.get_trials(deepcopy=False))
    expected = [level + sum(hard) / len(hard) for level, _ in everyone]
    assert returns.means == pytest.approx(expected, abs=1e-6)


ends = st.tuples(st.floats(0.001, 1e6), st.floats(0.001, 1e6)).filter(lambda pair: pair[0] < pair[1])
whole = st.tuples(st.integers(1, 1000), st.integers(0, 1000)).map(lambda pair: (pair[0], sum(pair)))
few = st.integers(1, 100)
distributions = st.one_of(
    st.lists(st.text(max_size=3), min_size=1, max_size=5, unique=True).map(CategoricalDistribution),
    st.builds(lambda pair, log: FloatDistribution(pair[0], pair[1], log=log), ends, st.booleans()),
    st.builds(lambda pair, log: IntDistribution(pair[0], pair[1], log=log), whole, st.booleans()),
    st.builds(
        lambda low, n, step: IntDistribution(low, low + n * step, step=step), *[st.integers(1, 50)] * 3
    ),
    st.builds(
        lambda low, n: FloatDistribution(low / 100, (low + n) / 100, step=0.01), *[st.integers(1, 200)] * 2
    ),
)


@given(st.dictionaries(st.text(max_size=3), distributions, max_size=4), st.integers(0, 99))
def test_points_are_those_of_optunas_distributions(where: Distributions, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for point in (*at_random(where, 8, rng), *spread_out(where, 8, rng)):
        assert point.keys() == where.keys()
        for name, value in point.items():
            assert contains(where[name], value)
            assert where[name]._contains(where[name].to_internal_repr(value))
