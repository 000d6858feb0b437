"""The output of `lab.tune`: the live screen in a terminal, plain lines, JSON, the plan."""

import itertools
import json
import random
import re
import signal
import threading
import tomllib
from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest

from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.agent.step import Step
from lab.agent.task import Task
from lab.agent.template import PromptTemplate
from lab.display.race_table import Playing
from lab.display.screen import PHASES, Progress, Standing, screen
from lab.experiment.budget import FREE, Budget, Spending
from lab.llm.client import Completion
from lab.llm.sampling import SamplingParams
from lab.stats.intervals import Estimate
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.terminal import Terminal
from tests.test_tune import EXPERIMENT, storyteller_is_best

SMALL = EXPERIMENT.replace("calls = 300", "calls = 240")
MODEL_TEXT = "words-of-the-model"

ENTERED, LEFT, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
COLOURED = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|9[0-7])(?:;\d+)*m")


def make(folder: Path, experiment: str = SMALL) -> Project:
    project = Project.make(folder / "project", tracked=True)
    project.write("experiments/known.toml", experiment)
    return project


def at(endpoint: FakeEndpoint) -> dict[str, str]:
    return {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "k"}


ANSWERS = itertools.count()


def talks(body: Body) -> Reply:
    """Every eighth answer takes a second, so that no phase's episodes all end between two frames."""
    reply = storyteller_is_best(body)
    return Reply(f"{MODEL_TEXT} {reply.text}", delay_s=float(next(ANSWERS) % 8 == 7))


def test_a_terminal_shows_the_race_survives_a_resize_and_is_given_back(tmp_path: Path) -> None:
    project = make(tmp_path)
    with fake_endpoint(talks) as endpoint:
        terminal = Terminal.start(
            project, *("-m", "lab.tune", "experiments/known.toml"), columns=100, lines=30, **at(endpoint)
        )
        terminal.read(lambda text: "95 % interval" in text)
        for columns, lines in ((30, 4), (60, 12), (100, 30)):
            seen = len(terminal.text)
            terminal.resize(columns, lines)
            terminal.read(lambda text, seen=seen: len(text) > seen + 100)  # type: ignore[misc]
        assert terminal.close() == 0, terminal.text[-2000:]
    before, _, rest = terminal.text.partition(ENTERED)
    live, _, after = rest.partition(LEFT)
    assert "At most 240 calls" in before
    for told in (*PHASES, "baseline", "of 240", "price unknown", "calls/s", "in flight", "left", "template"):
        assert told in live
    for planned in (12, 24):  # confirmation and holdout have been seen in progress
        assert any(0 < int(done) < planned for done in re.findall(rf"(\d+)/{planned}\b", live)), planned
    assert COLOURED.search(live)
    assert MODEL_TEXT not in terminal.text
    # The lines that matter come after it, the terminal is as it was, and no line a trial is in between.
    assert CURSOR in live + after
    assert "\x1b[" not in after.replace(CURSOR, "")
    assert after.index("Confirming trial-") < after.index("Holdout, 8 unseen") < after.index("Written to")
    assert not re.search(r"^. trial-\d+ +\d+\.\d \(n=", after, re.MULTILINE)


def test_ctrl_c_gives_the_terminal_back_and_no_color_is_obeyed(tmp_path: Path) -> None:
    project = make(tmp_path, SMALL.replace("calls = 240", "calls = 100_000"))
    pressed, answering = threading.Event(), threading.Event()

    def held(body: Body) -> Reply:  # or the study might end before the second press
        if pressed.is_set():
            answering.wait(TIMEOUT_S)
        return storyteller_is_best(body)

    with fake_endpoint(held) as endpoint:
        terminal = Terminal.start(
            project,
            *("-m", "lab.tune", "experiments/known.toml"),
            **{"columns": 80, "lines": 24, "NO_COLOR": "1", **at(endpoint)},  # type: ignore[arg-type]
        )
        # Any earlier, and nothing is there to be judged.
        terminal.read(lambda text: re.search(r"[2-9] played: ", text) is not None)
        pressed.set()
        terminal.process.send_signal(signal.SIGINT)
        terminal.read(lambda text: "Ctrl-C again stops" in text)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.close() == 130
        answering.set()
    live, _, after = terminal.text.partition(LEFT)
    assert not COLOURED.search(live)
    assert "Ctrl-C again stops at once" in after
    assert "the same command resumes." in after


FAILS = """
import asyncio, sys
from rich.console import Console
from rich.text import Text
from lab.display import live

async def main():
    console, said = Console(file=sys.stderr), []
    assert live.is_possible(console)
    try:
        with live.shown(console, lambda width, height: Text(f"{width} x {height}"), said.append):
            await asyncio.sleep(0.1)
            print("a library's warning", file=sys.stderr)
            raise OSError("it broke")
    finally:
        print(said)

asyncio.run(main())
"""


def test_an_error_restores_the_terminal_and_shows_stderr(tmp_path: Path) -> None:
    terminal = Terminal.start(make(tmp_path), "-c", FAILS, columns=47, lines=11)
    assert terminal.close() == 1
    live, _, after = terminal.text.partition(LEFT)
    assert "47 x 11" in live
    assert "warning" not in live
    assert '["a library\'s warning"]' in after
    assert after.rstrip().endswith("OSError: it broke")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str, str]:
    """A complete study for a program, with FORCE_COLOR as in many CIs: the project, stdout and stderr."""
    project = make(tmp_path_factory.mktemp("told"))
    with fake_endpoint(talks) as endpoint:
        command = ("-m", "lab.tune", "experiments/known.toml", "--json")
        done = project.run(*command, **at(endpoint), FORCE_COLOR="1")
    assert done.returncode == 0, done.stderr
    return project, done.stdout, done.stderr


Told = tuple[Project, str, str]


def test_without_a_terminal_there_are_plain_lines_and_no_escape(told: Told) -> None:
    _, _, err = told
    assert "\x1b" not in err
    assert MODEL_TEXT not in err
    assert re.search(
        r"^[* x] baseline +\d+\.\d \(n=1\)  template=reference temperature=0\.7$", err, re.MULTILINE
    )
    assert "At most 240 calls" in err.splitlines()[1]


def test_json_agrees_with_the_frozen_file(told: Told) -> None:
    project, out, _ = told
    result = json.loads(out)
    frozen = tomllib.loads((project.folder / result["frozen_file"]).read_text())
    assert result["evidence"] == frozen["evidence"]
    assert result["candidate"]["digest"] == frozen["digest"]
    assert result["study"] == frozen["provenance"]["study"]
    assert result["model"] == frozen["model"]
    assert result["verdict"]["outcome"] == "winner"
    assert result["verdict"]["frozen"] == f"trial-{frozen['provenance']['trial']:03d}"
    cost = result["cost"]
    assert [cost[key] for key in ("calls", "prompt_tokens")] == [
        frozen["provenance"][key] for key in ("calls", "prompt_tokens")
    ]
    assert cost["dollars"] is None  # nobody said what a token costs
    winner = next(one for one in result["finalists"] if one["trial"] == result["verdict"]["frozen"])
    assert winner["pairs"] == winner["episodes"] == 8
    assert winner["difference_interval"] == pytest.approx(frozen["evidence"]["difference_interval"], abs=0.01)
    assert result["failures"] == {}


def test_every_key_of_the_document_is_described(told: Told) -> None:
    def keys(value: object) -> set[str]:
        match value:
            case dict():
                inner = [keys(one) for key, one in value.items() if key not in ("settings", "failures")]
                return set(value).union(*inner)
            case list():
                return set[str]().union(*map(keys, value))
            case _:
                return set()

    page = (Path(__file__).parent.parent / "docs/result.md").read_text()
    assert keys(json.loads(told[1])) <= set(re.findall(r"`(\w+)`", page))


def test_quiet_prints_only_the_result_and_a_replay_prints_the_same_document(told: Told) -> None:
    project, out, _ = told
    again = ("-m", "lab.tune", "experiments/known.toml", "--replay", "--quiet")
    settings = {"API_BASE_URL": json.loads(out)["model"]["endpoint"], "MODEL_NAME": "fake", "HF_TOKEN": "k"}
    document = project.run(*again, "--json", **settings)
    assert document.stderr == ""
    assert json.loads(document.stdout) == {**json.loads(out), "untracked": None}  # it sends MLflow nothing
    person = project.run(*again, **settings)
    assert person.stderr == ""
    assert person.stdout.startswith(json.loads(out)["verdict"]["claim"])
    assert "price unknown" in person.stdout


def files(project: Project) -> set[Path]:
    return set(project.folder.rglob("*"))


def test_a_dry_run_tells_the_plan_and_does_nothing(tmp_path: Path) -> None:
    project = make(tmp_path)
    before = files(project)
    with fake_endpoint() as endpoint:
        done = project.run("-m", "lab.tune", "experiments/known.toml", "--dry-run", **at(endpoint))
        assert endpoint.requests == []
    assert done.returncode == 0, done.stderr
    assert files(project) == before
    for line in (
        r"Experiment +known: A known truth",
        r"Model +fake at http://127",
        r"Search +24 whole episodes",
        r" +Few candidates will play twice: choices need results. in_flight = 6 searches",
        r"Confirmation +up to 3 x 4 episodes",
        r"Holdout +2 and the baseline, 8 episodes each; the sign-flip test's p is at least 0.0078",
        r"Calls +at most 240, up to 144 reserved for the verdict",
        r"Tokens out +at most 36,000: 150 per call",
        r"Tokens in +about [\d,]+ to [\d,]+: an estimate",
        r"Cost +unknown: set dollars_in and dollars_out",
        r"Time +unlimited",
    ):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), line
    heads = re.findall(r"^===== (.*): the first step$", done.stdout, re.MULTILINE)
    assert heads == ["baseline, template reference", "template storyteller", "template lecturer"]
    assert "Last echoed message: Echo environment ready!" in done.stdout  # what the reset showed
    assert "{" not in done.stdout


def test_a_dry_run_counts_known_prices_and_does_not_contact_a_remote_environment(tmp_path: Path) -> None:
    priced = SMALL.replace('name = "fake"', 'name = "fake"\ndollars_in = 1.0\ndollars_out = 10.0')
    project = make(tmp_path, priced)
    with fake_endpoint() as endpoint:
        elsewhere = {"ENV_BASE_URL": "http://user:secret@127.0.0.1:9", **at(endpoint)}
        done = project.run("-m", "lab.tune", "experiments/known.toml", "--dry-run", **elsewhere)
    assert done.returncode == 0, done.stderr
    (dollars,) = re.findall(r"^Cost +at most about \$(\d+\.\d\d)", done.stdout, re.MULTILINE)
    high = int(
        re.findall(r"^Tokens in +about [\d,]+ to ([\d,]+)", done.stdout, re.MULTILINE)[0].replace(",", "")
    )
    assert float(dollars) == pytest.approx((36_000 * 10 + high) / 1e6, abs=0.01)
    assert "it is not opened for this" in done.stdout
    assert "secret" not in done.stdout


def test_a_dry_run_says_by_how_much_a_dollar_limit_may_be_exceeded(tmp_path: Path) -> None:
    prices = 'name = "fake"\ndollars_in = 1.0\ndollars_out = 10.0'
    limited = SMALL.replace('name = "fake"', prices).replace("calls = 240", "calls = 240\ndollars = 9.5")
    proposals = '[proposals]\nproposer = "gepa"\nrounds = 2\ntexts = 4\n\n[confirmation]'
    project = make(tmp_path, limited.replace("[confirmation]", proposals))
    with fake_endpoint() as endpoint:
        done = project.run("-m", "lab.tune", "experiments/known.toml", "--dry-run", **at(endpoint))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Cost +at most \$9\.50$", done.stdout, re.MULTILINE)
    assert re.search(r"exceeded by at most \d+ calls in flight", done.stdout)
    assert re.search(r"^Search +20 whole episodes", done.stdout, re.MULTILINE)  # 16 calls are the proposer's


VANISHING = {
    "storyteller": ("{schema}", "{step}", "its system message is empty: every paragraph names {schema}"),
    "lecturer": (
        "Go.",
        "{history}\n\nBefore: {reward}",
        "its turn message is empty at step 1: every paragraph names {history}, {reward}",
    ),
}
"""Texts of which nothing is left in the echo environment, with what is said of them."""


def test_a_template_whose_text_vanishes_is_warned_of_with_its_prompt(tmp_path: Path) -> None:
    project = make(tmp_path)
    for name, (system, turn, _) in VANISHING.items():
        text = f'system = "{system}"\nturn = """\n{turn}"""\n'
        project.write(f"prompts/templates/{name}.toml", text)
    with fake_endpoint() as endpoint:
        plan = project.run("-m", "lab.tune", "experiments/known.toml", "--dry-run", **at(endpoint))
        elsewhere = {"ENV_BASE_URL": "http://127.0.0.1:9", **at(endpoint)}
        unopened = project.run("-m", "lab.tune", "experiments/known.toml", "--dry-run", **elsewhere)
        doctor = project.run("-m", "lab.doctor", "experiments/known.toml", **at(endpoint))
    assert plan.returncode == doctor.returncode == 0, plan.stderr + doctor.stdout
    for name, (_, _, said) in VANISHING.items():
        assert f"Warning: template {name}: {said} without a value." in plan.stdout
        assert f"warn  prompts      template {name}: {said} without a value\n" in doctor.stdout
        assert f"\n      ===== template {name}: the first step\n" in doctor.stdout
    assert "Last echoed message: Echo environment ready!" in doctor.stdout  # the baseline's prompt, as sent
    assert unopened.stdout.count("Warning: ") == 1, "its actions may have a schema"


def test_a_field_that_stays_empty_is_warned_of_by_the_doctor(tmp_path: Path) -> None:
    project = make(tmp_path)
    text = 'system = "Go."\nturn = "{observation.metadata.hint}"\n'
    project.write("prompts/templates/lecturer.toml", text)
    with fake_endpoint() as endpoint:
        done = project.run("-m", "lab.doctor", "experiments/known.toml", **at(endpoint))
        project.write("prompts/templates/lecturer.toml", text.replace("metadata.hint", "hint"))
        wrong = project.run("-m", "lab.doctor", "experiments/known.toml", **at(endpoint))
    named = "every paragraph names {observation.metadata.hint} without a value"
    assert (
        f"warn  prompts      template lecturer: its turn message is empty at step 1: {named}" in done.stdout
    )
    assert (
        "FAIL  prompts      The observation has no {observation.hint}. template lecturer, turn"
        in wrong.stdout
    )
    assert wrong.returncode == 2


def test_the_embedded_model_is_free(tmp_path: Path) -> None:
    done = make(tmp_path).run("-m", "lab.tune", "experiments/smoke.toml", "--dry-run")
    assert re.search(r"^Cost +free$", done.stdout, re.MULTILINE), done.stderr


@pytest.mark.parametrize("other", ["--fresh", "--replay", "--worker", "--json"])
def test_a_dry_run_refuses_flags_that_it_would_ignore(tmp_path: Path, other: str) -> None:
    done = make(tmp_path).run("-m", "lab.tune", "--dry-run", other)
    assert done.returncode == 2
    assert "--dry-run" in done.stderr


# The screen itself, at any size.

TASK = Task("echo", "test", max_steps=1, max_tokens=150, max_return=120.0, success_score=0.1)


def trial(
    number: int, returns: list[float], *, dropped: bool = False, ends: tuple[float, float] = (-inf, inf)
) -> Trial:
    """A trial of these returns, with their mean as its estimate, and the model's interval if it has one."""
    template = PromptTemplate(f"text-{number % 3}", "a", "b")
    sampling = SamplingParams(temperature=(number % 10) / 10)
    answer = Completion(MODEL_TEXT, "stop", 1, 1, 0.1)
    episodes = tuple(
        Episode(seed, MODEL_TEXT, (Step(1, MODEL_TEXT, MODEL_TEXT, value, done=True, completion=answer),))
        for seed, value in enumerate(returns)
    )
    played = Evaluation(Candidate(template, sampling), TASK, episodes)
    expected = Estimate(played.mean, *ends, len(returns))
    return Trial(number, played, number + 2, dropped, expected=expected)


SAID = "A line that was said, long enough to be cut off in any terminal that is narrow."


def standing(trials: list[Trial], playing: Sequence[Playing] = ()) -> Standing:
    spending = Spending(Budget(calls=1000, tokens=1_000_000, minutes=10))
    spending.count(100, 10_000, 2_000, FREE)
    phases = [
        Progress("search", 1.0),
        Progress("confirmation", 0.5, 0.25, (5, 12)),
        Progress("holdout", 0.0, 2.0, (0, 24)),
    ]
    said = [f"{number}: {SAID}" for number in range(4)]
    known = (trials, playing, spending, 2.5, (3, "It is busy."), said)
    return Standing("study on a model", "confirmation", phases, *known)


def test_the_screen_fits_any_size_and_keeps_the_baseline_and_the_incumbent() -> None:
    rng = random.Random(0)
    trials = [trial(number, [rng.uniform(0, 500) for _ in range(1 + number % 8)]) for number in range(1, 61)]
    many = standing([*trials, trial(BASELINE, [1.0, 2.0], dropped=True)])
    for width in (1, 10, 40, 80, 200):
        for height in (1, 2, 5, 10, 16, 24, 60):
            lines = screen(many, width, height).split()
            assert len(lines) <= height
            assert all(line.cell_len <= width for line in lines), (width, height)
    shown = screen(many, 80, 24).plain
    assert "x baseline" in shown
    assert "trial-001" in shown
    assert "3 failed attempts at calls; the last: It is busy." in shown
    assert MODEL_TEXT not in shown


def test_the_screen_shows_the_models_interval_and_only_settings_that_differ() -> None:
    played = [trial(1, [10.0, 12.0, 14.0], ends=(9.0, 15.0)), trial(2, [5.0, 5.1])]
    shown = screen(standing(played, [Playing(2, played[1].candidate, 3, 8)]), 100, 24).plain
    head, first, second = _rows(shown)
    assert head.split() == ["trial", "return", "95", "%", "interval", "n", "steps", "template", "temperature"]
    assert re.fullmatch(r"  trial-001 +12\.0 +\[9\.0, 15\.0\] +3 +text-1 +0\.1 *", first)
    assert re.fullmatch(r"  trial-002 +5\.05 +2 +3/8 +text-2 +0\.2 *", second)
    assert "by the search model's estimate" in " ".join(shown.split())


def test_without_a_model_no_interval_is_drawn() -> None:
    shown = screen(standing([trial(1, [288.9, 291.5]), trial(2, [5.0])]), 100, 24).plain
    assert re.search(r"trial-001 +290\.2 +2 +text-1", shown)
    assert "interval" not in shown
    assert "best first, by the mean so far" in " ".join(shown.split())


def _rows(shown: str) -> list[str]:
    lines = shown.splitlines()
    first = next(place for place, line in enumerate(lines) if "return" in line)
    return lines[first : first + 3]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_newest_message_is_whole_and_each_phase_has_its_bar_and_time_left(width: int) -> None:
    shown = screen(standing([trial(1, [10.0], ends=(9.0, 11.0))]), width, 24).plain
    assert f"3: {SAID}" in " ".join(shown.split())
    searched, confirmed, held_out = (
        next(line for line in shown.splitlines() if line.startswith(phase)) for phase in PHASES
    )
    assert re.fullmatch(r"search +━+ done", searched)
    assert re.fullmatch(r"confirmation ━+─+ 5/12( episodes)?, (about )?15 s left", confirmed)
    assert re.fullmatch(r"holdout +─+ 0/24( episodes)?, (about )?2 min left", held_out)
    assert re.search(r"trial-001 +10\.0 +\[9\.0, 11\.0\]", shown)


def test_steps_are_shown_from_the_first_second_at_any_width(tmp_path: Path) -> None:
    project, answering, asked = make(tmp_path), threading.Event(), threading.Event()

    def held(body: Body) -> Reply:  # one answer, and then none
        if asked.is_set():
            answering.wait(TIMEOUT_S)
        asked.set()
        return storyteller_is_best(body)

    def shows(*texts: str) -> str:
        """A whole frame with all these texts that was drawn from now on."""
        seen = len(terminal.text)

        def frames(text: str) -> list[str]:
            drawn = [re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", one) for one in text[seen:].split("\x1b[H")[1:-1]]
            return [one for one in drawn if all(text in one for text in texts)]

        terminal.read(lambda text: bool(frames(text)))
        return frames(terminal.text)[-1]

    with fake_endpoint(held) as endpoint:
        terminal = Terminal.start(
            project, *("-m", "lab.tune", "experiments/known.toml"), columns=80, lines=24, **at(endpoint)
        )
        for columns in (80, 120, 40):
            terminal.resize(columns, 24)
            frame = shows("1/4", "0/4", "no episode has ended yet")
            assert frame.count("trial-0") >= 4, frame
            words = "".join(frame.split())
            assert "upto12episodesarereservedforconfirmationand24fortheholdout." in words, frame
        terminal.process.send_signal(signal.SIGINT)  # nothing is there to be judged: it stops
        answering.set()
        assert terminal.close() == 130
