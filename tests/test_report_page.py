"""The report in Chromium: wide and narrow, light and dark, with its script and without."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from lab.reporting.charts import MOST_ROWS
from lab.submission.frozen import read_frozen
from tests.browser import Browser, browsing, needs_chromium
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_resume import EXPERIMENT, a_project, by_the_request, settings

pytestmark = needs_chromium

HOSTILE = "</pre></details><script>document.title = 'taken over'</script><img src=x onerror=alert(1)> "

WIDE, NARROW = 1400, 390

OVERFLOWS = """
const width = document.documentElement.clientWidth, found = [];
const scrolls = (node) => {
  for (let at = node.parentElement; at; at = at.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return true;
  return false;
};
const outside = (box) => box.width && (box.right > width + 1 || box.left < -1);
for (const element of document.querySelectorAll("body *")) {
  const cuts = ["hidden", "clip"].includes(getComputedStyle(element).overflowX);
  const drawn = element.closest("svg, input, select");
  const wide = outside(element.getBoundingClientRect()) && !scrolls(element);
  if ((cuts && !drawn) || wide) found.push(element.outerHTML.slice(0, 90));
}
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const range = document.createRange();
while (texts.nextNode()) {
  range.selectNode(texts.currentNode);
  const wide = [...range.getClientRects()].some(outside) && !scrolls(texts.currentNode);
  if (wide) found.push(texts.currentNode.textContent.slice(0, 90));
}
return [document.documentElement.scrollWidth, width, found];
"""


def hostile(body: Body) -> Reply:
    reply = by_the_request(body)
    return Reply(HOSTILE + str(reply.text))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two finished studies with the same holdout, and the first one's report, `page.html`."""
    project = a_project(tmp_path_factory.mktemp("page") / "project").untracked
    with fake_endpoint(hostile) as endpoint:
        done = project.run("-m", "lab.tune", "experiments/known.toml", **settings(endpoint))
        assert done.returncode == 0, done.stderr
        (name,) = re.findall(r"Study (\S+) on", done.stderr)
        project.write("experiments/known.toml", EXPERIMENT.replace("calls = 240", "calls = 120"))
        flags = ("experiments/known.toml", "--fresh", "--out", ".lab/other.toml")
        done = project.run("-m", "lab.tune", *flags, **settings(endpoint))
        assert done.returncode == 0, done.stderr
        flags = ("--study", name, "--out", "page.html")
        done = project.run("-m", "lab.report", *flags, **settings(endpoint))
        assert done.returncode == 0, done.stderr
    return project


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browsing("file://") as browser:
        yield browser


@pytest.fixture
def page(project: Project, window: Browser) -> Browser:
    """The report, wide and light, with its script."""
    show(window, project)
    return window


def show(
    window: Browser, project: Project, width: int = WIDE, look: str = "light", script: bool = True
) -> None:
    def command(name: str, **params: object) -> None:
        window.driver.execute_cdp_cmd(f"Emulation.{name}", params)

    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == NARROW}
    command("setDeviceMetricsOverride", **size)
    command("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": look}])
    command("setScriptExecutionDisabled", value=not script)
    window.open(str(project.folder / "page.html"))


def picture(window: Browser, project: Project, name: str) -> None:
    window.picture(Path(os.environ.get("PICTURES", project.folder)) / name)


def shown(page: Browser, css: str) -> list[WebElement]:
    return [one for one in page.driver.find_elements(By.CSS_SELECTOR, css) if one.is_displayed()]


def column(page: Browser, name: str) -> list[str]:
    """The shown cells of a column of the table of all candidates, in their order."""
    names = [one.text for one in page.driver.find_elements(By.CSS_SELECTOR, "#all thead th")]
    place = [one.rstrip(" ▲▼") for one in names].index(name)
    return [one.text for one in shown(page, f"#all tbody tr > :nth-child({place + 1})")]


@pytest.mark.parametrize("script", [True, False], ids=["script", "none"])
@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_cut_or_wider_than_the_window(
    project: Project, window: Browser, width: int, look: str, script: bool
) -> None:
    show(window, project, width, look, script)
    picture(window, project, f"report-{width}-{look}-{'script' if script else 'none'}.png")
    assert bool(shown(window, "#search")) is script
    # The driver evaluates this even where the page's own scripts are off.
    window.driver.execute_script("document.querySelectorAll('details').forEach((one) => one.open = true)")
    if script:
        window.driver.execute_script("document.getElementById('compare').click()")
    scrolled, seen, found = window.driver.execute_script(OVERFLOWS)
    assert found == []
    assert scrolled <= seen == pytest.approx(width, abs=20)
    charts = window.driver.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(charts) >= 7
    assert all(one.rect["x"] + one.rect["width"] <= width for one in charts)  # not even in a box that scrolls
    ink, paper = (
        json.loads(f"[{window.driver.find_element(By.TAG_NAME, 'body').value_of_css_property(name)[5:-1]}]")
        for name in ("color", "background-color")
    )
    assert (sum(ink[:3]) > sum(paper[:3])) is (look == "dark")
    assert window.complaints() == []
    assert window.driver.title.startswith("Report on known-")


def test_a_manager_reads_what_was_found_and_why_to_trust_it_on_the_first_screen(
    project: Project, page: Browser
) -> None:
    frozen = read_frozen(project.folder / "prompts/best.toml")
    evidence = frozen.evidence
    assert evidence.relative_interval is not None
    low, high = (f"{end:+.0%}".replace("%", " %") for end in evidence.relative_interval)
    cards = shown(page, ".card")
    assert all(one.rect["y"] + one.rect["height"] < 900 for one in cards)
    found, trust, cost, prompt = (one.text for one in cards)
    gain = evidence.difference / evidence.baseline_return
    assert f"{gain:+.0%}".replace("%", " %") in found.splitlines()
    assert f"95 % interval [{low}, {high}], n = {evidence.episodes} unseen episodes each" in found
    assert "Yes: trial-" in trust
    assert f"p = {evidence.p_value:.2g}" in trust
    assert "reasons for doubt" in trust
    assert f"{frozen.provenance.calls} calls" in cost
    assert (
        f"An episode with trial-{frozen.provenance.trial:03d}: {evidence.frozen_tokens:,.0f} tokens" in cost
    )
    for text in (frozen.candidate.template.system, "template = storyteller (baseline: reference)"):
        assert text.strip() in prompt


def test_the_table_sorts_by_any_column(page: Browser) -> None:
    race = column(page, "Candidate")
    page.click("#all thead button", "temperature")
    heats = [float(one) for one in column(page, "temperature")]
    assert heats == sorted(heats)
    page.click("#all thead button", "temperature")
    assert [float(one) for one in column(page, "temperature")] == sorted(heats, reverse=True)
    page.click("#all thead button", "template")
    assert (names := column(page, "template")) == sorted(names)
    page.click("#all thead button", "#")
    assert column(page, "Candidate") == race


def test_the_tables_order_is_that_of_the_expected_figures(page: Browser) -> None:
    dropped = [one.startswith("dropped") for one in column(page, "Race")]
    expected = [float(one) for one in column(page, "Expected return")]
    assert list(zip(dropped, [-one for one in expected], strict=True)) == sorted(
        zip(dropped, [-one for one in expected], strict=True)
    )
    chart = page.driver.find_elements(By.CSS_SELECTOR, "#candidates svg text[text-anchor='end']")
    named = [
        one for place, one in enumerate(column(page, "Candidate")) if place < MOST_ROWS or one == "baseline"
    ]
    assert [one.text for one in chart] == named
    for mean, ends in zip(expected, column(page, "95 % interval"), strict=True):
        low, high = json.loads(ends)
        assert low <= mean <= high


def test_search_finds_settings_and_prompts(page: Browser) -> None:
    everyone = column(page, "Candidate")
    box = page.driver.find_element(By.ID, "search")
    box.send_keys("one long ADVENTURE")  # words of the storyteller's prompt
    assert set(column(page, "template")) == {"storyteller"}
    assert f"{len(column(page, 'Candidate'))} of {len(everyone)} candidates" in page.text
    box.clear()
    box.send_keys("zebra")
    assert column(page, "Candidate") == []
    box.clear()
    box.send_keys(" ")
    assert column(page, "Candidate") == everyone


@pytest.mark.parametrize("script", [True, False], ids=["script", "none"])
def test_a_candidate_unfolds_to_its_prompt_its_difference_and_its_episodes(
    project: Project, window: Browser, script: bool
) -> None:
    show(window, project, script=script)
    name = f"trial-{read_frozen(project.folder / 'prompts/best.toml').provenance.trial:03d}"
    assert not shown(window, f"#{name}")
    window.click("#all a", name)
    (details,) = shown(window, f"#{name}")
    assert "You are a storyteller." in details.text
    for summary in details.find_elements(By.TAG_NAME, "summary"):
        summary.click()
    added, removed = (details.find_elements(By.TAG_NAME, tag) for tag in ("ins", "del"))
    assert any("You are a storyteller." in one.text for one in added)
    assert any("This is a plain echo environment" in one.text for one in removed)
    episodes = details.find_elements(By.CSS_SELECTOR, ".episode")
    assert [one.text.split(",")[0] for one in episodes][-6:] == ["Holdout"] * 6
    assert all(one.text.count(HOSTILE.strip()) == 4 for one in episodes)
    assert window.driver.title.startswith("Report on known-")


def test_any_two_candidates_are_compared_by_seed(project: Project, page: Browser) -> None:
    frozen = f"trial-{read_frozen(project.folder / 'prompts/best.toml').provenance.trial:03d}"
    for box, name in (("compare-a", frozen), ("compare-b", "baseline")):
        Select(page.driver.find_element(By.ID, box)).select_by_visible_text(name)
    page.click("#compare")
    (result,) = shown(page, "#compared")
    for name in (frozen, "baseline"):
        assert name in result.find_element(By.TAG_NAME, "thead").text
    assert "You are a storyteller." in result.text
    first = result.find_elements(By.CSS_SELECTOR, ".pair")[-1].find_elements(By.CSS_SELECTOR, ":scope > div")
    assert first[0].rect["y"] == first[1].rect["y"]
    assert first[0].rect["x"] < first[1].rect["x"]
    pairs = [one.text for one in result.find_elements(By.CSS_SELECTOR, ".pair")]
    seeds = [re.findall(r"Holdout, seed (\d+): return ", one) for one in pairs]
    both = next(number for number, one in enumerate(seeds) if len(one) == 2)
    assert len(set(seeds[both])) == 1
    assert pairs[both].count(HOSTILE.strip()) == 8


def test_the_experiments_last_studies_are_listed_with_their_gains_and_holdouts(
    project: Project, page: Browser
) -> None:
    evidence = read_frozen(project.folder / "prompts/best.toml").evidence
    latest, this = shown(page, "#history tbody tr")
    assert "this one" in this.text
    for part in ("better than the baseline", f"+{evidence.difference:.1f} [", "fake at"):
        assert part in this.text
    assert latest.text.endswith(" the same")
    assert len(shown(page, "#history svg circle")) == 2  # by side: both have the same holdout


def test_a_mark_shows_its_figures_under_the_pointer(page: Browser) -> None:
    (mark,) = shown(page, "#candidates svg circle.base")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(page.driver).move_to_element(mark).perform()
    tip = page.wait(lambda: shown(page, ".tip"), "the figures under the pointer")[0]
    told = re.compile("baseline, (expected|holdout): ")  # the marks may lie on each other
    assert page.wait(lambda: told.match(tip.text), "the figures of the baseline's mark")
    assert ", n = " in tip.text
