"""Reflection: new texts for a prompt of MLflow, which a model writes from the rows that it has played.

It owns what a text must keep: its variables, and a chat prompt's roles. GEPA words the request; see
`lab.proposers.gepa_proposer`.
"""

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mlflow.genai.optimize.types import EvaluationResultRecord
from mlflow.prompt.constants import PROMPT_TEMPLATE_VARIABLE_PATTERN

from lab.errors import LabError
from lab.llm.client import Endpoint, Model
from lab.llm.settings import ModelChoice, hosted_endpoint, read_surroundings
from lab.proposers.gepa_proposer import reflect
from lab.proposers.proposal import ProposalRefusedError
from lab.proposers.writing import SAMPLING
from lab.stats.format import number
from lab.tracking.metrics import cut

OPENAI_URL = "https://api.openai.com/v1"

SHOWN_ROWS, SHOWN_CHARACTERS = 4, 1_000
"""Rows shown of a text, the worst first, and characters of each value."""

_logger = logging.getLogger(__name__)


class Played(NamedTuple):
    """A text, and the rows that it has played."""

    text: str
    records: Sequence[EvaluationResultRecord]


def written(model: str, parents: Sequence[Played]) -> list[str]:
    """A new text for each parent, written concurrently; empty if that failed, which is logged."""
    with ThreadPoolExecutor(1) as pool:  # a notebook has an event loop in this thread
        return pool.submit(asyncio.run, _written(model, parents)).result()


async def _written(name: str, parents: Sequence[Played]) -> list[str]:
    read_surroundings(Path.cwd())
    choice = ModelChoice(os.environ.get("API_BASE_URL", OPENAI_URL), name)
    async with Endpoint(hosted_endpoint(choice)) as model:
        return await asyncio.gather(*(_one(model, parent) for parent in parents))


async def _one(model: Model, parent: Played) -> str:
    kept = sorted(_variables(parent.text))
    names = ", ".join(f"{{{{{name}}}}}" for name in kept)
    rule = f"Keep these variables exactly: {names}. Write no other double braces." if kept else ""
    if _roles(parent.text):
        rule += " Keep the form: a JSON list of messages with the same roles."
    records = sorted(parent.records, key=lambda one: one.score or 0.0)[:SHOWN_ROWS]
    try:
        text = await reflect(model, SAMPLING, parent.text, [_shown(one) for one in records], rule)
        if _variables(text) != set(kept) or _roles(text) != _roles(parent.text):
            raise ProposalRefusedError("A proposed text was refused.", why="its variables or roles differ")
    except LabError as error:
        _logger.warning("No text was written: %s", error.one_line)
        return ""
    return text


def _shown(record: EvaluationResultRecord) -> dict[str, str]:
    values = {
        "Inputs": record.inputs,
        "Generated Outputs": record.outputs,
        "Expected": record.expectations,
        "Feedback": " ".join(
            [f"Score {number(record.score or 0.0)}.", *filter(None, record.rationales.values())]
        ),
    }
    return {name: cut(str(value), SHOWN_CHARACTERS) for name, value in values.items()}


def _variables(text: str) -> set[str]:
    return set(PROMPT_TEMPLATE_VARIABLE_PATTERN.findall(text))


def _roles(text: str) -> list[str]:
    """Roles of a chat prompt's messages; empty for a text prompt."""
    try:
        messages = json.loads(text)
        return [str(one["role"]) for one in messages if isinstance(one["content"], str)]
    except (ValueError, TypeError, KeyError):
        return []
