"""The maximised number is judged, the return or the score; no winner is shown to score lower.

In the market of these tests talking earns a little at each step, and only a deal gives a good last reward.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agent.candidate import Candidate
from lab.agent.episode import Episode, Tally
from lab.agent.evaluation import Evaluation, Trial
from lab.agent.step import Step
from lab.agent.task import Measure, Scoring, Setup, Task
from lab.agent.template import PromptTemplate
from lab.cli.head_to_head import claim, other_claim
from lab.errors import ConfigError
from lab.experiment.experiment import load_experiment
from lab.experiment.objective import Objective
from lab.proposers.briefing import Briefing, Rated
from lab.show import _evidence
from lab.study.plan import Plan
from lab.submission.frozen import Evidence, FrozenPrompt, read_frozen
from lab.verdict.verdict import Judge, Verdict, judge
from lab.verdict.words import at_limit, cautions
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_frozen import a_frozen_prompt

MARKET = '''
"""A market: talking continues and earns 0.4 per step, a deal ends it. A gamble pays on every other seed."""

from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Say(Action):
    message: str


class Heard(Observation):
    text: str


class Market(Environment[Say, Heard, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Heard:
        self.pays = (seed or 0) % 2 == 0
        return Heard(text="Good morning.")

    def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Heard:
        ends = {"deal": 0.99, "poor deal": 0.5, "gamble": 9.0 if self.pays else 0.5}
        done = action.message in ends
        return Heard(text="Well?", reward=ends.get(action.message, 0.4), done=done)

    @property
    def state(self) -> State:
        return State()
'''

EXPERIMENT = """
about = "Sell the car."

[environment]
python = "market.py:Market"

[task]
name = "car"
benchmark = "market"
max_steps = 4
max_tokens = 60
max_return = {max_return}
max_step_reward = 9.0
success_score = 0.5
score = "{score}"

[model]
endpoint = "embedded"
name = "fake"

[baseline]
template = "{baseline}"
temperature = 0.7
max_tokens = 60
history = 1

[space]
template = {templates}
temperature = {{ low = 0.5, high = 1.0 }}

[budget]
calls = 320

{objective}

[search]
episodes = 4
headroom = 5

[confirmation]
candidates = 2
episodes = 2

[verdict]
episodes = {episodes}

[tracking]
traces = 0
"""

SAID = {"settle": "poor deal", "close": "deal", "talk": "let us talk", "gamble": "gamble"}
"""The model's answers at each step, by template."""


def trader(body: Body) -> Reply:
    told = str(body["messages"])
    return Reply(next(said for name, said in SAID.items() if f"You {name}." in told))


def tune(
    folder: Path,
    score: Scoring,
    baseline: str,
    templates: Sequence[str],
    objective: str = "",
    episodes: int = 6,
    max_return: float = 1.0,
    asked: Sequence[Sequence[str]] = ((),),
) -> tuple[Project, list[str]]:
    """Tune in the market, once for each of `asked`'s flags: the project, and each output."""
    project = Project.make(folder / "project", tracked=True)
    project.write("experiments/market.py", MARKET)
    for name in SAID:
        text = f'about = "{name}"\nsystem = "You {name}."\nturn = "{{observation}}"\n'
        project.write(f"prompts/templates/{name}.toml", text)
    values = {"score": score, "baseline": baseline, "templates": json.dumps(list(templates))}
    more = {"objective": objective, "episodes": episodes, "max_return": max_return}
    project.write("experiments/market.toml", EXPERIMENT.format(**values, **more))
    printed = []
    with fake_endpoint(trader) as endpoint:
        for flags in asked:
            settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "k"}
            done = project.run("-m", "lab.tune", "experiments/market.toml", *flags, **settings)
            assert done.returncode == 0, done.stderr
            assert "MLflow failed" not in done.stderr
            printed.append(done.stdout)
    return project, printed


def frozen(project: Project) -> FrozenPrompt:
    return read_frozen(project.folder / "prompts/best.toml")


def mlflow(project: Project, query: str) -> list[str]:
    with sqlite3.connect(project.folder / "mlflow.db") as database:
        return [row[0] for row in database.execute(query)]


@pytest.mark.parametrize("score", ["last", "max"])
def test_if_the_score_is_one_reward_the_closer_is_frozen_not_the_talker(
    tmp_path: Path, score: Scoring
) -> None:
    """The talker returns 1.6, the closer 0.99: by the return the talker would win."""
    project, (out, document) = tune(
        tmp_path, score, "settle", ["talk", "close"], asked=[(), ("--replay", "--quiet", "--json")]
    )
    won = frozen(project)
    assert won.candidate.template.name == "close"
    assert won.evidence.judged == "score"
    assert won.evidence.frozen_score == pytest.approx(0.99)
    assert won.evidence.baseline_interval == pytest.approx([0.5, 0.5])
    assert won.evidence.difference == pytest.approx(0.49)
    assert "mean episode score" in out
    assert "difference in score" in out
    assert "Mean return 0.990, baseline 0.500." in out
    told = json.loads(document)
    assert told["verdict"]["judged"] == "score"
    assert told["finalists"][0]["other"]["name"] == "return"
    assert {"score_mean", "score_low", "return_mean", "search_leader_score"} <= set(
        mlflow(project, "select distinct key from metrics")
    )


def test_if_the_return_is_maximised_the_verdict_starts_with_the_lower_score(tmp_path: Path) -> None:
    objective = '[objective]\nmaximise = "return"'
    project, (out, document) = tune(
        tmp_path,
        *("last", "close", ["talk", "close"], objective),
        asked=[(), ("--replay", "--quiet", "--json")],
    )
    won = frozen(project)
    assert won.candidate.template.name == "talk"
    assert won.evidence.judged == "return"
    first = out.splitlines()[0]
    assert first.startswith("Caution: the score of trial-")
    assert "lower than the baseline's: 0.400 (-0.590 vs. baseline, -60 %; 95 % interval" in first
    assert json.loads(document)["verdict"]["claim"] == first
    assert first.startswith(f"{won.evidence.caution} Frozen: trial-")
    notes = mlflow(project, "select value from tags where key = 'mlflow.note.content'")
    assert any(f"\n\n**{first}" in note for note in notes)
    (report,) = project.folder.glob("mlruns/**/report.html")
    page = report.read_text(encoding="utf-8")
    assert page.index("With caution: trial-") < page.index("returns more than")
    assert 'class="claim">Caution: the score of trial-' in page


def test_a_gain_in_return_that_costs_score_is_refused_unless_requested(tmp_path: Path) -> None:
    """Also with the clamped sum: half of the gambles pay nine, which the score does not show."""
    project, (out,) = tune(tmp_path, "sum", "close", ["gamble", "close"], episodes=12, max_return=0.99)
    won = frozen(project)
    assert won.candidate.template.name == "close"
    assert won.evidence.outcome == "baseline"
    assert won.evidence.judged == "return"
    first = out.splitlines()[0]
    assert "beats the baseline and is not frozen: the score of trial-" in first
    assert 'maximise = "return"' in first
    assert first.endswith("Frozen: the baseline.")
    assert "No candidate" not in out


TASK = Task("t", "b", 8, 150, 1.0, 0.1)
SCORINGS: list[Scoring] = ["sum", "last", "max"]
MEASURES: list[Measure] = ["return", "score"]


@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=8),
    st.integers(0, 8),
    st.sampled_from(SCORINGS),
    st.sampled_from(MEASURES),
    st.floats(-2, 0.5),
)
def test_no_episode_ends_above_its_bound(
    rewards: list[float], played: int, score: Scoring, measure: Measure, min_return: float
) -> None:
    """Whatever follows, the bound holds for the maximised measure."""
    most = max(rewards)
    task = replace(TASK, score=score, max_step_reward=most, min_return=min_return)
    before, left = rewards[:played], len(rewards) - len(rewards[:played])
    bound = task.most_value(sum(before) + task.most_return(left), measure)
    assert task.value_of(rewards, measure) <= bound + 1e-9


def test_an_episode_is_cut_only_if_its_rewards_so_far_bound_the_maximised_number() -> None:
    known = replace(TASK, max_step_reward=1.0)
    assert [known.bounds(measure) for measure in MEASURES] == [True, True]
    assert not TASK.bounds("return")
    for score in ("last", "max"):
        task = replace(known, score=score)
        assert [task.bounds(measure) for measure in MEASURES] == [True, False]


def evaluation(episodes: Sequence[Sequence[float]], task: Task, measure: Measure, tokens: int) -> Evaluation:
    tallies = (
        Tally(seed, tuple(rewards), 1, tokens, 0, 0.0, 0.0, None) for seed, rewards in enumerate(episodes)
    )
    return Evaluation(Candidate(PromptTemplate("x", "s", "t")), task, tuple(tallies), measure=measure)


def judged(
    objective: Objective,
    *arms: Sequence[Sequence[float]],
    score: Scoring = "last",
    by: Judge = "mean",
    tokens: Sequence[int] = (0, 0, 0),
    tasks: str = "",
) -> Verdict:
    """The verdict on a baseline and finalists, each given as rewards by episode."""
    task = replace(TASK, score=score, tasks=tuple(map(Setup, tasks)))
    measure = objective.maximise
    base, *others = (evaluation(arm, task, measure, much) for arm, much in zip(arms, tokens, strict=False))
    entries = [(Trial(number, one), one) for number, one in enumerate(others, 1)]
    return judge((), base, entries, objective, 0.95, by)


CLOSER, TALKER, TALKING_CLOSER = [[0.99]] * 8, [[0.4] * 4] * 8, [[0.4, 0.4, 0.99]] * 8
BY_RETURN, BY_SCORE = Objective(), Objective(maximise="score")
ON_DEMAND = Objective(maximise="return", stated=True)


def test_the_next_able_finalist_is_frozen_in_place_of_the_refused_one() -> None:
    dear_talk = [[0.9] * 4] * 8
    verdict = judged(BY_RETURN, CLOSER, dear_talk, TALKING_CLOSER)
    assert verdict.winner is not None
    assert verdict.winner.trial.number == 2
    assert [one.trial.number for one in verdict.refused] == [1]
    (told,) = cautions(verdict)
    assert told.startswith("trial-001 beats the baseline and is not frozen")


def test_a_lower_score_is_accepted_only_on_request_and_then_reported() -> None:
    assert judged(BY_RETURN, CLOSER, TALKER).winner is None
    verdict = judged(ON_DEMAND, CLOSER, TALKER)
    assert verdict.winner is not None
    assert not verdict.refused
    assert "the score of trial-001 is shown to be lower" in cautions(verdict)[0]


def test_by_the_score_a_lower_return_is_reported_and_frozen() -> None:
    verdict = judged(BY_SCORE, TALKER, CLOSER)
    assert verdict.winner is not None
    assert verdict.winner.difference.mean == pytest.approx(0.59)
    assert "the return of trial-001 is shown to be lower" in cautions(verdict)[0]
    assert ": 0.990 (-0.610 vs. baseline, -38 %; 95 % interval" in cautions(verdict)[0]


@pytest.mark.parametrize("objective", [BY_RETURN, BY_SCORE], ids=["return", "score"])
def test_no_caution_where_both_numbers_are_higher_or_differ_by_rounding(objective: Objective) -> None:
    assert cautions(judged(objective, [[0.4]] * 8, CLOSER)) == []
    parts, whole = [[0.1, 0.1, 0.1, 0.5]] * 8, [[0.3 - 1e-16, 0.5 - 1e-16]] * 8
    assert all(not one.other_is_lower for one in judged(objective, parts, whole).finalists)


@pytest.mark.parametrize(("objective", "number"), [(BY_SCORE, "return"), (ON_DEMAND, "score")])
def test_by_the_worst_task_the_other_number_is_the_worst_tasks_too(objective: Objective, number: str) -> None:
    won, lost = (CLOSER, TALKER) if objective is BY_SCORE else (TALKER, CLOSER)
    verdict = judged(objective, lost, won, by="worst", tasks="ab")
    assert verdict.winner is not None
    assert f"the {number} of the worst task of trial-001 is shown to be lower" in cautions(verdict)[0]
    assert verdict.method.startswith(
        f"intersection-union t tests of the difference in the worst task's {objective.maximise}"
    )


@pytest.mark.parametrize(("last", "wins"), [(0.97, True), (0.5, False)])
def test_a_cheaper_one_may_lose_as_much_score_as_return(last: float, wins: bool) -> None:
    """With the same return, and the score of the last reward reachable or not."""
    objective = Objective("tokens", 0.05)
    base, cheap = [[0.0, 0.99]] * 8, [[0.99 - last, last]] * 8
    verdict = judged(objective, base, cheap, tokens=(100, 40))
    assert (verdict.winner is not None) is wins
    assert bool(verdict.refused) is not wins
    assert cautions(verdict)
    by_score = judged(replace(objective, maximise="score"), base, cheap, tokens=(100, 40))
    assert (by_score.winner is not None) is wins


def test_a_proposer_reads_which_number_is_maximised() -> None:
    text, task = PromptTemplate("x", "s", "t"), replace(TASK, score="last", min_return=-1.0)
    steps = tuple(Step(number, "a", "o", reward, False) for number, reward in ((1, 0.4), (2, 0.0)))
    episode = Episode(0, "begin", steps)
    told = Briefing("Sell.", task, (Rated(text, 0.5, 2, episode, episode, "score"),))
    assert told.shown(episode).startswith("score 0.500, return 0.400 in 2 steps")
    assert told.texts[0].earned == "mean score 0.500 over 2 episodes"
    assert task.described("score") == "from the last reward of up to 8 steps: -1 gives 0 and 1 gives 1"


def test_show_words_a_file_by_what_was_judged_and_an_older_one_by_the_return() -> None:
    figures = (1.6, [0.3, 0.5], 0.99, [0.9, 1.0], 0.59, [0.5, 0.6], 0.01, 0.4, 0.99, 10.0, 10.0)
    older = Evidence("winner", 8, 0.95, "t", *figures)
    by_score = replace(older, judged="score", caution="Caution: so it is.")
    frozen = replace(a_frozen_prompt(), evidence=older)
    assert "Frozen: trial-003 returns more than the baseline" in next(_evidence(frozen))
    lines = list(_evidence(replace(frozen, evidence=by_score)))
    assert lines[0].startswith("Caution: so it is. Frozen: trial-003 scores higher than the baseline")
    assert lines[2].split()[:5] == ["mean", "score,", "95", "%", "interval"]
    assert lines[3].split() == ["mean", "return", "1.60", "0.990"]


def test_compare_names_the_number_and_says_if_the_other_one_disagrees() -> None:
    (compared,) = judged(BY_SCORE, TALKER, CLOSER).finalists
    assert claim("a", "b", compared, 0.95).startswith("a scores higher than b: 0.990 (+0.590 vs. b, +148 %;")
    (told,) = other_claim("a", "b", compared, 0.95)
    assert told.startswith("However: a returns less than b: 0.990 (-0.610 vs. b, -38 %; 95 % interval")
    (compared,) = judged(BY_SCORE, [[0.4]] * 8, CLOSER).finalists
    assert [*other_claim("a", "b", compared, 0.95)] == []


@pytest.mark.parametrize(
    ("objective", "last", "told"),
    [
        (
            BY_SCORE,
            1.0,
            "the maximum score; scores cannot tell these apart. To compare returns, set [obj",
        ),
        (BY_SCORE, -1.0, "the minimum score; scores cannot tell these apart"),
        (BY_RETURN, 1.0, "the maximum score; compare returns instead"),
        (BY_RETURN, -1.0, ""),
        (BY_SCORE, 0.5, ""),
    ],
)
def test_scores_at_a_limit_are_reported_with_a_better_measure(
    objective: Objective, last: float, told: str
) -> None:
    lines = at_limit(evaluation([[last]] * 16, TASK, objective.maximise, 0).scores, objective.maximise)
    assert bool(lines) is bool(told)
    assert told in "".join(lines)
    assert not lines or lines[0].startswith("All 16 holdout episodes reached")


def test_the_plan_says_which_number_is_maximised(tmp_path: Path) -> None:
    experiment = load_experiment(an_experiment(tmp_path, "max", ""))
    plan = str(Plan(experiment, experiment.model, experiment.environment))
    assert "the highest mean episode score, from the highest reward of up to 4 steps: 0 gives 0" in plan


@pytest.mark.parametrize(
    ("score", "objective", "maximise", "stated"),
    [
        ("sum", "", "return", False),
        ("last", "", "score", False),
        ("max", "", "score", False),
        ("max", '[objective]\nmaximise = "return"', "return", True),
        ("sum", '[objective]\nmaximise = "score"', "score", True),
        ("last", '[objective]\ncost = "tokens"\nwithin = 0.1', "score", False),
    ],
)
def test_the_number_follows_from_the_task_if_the_file_does_not_name_it(
    tmp_path: Path, score: str, objective: str, maximise: str, stated: bool
) -> None:
    found = load_experiment(an_experiment(tmp_path, score, objective)).objective
    assert (found.maximise, found.stated) == (maximise, stated)


@pytest.mark.parametrize(
    ("objective", "key"),
    [
        ('cost = "tokens"', "objective.within is missing"),
        ("within = 0.1", "objective.cost is missing"),
        ('maximise = "profit"', "objective.maximise is 'profit'"),
    ],
)
def test_cost_and_within_are_set_together_and_only_known_numbers_are_maximised(
    tmp_path: Path, objective: str, key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(an_experiment(tmp_path, "sum", f"[objective]\n{objective}"))
    assert key in str(caught.value)
    assert "market.toml" in str(caught.value)


def an_experiment(folder: Path, score: str, objective: str) -> Path:
    project = Project.make(folder / "project")
    project.write("experiments/market.py", MARKET)
    values = {"score": score, "objective": objective, "baseline": "reference", "templates": '["report"]'}
    text = EXPERIMENT.format(**values, episodes=6, max_return=1.0)
    return project.write("experiments/market.toml", text)
