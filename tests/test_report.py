"""The report: its figures equal the frozen file's, and no text of a model is active in it."""

import asyncio
import base64
import hashlib
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import pytest

from lab.agent.episode import FailedEpisode
from lab.agent.evaluation import Trial
from lab.errors import LabError
from lab.reporting.page import render
from lab.reporting.story import Story, tell
from lab.stats.format import number
from lab.stats.intervals import Estimate
from lab.storage.database import Store
from lab.storage.record import Record
from lab.study.past_study import Which, reading
from lab.submission.frozen import FrozenPrompt, read_frozen
from lab.tracking.tracker import Tracker
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_history import at
from tests.test_resume import a_project, by_the_request, kill_after, settings

SECTIONS = (
    *("verdict", "settings", "race", "candidates", "parameters", "pareto", "steps", "episodes", "diff"),
    *("cost", "failures", "headroom", "caveats"),
)

EVIL = (
    "<script>alert(1)</script></pre></td><img src=x onerror=alert(2)> \x1b[31m \x00 \u202e &amp; {{ 7*7 }} "
)

HARMLESS = "<script>x</script>\\x1b]0;t\\x07\\x00\\ud800\\u202e\\u2066"
"""How the worst of texts is shown."""

VOID = {"meta", "br", "img", "input", "link", "hr"}


@dataclass
class Page(HTMLParser):
    """A page as a browser parses it: its elements, and the text of each section.

    Attributes:
        tags: Name and attributes of each element.
        unclosed: Elements without a matching end tag.
        script: The text of its scripts.
    """

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    unclosed: list[str] = field(default_factory=list)
    script: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._section = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.sections[self._section] = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unclosed.append(tag)
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.script += data
        if self._section:
            self.sections[self._section] += data

    @property
    def text(self) -> str:
        """The text of all sections."""
        return " ".join(self.sections.values())


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page


def report(project: Project, endpoint: FakeEndpoint, *flags: str) -> Page:
    done = project.run("-m", "lab.report", "experiments/known.toml", *flags, **settings(endpoint))
    assert done.returncode == 0, done.stderr
    return read(project.folder / done.stdout.strip())


def evil(body: Body) -> Reply:
    """The known truth with hostile texts; a storyteller's system text makes longer answers."""
    reply = by_the_request(body)
    assert reply.text is not None
    return Reply(EVIL + reply.text)


@dataclass(frozen=True)
class Reported:
    """A finished study with its report, and the report's source."""

    project: Project
    story: Story
    page: Page
    html: str
    frozen: FrozenPrompt
    asked: int
    asked_by_report: int


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    project = a_project(tmp_path_factory.mktemp("report") / "project")
    with fake_endpoint(evil) as endpoint:
        done = project.run("-m", "lab.tune", "experiments/known.toml", **settings(endpoint))
        assert done.returncode == 0, done.stderr
        assert "could not be made" not in done.stderr
        asked = len(endpoint.requests)
        page = report(project, endpoint, "--out", "page.html")
        html = (project.folder / "page.html").read_text(encoding="utf-8")
        frozen = read_frozen(project.folder / "prompts/best.toml")
        with pytest.MonkeyPatch.context() as patch, at(project.folder, patch, **settings(endpoint)):
            story = asyncio.run(told(project.folder))
        return Reported(project, story, page, html, frozen, asked, len(endpoint.requests) - asked)


async def told(folder: Path) -> Story:
    with reading(Which(folder / "experiments/known.toml")) as past:
        return tell(past)


def rendered(story: Story) -> Page:
    """The page about a story, after checking that it is complete."""
    html = render(story)
    html.encode("utf-8")
    page = Page()
    page.feed(html)
    page.close()
    assert tuple(page.sections) == SECTIONS
    assert not page.unclosed
    assert_only_our_script(page)
    return page


def assert_only_our_script(page: Page) -> None:
    """No text of the page is active: its only script is the lab's, and the policy allows no other."""
    assert page.script == (files("lab.reporting") / "page.js").read_text(encoding="utf-8")
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]
    assert not {"img", "iframe", "object", "link"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    policies = [attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs]
    assert policies == [f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]


def judged(story: Story, **changes: object) -> Story:
    """The same story with another verdict."""
    assert story.outcome is not None
    verdict = replace(story.outcome.verdict, **changes)  # type: ignore[arg-type]
    return replace(story, outcome=replace(story.outcome, verdict=verdict))


def test_the_page_is_complete_and_has_its_sections_in_order(reported: Reported) -> None:
    assert tuple(reported.page.sections) == SECTIONS
    assert not reported.page.unclosed
    names = [attrs["id"] for _, attrs in reported.page.tags if "id" in attrs]
    assert len(names) == len(set(names))
    assert reported.asked_by_report == 0


def test_the_verdicts_figures_are_the_frozen_files(reported: Reported) -> None:
    evidence, verdict = reported.frozen.evidence, reported.page.sections["verdict"]
    assert evidence.outcome == "winner"
    assert f"Frozen: trial-{reported.frozen.provenance.trial:03d} returns more than the baseline" in verdict
    low, high = evidence.difference_interval
    assert f": {number(evidence.frozen_return)} (+{number(evidence.difference)} vs. baseline, +" in verdict
    assert f"95 % interval [+{number(low)}, +{number(high)}]), n = 6 episodes each" in verdict
    assert f"p = {evidence.p_value:.2g}" in verdict
    for mean, ends in (
        (evidence.frozen_return, evidence.frozen_interval),
        (evidence.baseline_return, evidence.baseline_interval),
    ):
        assert number(mean) in verdict
        assert f"[{number(ends[0])}, {number(ends[1])}]" in verdict


def test_differences_from_the_baseline_come_first(reported: Reported) -> None:
    settings_text = reported.page.sections["settings"]
    differing, same = re.split(r"\d+ settings are the same", settings_text)
    assert "template" in differing
    assert "storyteller" in differing
    assert "max_tokens" not in differing
    assert "max_tokens" in same


def test_every_candidate_episode_and_call_is_accounted_for(reported: Reported) -> None:
    cost, spent = reported.page.sections["cost"], reported.frozen.provenance
    calls = spent.calls
    assert calls == reported.asked
    assert f"model calls answered{calls:,}tokens in{spent.prompt_tokens:,}tokens out" in cost
    marks = reported.html.split('id="race"')[1].split("</svg>")[0].count('class="mark')
    assert marks == calls / reported.frozen.task.max_steps


def test_an_unknown_price_is_unknown_and_no_zero(reported: Reported) -> None:
    cost = reported.page.sections["cost"]
    assert re.search(r"cost in dollars\s*unknown", cost)
    assert "$" not in cost


def test_the_prompts_difference_has_the_lines_of_both(reported: Reported) -> None:
    diff = reported.page.sections["diff"]
    for line in reported.frozen.candidate.template.system.strip().splitlines():
        assert line in diff
    assert any(tag == "ins" for tag, _ in reported.page.tags)
    assert any(tag == "del" for tag, _ in reported.page.tags)


def test_the_doubts_name_this_studys_figures(reported: Reported) -> None:
    doubts = reported.page.sections["caveats"]
    assert "The difference rests on 6 holdout episodes of each candidate" in doubts
    assert "cannot give a p-value below 0.031" in doubts
    assert "One finalist of 2 confirmed" in doubts
    assert "no seed" in doubts
    assert "one model, fake at" in doubts


def test_text_of_a_model_is_shown_and_never_active(reported: Reported) -> None:
    allowed = {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "header",
            "main",
            "footer",
            "section",
            "nav",
            "a",
        ),
        *(
            "h1",
            "h2",
            "h3",
            "p",
            "b",
            "span",
            "strong",
            "small",
            "code",
            "pre",
            "div",
            "li",
            "dl",
            "dt",
        ),
        *("dd", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure"),
        *(
            "figcaption",
            "ins",
            "del",
            "svg",
            "desc",
            "script",
            "h4",
            "ol",
            "ul",
            "text",
            "line",
            "polyline",
            "polygon",
            "rect",
            "circle",
        ),
    }
    assert {tag for tag, _ in reported.page.tags} <= allowed
    for _, attrs in reported.page.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "src"]
        assert (attrs.get("href") or "#").startswith("#")
    for shown in ("<script>alert(1)</script></pre>", "\\x1b[31m", "\\x00", "\\u202e", "&amp;", "{{ 7*7 }}"):
        assert shown in reported.page.sections["episodes"]
    assert all(char.isprintable() or char == "\n" for char in reported.html.replace("\u00a0", " "))


def test_nothing_is_loaded(reported: Reported) -> None:
    assert_only_our_script(reported.page)
    style = reported.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_mlflow_has_it_on_the_parent_run(reported: Reported) -> None:
    (logged,) = reported.project.folder.glob("mlruns/**/report.html")
    page = read(logged)
    assert page.sections["verdict"] == reported.page.sections["verdict"]
    assert tuple(page.sections) == SECTIONS


def test_without_a_significant_gain_no_gain_is_claimed(reported: Reported) -> None:
    assert reported.story.outcome is not None
    (one,) = reported.story.outcome.verdict.finalists
    alike = replace(one, difference=Estimate(1.0, -2.0, 4.0, 6), p_value=0.5)
    page = rendered(judged(reported.story, winner=None, finalists=(alike,)))
    verdict = page.sections["verdict"]
    assert "Frozen: the baseline. No candidate was shown to beat it on unseen episodes" in verdict
    assert "This does not prove that none is better." in verdict
    assert "; the baseline is frozen" in verdict
    test = "(p = 0.5, n = 6 episodes each)"
    assert f"No candidate was shown to beat the baseline on unseen episodes {test}" in verdict
    assert "Yes" not in verdict
    assert "Nothing: the baseline itself is frozen." in page.sections["settings"]


def test_a_gain_that_costs_score_is_no_gain_to_trust(reported: Reported) -> None:
    assert reported.story.outcome is not None
    winner = reported.story.outcome.verdict.winner
    assert winner is not None
    lower = replace(winner, other=Estimate(-0.2, -0.3, -0.1, 6))
    refused = rendered(judged(reported.story, winner=None, finalists=(lower,), refused=(lower,)))
    assert "The baseline is frozen. trial-" in refused.sections["verdict"]
    assert "beats the baseline and is not frozen: the score of" in refused.sections["verdict"]
    insisted = rendered(judged(reported.story, winner=lower, finalists=(lower,))).sections["verdict"]
    assert "With caution: trial-" in insisted
    assert "Yes: " not in insisted


def test_a_cheaper_winner_is_not_called_a_better_one(reported: Reported) -> None:
    assert reported.story.outcome is not None
    winner = reported.story.outcome.verdict.winner
    assert winner is not None
    less, kept = Estimate(-1.0, -3.0, 1.0, 6), Estimate(5.0, 2.0, 8.0, 6)
    saving, share = Estimate(50.0, 40.0, 60.0, 6), Estimate(-0.25, -0.33, -0.18, 6)
    cheaper = replace(winner, difference=less, p_value=0.4, kept=kept, saving=saving, relative_cost=share)
    story = judged(reported.story, winner=cheaper, finalists=(cheaper,))
    objective = replace(story.experiment.objective, cost="tokens", within=0.1)
    story = replace(story, experiment=replace(story.experiment, objective=objective))
    verdict = rendered(story).sections["verdict"]
    assert "costs less than the baseline on unseen episodes, by 50.0 [40.0, 60.0]" in verdict
    assert "its return is within the objective's tolerance" in verdict
    assert "(-1.00 vs. baseline" in verdict
    assert "-25 %" in verdict
    assert "95 % interval [-33 %, -18 %]" in verdict
    assert f"tokens per episode, {winner.trial.name} against the baseline" in verdict


def test_a_study_of_which_nothing_is_known_yet_has_a_page(reported: Reported) -> None:
    empty = replace(
        reported.story,
        trials=(),
        outcome=None,
        plays=(),
        reigns=(),
        headroom=None,
        importance={},
        extremes={},
    )
    page = rendered(empty)
    assert "No verdict yet: no episode has ended." in page.sections["verdict"]
    assert "not yet known" in page.sections["headroom"]


def test_costs_and_failures_are_shown_if_known(reported: Reported) -> None:
    known = replace(
        reported.story,
        spent=replace(reported.story.spent, dollars=12.5, unpriced=0),
        failures={"The endpoint is busy.": 3},
        failed=(("trial-007", "The endpoint refused the call."),),
    )
    page = rendered(known)
    assert "cost in dollars$12.50" in page.sections["cost"]
    assert "The endpoint is busy.3" in page.sections["failures"]
    assert "trial-007: The endpoint refused the call." in page.sections["failures"]
    assert "3 attempts at calls failed" in page.sections["caveats"]
    assert "unknown" not in page.sections["cost"] + page.sections["caveats"]


def test_foreign_words_are_harmless_wherever_they_come_in(reported: Reported) -> None:
    """Includes a lone surrogate, which no endpoint can send, and places that no model writes to."""
    bad = "</style></svg><script>x</script>\x1b]0;t\x07\x00\ud800\u202e\u2066'\"onload=x "
    story = reported.story
    assert story.outcome is not None
    baseline = story.outcome.verdict.baseline
    whole = story.extremes["baseline"][0]
    step = replace(whole.steps[0], action=bad, observation=bad * 40, error=bad)
    episode = replace(whole, opening=bad, steps=(step,))
    template = replace(baseline.candidate.template, name=bad, system=bad, turn=bad)
    candidate = replace(baseline.candidate, template=template)
    played = replace(baseline, candidate=candidate, episodes=(episode, episode))
    trials = tuple(
        replace(trial, evaluation=replace(trial.evaluation, candidate=candidate)) for trial in story.trials
    )
    planted = replace(
        judged(story, winner=None, baseline=played),
        experiment=replace(story.experiment, about=bad),
        study=bad,
        trials=trials,
        plays=tuple(replace(play, name=bad) for play in story.plays),
        importance={bad: 1.0},
        failures={bad: 1},
        failed=((bad, bad),),
        extremes={bad: (episode, episode)},
        endings={candidate.digest: {0: whole.tally, 1: FailedEpisode(1, LabError(bad, do=bad))}},
        texts={(candidate.digest, 0): episode},
    )
    page = rendered(planted)
    assert all(char.isprintable() or char in "\n\u00a0" for char in page.text)
    details = page.sections["candidates"].split("The prompts and episodes of all")[1]
    assert details.count(HARMLESS) >= 6 * len(trials)  # system, turn, opening, action, observation, errors
    for section in ("episodes", "diff", "failures", "parameters", "candidates", "verdict"):
        assert HARMLESS in page.sections[section]


def test_without_a_model_no_interval_is_shown(reported: Reported) -> None:
    """Not even that of two equal returns, which would look certain."""
    trials = tuple(replace(trial, expected=None) for trial in reported.story.trials)
    assert max(len(trial.evaluation.episodes) for trial in trials) > 1
    page = rendered(replace(reported.story, trials=trials))
    table = page.sections["candidates"].split("A name leads to its prompt and episodes.")[1]
    assert "[" not in table.split("The prompts and episodes")[0]
    assert "the mean of its own episodes, without an interval" in page.sections["candidates"]


def test_the_page_of_a_large_study_stays_small(reported: Reported) -> None:
    story, trials, endings = reported.story, list[Trial](), {}
    for place in range(2000):
        trial = story.trials[place % len(story.trials)]
        sampling = replace(trial.candidate.sampling, top_p=(place + 100) / 2100)
        candidate = replace(trial.candidate, sampling=sampling)
        evaluation = replace(trial.evaluation, candidate=candidate)
        trials.append(replace(trial, number=place, evaluation=evaluation))
        endings[candidate.digest] = story.endings[trial.candidate.digest]
    html = render(replace(story, trials=tuple(trials), plays=story.plays * 50, endings=endings))
    assert html.count('<details class="candidate">') == 2000
    assert "The same prompt as" in html
    assert "One in 4 candidates is drawn." in html
    assert len(html) < 4_000_000


def test_only_the_best_have_their_episodes_texts_if_there_are_many(
    reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.reporting.texts.MOST", 10_000)
    folder = reported.project.folder
    with at(folder, monkeypatch, API_BASE_URL="http://127.0.0.1:9/v1", MODEL_NAME="fake", HF_TOKEN="k"):
        details = rendered(asyncio.run(told(folder))).sections["candidates"]
    assert "<script>alert(1)</script>" in details
    assert details.count("(texts left out)") > 10
    assert details.count("<script>alert(1)</script>") < 100
    assert "(texts left out)" not in reported.page.sections["candidates"]


def test_a_report_that_cannot_be_made_is_a_warning_and_the_rest_is_written(
    reported: Reported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[str] = []
    warned: list[str] = []

    class Written:
        complete = False
        urls: ClassVar = dict[str, str]()

        def __init__(self, *_: object) -> None:
            pass

        def report(self, page: str) -> None:
            written.append(page)

        def end(self, status: str) -> None:
            written.append(status)

    def broken() -> str:
        raise ValueError("no page")

    monkeypatch.setattr("lab.tracking.tracker.MlflowStore", Written)
    record = Record(Store(tmp_path / "calls.db"), "a-study", "")
    tracker = Tracker(reported.story.experiment, reported.story.model, record, warned.append)
    tracker.lead()
    tracker.report(broken)
    tracker.report(lambda: "a page")
    tracker.close("FINISHED")
    assert written == ["a page", "FINISHED"]
    assert warned == ["The report for MLflow could not be made: ValueError: no page"]


def test_a_study_that_is_not_finished_is_reported_so_far_and_claims_nothing(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project")
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 70)
        page = report(project, endpoint)
    (written,) = (project.folder / ".lab").glob("report-known-*.html")
    assert written.stat().st_size
    assert tuple(page.sections) == SECTIONS
    assert "No verdict yet. So far" in page.sections["verdict"]
    assert "returns more" not in page.sections["verdict"]
    assert "which leads the search; there is no verdict yet" in page.sections["verdict"]
    assert "Not yet. The best of many candidates is overestimated" in page.sections["verdict"]
    assert re.search(r"cost in dollars\s*unknown", page.sections["cost"])


def test_without_a_study_it_says_how_to_get_one(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project")
    with fake_endpoint() as endpoint:
        done = project.run("-m", "lab.report", "experiments/known.toml", **settings(endpoint))
    assert done.returncode == 2, done.stderr
    assert "No study of experiments/known.toml was recorded." in done.stderr
    assert "try: python -m lab.tune experiments/known.toml" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((project.folder / ".lab").glob("*.html"))


def test_help_has_examples(tmp_path: Path) -> None:
    done = Project(tmp_path).run("-m", "lab.report", "--help")
    assert done.returncode == 0
    assert "python -m lab.report experiments/smoke.toml --out /tmp/smoke.html" in done.stdout
