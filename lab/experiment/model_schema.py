"""The tables `[model]` and `[models.NAME]` of an experiment file: their keys, and the models that they name.

It owns what may stand in the file of an endpoint (no credentials, only names of variables that hold them),
and which models a space has besides the baseline's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from pydantic import Field

from lab.agent.candidate import Candidate
from lab.errors import ConfigError, meant
from lab.experiment.budget import FREE, UNKNOWN, Prices
from lab.experiment.environment_schema import Table, refuse_credentials
from lab.experiment.space import Space
from lab.llm.dialect import Dialect
from lab.llm.keys import refuse_secret
from lab.llm.settings import ModelChoice, check_endpoint, check_headers
from lab.llm.throttle import Patience


class ModelTable(Table):
    """`[model]` or `[models.NAME]`: `endpoint` is a base URL or "embedded".

    `API_BASE_URL` and `MODEL_NAME` override `[model]`, and no other.

    Attributes:
        dollars_in, dollars_out: Prices of a million prompt and completion tokens; unknown if not set.
        headers: Headers of each request; `env:NAME` stands for a variable.
        dialect: What requests may hold; see `lab.llm.dialect.Dialect`.
        timeout_s, attempts, whole_s, requests_per_minute, tokens_per_minute: See `lab.llm.throttle.Patience`.
    """

    endpoint: str
    name: str
    dollars_in: float | None = Field(default=None, ge=0)
    dollars_out: float | None = Field(default=None, ge=0)
    headers: dict[str, str] = Field(default={})
    dialect: dict[str, Any] = Field(default={})
    timeout_s: float = Field(default=Patience.timeout_s, gt=0)
    attempts: int = Field(default=Patience.attempts, ge=1)
    whole_s: float = Field(default=Patience.whole_s, gt=0)
    requests_per_minute: float = Field(default=inf, gt=0)
    tokens_per_minute: float = Field(default=inf, gt=0)

    @property
    def patience(self) -> Patience:
        """Limits on calls to this endpoint."""
        return Patience(
            self.timeout_s, self.attempts, self.whole_s, self.requests_per_minute, self.tokens_per_minute
        )


@dataclass(frozen=True)
class PricedModel:
    """A model, the limits on its calls, and its prices: the embedded model is free if none are stated."""

    choice: ModelChoice
    patience: Patience = field(default_factory=Patience)
    prices: Prices = UNKNOWN

    def __post_init__(self) -> None:
        if self.choice.embedded and self.prices == UNKNOWN:
            object.__setattr__(self, "prices", FREE)


def read_models(tables: Mapping[str, ModelTable]) -> dict[str, PricedModel]:
    """The models of the tables `[models.NAME]`, by name.

    Raises:
        ConfigError: As `read_model`, or a name or an endpoint is invalid.
    """
    models = dict[str, PricedModel]()
    for name, table in tables.items():
        where = f"models.{name}"
        if not re.fullmatch(r"[\w.-]+", name):
            do = "use letters, digits, dots and hyphens"
            raise ConfigError(f"{name!r} is not a valid name of a model.", where=where, do=do)
        choice = replace(read_model(table, where), table=name)
        check_endpoint(choice.endpoint, f"{where}.endpoint")
        models[name] = PricedModel(choice, table.patience, Prices(table.dollars_in, table.dollars_out))
    return models


def usual_table(model: ModelTable | None, tables: Mapping[str, ModelTable], name: str) -> ModelTable:
    """The table of the baseline's model: `[models.NAME]` if the baseline names one, else `[model]`.

    Raises:
        ConfigError: It does not exist, or there are both.
    """
    if not name:
        if model is None and tables:
            do = "set it to the model in use today, of a table [models.NAME]"
            raise ConfigError("The baseline has no model.", where="baseline.model", do=do)
        if model is None:
            do = "set it; docs/experiment.md lists every key"
            raise ConfigError("model is missing.", where="model", do=do)
        return model
    if name not in tables:
        do = meant(name, tables, "name a table [models.NAME]")
        raise ConfigError(f"Unknown model {name!r}.", where="baseline.model", do=do)
    if model is not None:
        do = f"remove [model]: the baseline plays on [models.{name}]"
        raise ConfigError("The baseline has two models.", where="model", do=do)
    return tables[name]


def read_model(table: ModelTable, where: str = "model") -> ModelChoice:
    """The model that a table chooses.

    Args:
        where: Name of the table.

    Raises:
        ConfigError: A header or the dialect is invalid, or credentials stand in the file.
    """
    url = table.endpoint.strip()
    refuse_credentials(url, f"{where}.endpoint", "API_BASE_URL")
    check_headers(table.headers, f"{where}.headers")
    for name, value in table.headers.items():
        refuse_secret(name, value, f"{where}.headers.{name}")
    headers = tuple((name.lower(), value) for name, value in table.headers.items())
    return ModelChoice(url, table.name, Dialect.from_table(table.dialect, f"{where}.dialect"), headers)


def others_of(space: Space, baseline: Candidate, models: Mapping[str, PricedModel]) -> dict[str, PricedModel]:
    """The models of a space that the baseline does not play on, by name.

    Args:
        models: The models of the tables `[models.NAME]`.

    Raises:
        ConfigError: A model of the space has no table.
    """
    names = space.free["model"].ends if "model" in space.free else (space.start.model,)
    for name in filter(None, names) if baseline.model else ():
        if name not in models:
            do = meant(str(name), models, "name tables [models.NAME]")
            raise ConfigError(f"Unknown model {name!r}.", where="space.model", do=do)
    return {str(name): models[str(name)] for name in names if name != baseline.model}
