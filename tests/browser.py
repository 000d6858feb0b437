"""A headless Chromium on a local page: its text, its console errors, its requests.

It resolves no name except loopback. Chromium and its driver are Debian's.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.project import Project

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="NO BROWSER HERE, PAGES ARE NOT LOOKED AT: apt-get install chromium chromium-driver",
)

PATIENCE_S = 300.0
"""Maximum seconds for a page to show something, on a slow machine."""

UNAVOIDABLE = (
    "/ajax-api/2.0/mlflow/users/current",  # MLflow's page asks who has signed in: 404 without accounts
    "ResizeObserver loop completed with undelivered notifications",  # the rest follows in the next frame
)
"""Console errors that the shown page does not cause; no others are ignored."""

NO_GUIDES = """
for (const key of ["assistant.fab.autoOpenedOnFirstLoad_v1", "detectIssues.guidanceShown_v1"]) {
    try { localStorage.setItem(`mlflow.${key}`, "true"); } catch { /* about:blank keeps nothing */ }
}
"""
"""Script that closes MLflow's guides, as a user does once."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Browser:
    """One window.

    Attributes:
        origin: Origin of the pages; `strayed` lists requests to others.
    """

    driver: webdriver.Chrome
    origin: str

    def open(self, path: str) -> None:
        """Load a page of the origin, without state of the previous page."""
        self.driver.get("about:blank")
        self.driver.get(self.origin + path)

    def shows(self, *texts: str) -> str:
        """Wait until the page shows all of `texts`, and return its text."""

        def all_there() -> str | None:
            text = self.text
            return text if all(one in text for one in texts) else None

        return self.wait(all_there, f"the page to show {texts}")

    def click(self, css: str, text: str = "") -> None:
        """Click the first element of `css` with `text`, once it is clickable."""

        def clicked() -> bool:
            for element in self.driver.find_elements(By.CSS_SELECTOR, css):
                if text in element.text and element.is_displayed():
                    element.click()
                    return True
            return False

        self.wait(clicked, f"a click on {css} {text!r}")

    def follow(self, text: str) -> None:
        """Click a link, also one that opens a tab: MLflow's descriptions have those."""
        self.click("a", text)
        self.driver.switch_to.window(self.driver.window_handles[-1])

    def wait(self, look: Callable[[], Found | None], what: str) -> Found:
        """Wait until `look` finds something, and return it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if found := look():
                    return found
            except WebDriverException:  # the page was changing just now
                pass
            assert time.monotonic() < deadline, f"waited in vain for {what}; the page shows:\n{self.text}"
            time.sleep(0.2)

    @property
    def text(self) -> str:
        """The page's text."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def picture(self, path: Path) -> None:
        """Save a picture of the window."""
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path))

    def complaints(self) -> list[str]:
        """Console errors since the last call."""
        told = [entry["message"] for entry in self._log("browser") if entry["level"] == "SEVERE"]
        return [message for message in told if not any(known in message for known in UNAVOIDABLE)]

    def strayed(self) -> list[str]:
        """Requests to other origins since the last call."""
        entries = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [one["params"] for one in entries if one["method"] == "Network.requestWillBeSent"]
        urls = [str(one["request"]["url"]) for one in sent]
        own = urlsplit(self.origin)
        fetched = [url for url in urls if urlsplit(url).scheme in ("http", "https")]
        return [url for url in fetched if urlsplit(url)[:2] != own[:2]]

    def _log(self, kind: str) -> list[dict[str, str]]:
        entries: list[dict[str, str]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries


@contextmanager
def browsing(origin: str) -> Iterator[Browser]:
    """Open a window."""
    assert CHROMIUM is not None
    options = Options()
    options.binary_location = CHROMIUM
    for argument in (
        *("--headless=new", "--window-size=1500,950", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium refuses root's sandbox
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(PATIENCE_S)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NO_GUIDES})
        yield Browser(driver, origin)
    finally:
        driver.quit()


@contextmanager
def mlflow_ui(project: Project) -> Iterator[str]:
    """Run `mlflow ui` on the project's store, without its network requests; yields its origin."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    where = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    with _serving(project, port, "health", "mlflow", "ui", *where, **quiet) as origin:
        yield origin


@contextmanager
def dashboard(project: Project) -> Iterator[str]:
    """Run `optuna-dashboard` on the project's journal; yields its origin."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = (".lab/optuna.log", "--host", "127.0.0.1", "--port", str(port))
    with _serving(project, port, "api/studies", "optuna_dashboard._cli", *where) as origin:
        yield origin


@contextmanager
def _serving(project: Project, port: int, path: str, *command: str, **environ: str) -> Iterator[str]:
    """Run `python -m command` in the project's folder, and wait until it answers at `path`."""
    log = project.folder / f"{command[0]}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=project.folder, env=project.environ(**environ),
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/{path}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 2 * PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
