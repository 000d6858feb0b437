"""The tables `[environment]`, `[task]` and `[[tasks]]` of an experiment file.

It owns their keys, and the rules between them; the rules of single values are `EnvironmentConfig`'s and
`Task`'s.
"""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from lab.addresses import is_url, shown_url
from lab.agent.task import ScoreBounds, Setup, Task
from lab.environments.config import STEP_TIMEOUT_S, EnvironmentConfig, within
from lab.errors import ConfigError


class Table(BaseModel):
    """Base of an experiment file's tables: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EnvironmentTable(Table):
    """`[environment]`: see `lab.environments.config.EnvironmentConfig`; files are beside the experiment's
    own.
    """

    python: str = ""
    url: str = ""
    image: str = ""
    space: str = ""
    text: str = ""
    error: str = ""
    hooks: str = ""
    longest: int | None = Field(default=None, ge=1)
    step_timeout_s: float = Field(default=STEP_TIMEOUT_S, gt=0, allow_inf_nan=False)
    headers: dict[str, str] = Field(default={})


class TaskTable(Table):
    """`[task]`: see `lab.agent.task.Task`."""

    name: str
    benchmark: str
    max_steps: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    max_return: float
    success_score: float = Field(ge=0, le=1)
    max_step_reward: float = inf
    min_return: float = 0.0
    min_step_reward: float = -inf
    score: str = "sum"
    score_bounds: ScoreBounds = "closed"


class SetupTable(Table):
    """One of `[[tasks]]`: see `lab.agent.task.Setup`."""

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    reset: dict[str, Any] = {}


def refuse_credentials(url: str, where: str, variable: str) -> None:
    """Check that an experiment file's `url` contains no user and password: the file is stored and shown.

    Raises:
        ConfigError: It does.
    """
    if "@" in urlsplit(url).netloc:
        do = f"remove them, and set {variable} to the whole URL, in the environment or in .env"
        raise ConfigError("An experiment file must not contain a user and password.", where=where, do=do)


def read_environment(table: EnvironmentTable, folder: str) -> EnvironmentConfig:
    """The declaration, with paths relative to the project's root.

    Args:
        folder: The experiment file's folder, relative to the root.

    Raises:
        ConfigError: There is not exactly one location, or a value is invalid.
    """
    places = [name for name in ("python", "url", "image", "space") if getattr(table, name)]
    if len(places) > 1:
        what, do = f"Several environment locations given: {', '.join(places)}.", "keep one"
        raise ConfigError(what, where="environment", do=do)
    if table.url and not is_url(table.url):
        what = f"{shown_url(table.url)!r} is not a valid server URL."
        raise ConfigError(what, where="environment.url", do="use a URL such as http://127.0.0.1:8000")
    refuse_credentials(table.url, "environment.url", "ENV_BASE_URL")
    declared = EnvironmentConfig(**table.model_dump())
    return replace(
        declared,
        python=f"{folder}/{declared.python}" if declared.python_file else declared.python,
        hooks=f"{folder}/{declared.hooks}" if declared.hooks else "",
    )


def read_code(environment: EnvironmentConfig, root: Path) -> dict[str, str]:
    """The project's files that the declaration names: text by path.

    Raises:
        ConfigError: A file is missing, outside the project, or not text.
    """
    texts = dict[str, str]()
    for key, file in (("python", environment.python_file), ("hooks", environment.hooks)):
        try:
            if file:
                texts[file] = within(root, file).read_text(encoding="utf-8")
        except ConfigError as error:
            where = f"environment.{key}"
            raise ConfigError(error.what, where=where, why=f"it is {file}", do=error.do) from None
        except (OSError, ValueError) as error:
            raise ConfigError(
                "The file cannot be read.", where=f"environment.{key}", why=str(error)
            ) from None
    return texts


def read_task(table: TaskTable, setups: list[SetupTable]) -> Task:
    """The task, with the setups of several tasks.

    Raises:
        ConfigError: Two tasks have the same name, or one sets the seed.
    """
    names = [setup.name for setup in setups]
    for index, setup in enumerate(setups):
        if setup.name in names[:index]:
            do = "give each task a different name"
            where = f"tasks.{index}.name"
            raise ConfigError(f"Several tasks are named {setup.name!r}.", where=where, do=do)
        if {"seed", "episode_id"} & set(setup.reset):
            what = "A task must not set seed or episode_id: the study chooses them."
            raise ConfigError(what, where=f"tasks.{index}.reset", do="remove it")
    tasks = tuple(Setup(setup.name, setup.reset) for setup in setups)
    return Task(**table.model_dump(), tasks=tasks)
