"""A StudyDocument: the inputs of a study, stored with it, and which of them may change before it ends.

An episode depends on the environment, the task, the model and the candidate: these never change. The space
may be widened during the search, confirmation and holdout may change until they start, and the rest (budget,
prices, patience, tracking) is free. It includes the experiment's file, so that a study can be read without
the project. It owns the comparison; `lab.study.resume` acts on it.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter

from lab.agent.template import PromptTemplate
from lab.errors import ConfigError, LabError
from lab.experiment.experiment import Experiment, Source, read_experiment
from lab.experiment.space import Choices, Dimension, Range, Space
from lab.llm.settings import ModelChoice, choose_model

FORMAT = 4
"""Version of the document format; a study in another version cannot resume."""

Part = Mapping[str, Any]


@dataclass(frozen=True)
class StudyDocument:
    """The inputs of a study, as plain JSON values.

    Attributes:
        episodes: What an episode's result depends on, and how it is valued.
        templates: Texts of the space's and the baseline's templates, by name.
        search: The space, and the settings of the search.
        confirmation, verdict: These tables.
        effort: The budget, and the proposals.
        source: The experiment's file: `file` and `text` of its `Source`. It is ignored in comparisons.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format: int
    episodes: Part
    templates: Mapping[str, Mapping[str, str]]
    search: Part
    confirmation: Part
    verdict: Part
    effort: Part
    source: Mapping[str, str] = field(compare=False)

    def as_json(self) -> str:
        """The document as JSON, for the store."""
        return json.dumps(asdict(self), sort_keys=True)

    def raises_limit(self, now: "StudyDocument") -> bool:
        """Whether a limit of the budget is higher in another document."""
        before, after = self.effort["budget"], now.effort["budget"]
        return any(after[name] > before[name] for name in after)


_READ = TypeAdapter(StudyDocument)


@dataclass(frozen=True)
class Reached:
    """The phases that a study has reached, which can no longer change."""

    searched: bool = False
    confirming: bool = False
    holdout: bool = False


def document(experiment: Experiment, model: ModelChoice, proposer: str) -> StudyDocument:
    """The document of a study of `experiment` on `model`.

    Args:
        proposer: Name of a separate proposing model; empty if the playing model proposes.
    """
    source = experiment.source
    baseline = experiment.baseline.as_table()
    del baseline["template"]
    proposals = experiment.proposals.model_dump() if experiment.proposals else {}
    others = {name: _model(one.choice) for name, one in experiment.others.items()}
    table = {
        "format": FORMAT,
        "episodes": {
            "model": _model(model),
            "environment": _without(experiment.environment.as_table(), "step_timeout_s", "error"),
            "code": dict(experiment.code),
            "task": _without(asdict(experiment.task), "score_bounds"),
            "baseline": {"template": experiment.baseline.template.name, **baseline},
            "seed": experiment.seed,
            "objective": _without(asdict(experiment.objective), "prices", "others"),
        },
        "templates": {
            name: {"system": one.system, "turn": one.turn} for name, one in source.templates.items()
        },
        "search": {
            **({"models": others} if others else {}),
            "space": _space(experiment.space),
            "episodes": experiment.search.episodes,
            "error_rate": experiment.search.error_rate,
        },
        "confirmation": experiment.confirmation.model_dump(),
        "verdict": experiment.verdict.model_dump(),
        "effort": {
            "budget": asdict(experiment.budget),
            "headroom": experiment.search.headroom,
            "proposals": {**proposals, "model": proposer},
        },
        "source": {"file": source.file, "text": source.text},
    }
    return StudyDocument(**json.loads(json.dumps(table)))  # plain, as on the other side of a comparison


def read_document(text: str) -> StudyDocument | None:
    """The inverse of `StudyDocument.as_json`; None for a document of another format, or a damaged one."""
    try:
        found = _READ.validate_json(text)
        compares = found.format == FORMAT and _wider(found.search, found.search)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return found if compares else None


def kept(text: str, where: str, root: Path) -> tuple[Experiment, ModelChoice, str]:
    """The experiment, model and proposer of `document`; no file is read, and no code is imported.

    The model's endpoint is without credentials.

    Args:
        where: Name of the study, for people.
        root: Project folder.

    Raises:
        ConfigError: The document is damaged, or has another format.
    """
    found = read_document(text)
    if found is None:
        raise unreadable(where)
    try:
        templates = {name: PromptTemplate(name, **texts) for name, texts in found.templates.items()}
        source = Source(**found.source, templates=templates, code=found.episodes["code"])
        experiment = read_experiment(source, root)
        model, proposer = found.episodes["model"], found.effort["proposals"]["model"]
        environ = {"API_BASE_URL": str(model["endpoint"]), "MODEL_NAME": str(model["name"])}
        return experiment, choose_model(experiment.model, environ), str(proposer)
    except LabError as error:
        raise unreadable(where, error.one_line) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise unreadable(where, f"{type(error).__name__}: {error}") from None


def unreadable(where: str, why: str = "") -> ConfigError:
    """The error for an unreadable document of the study `where`."""
    what = "The study's document cannot be read: it is damaged, or was written by another version of the lab."
    return ConfigError(
        what, where=where, why=why, do="use --fresh to start a new study; the old record is kept"
    )


def may_become(before: StudyDocument, now: StudyDocument, reached: Reached) -> bool:
    """Whether a study that started with `before` may continue with `now`."""
    shared = before.templates.keys() & now.templates.keys()
    return (
        before.episodes == now.episodes
        and all(before.templates[name] == now.templates[name] for name in shared)
        and (before.search == now.search or (not reached.searched and _wider(before.search, now.search)))
        and (before.confirmation == now.confirmation or not reached.confirming)
        and (before.verdict == now.verdict or not reached.holdout)
    )


def difference(before: StudyDocument, now: StudyDocument) -> list[str]:
    """A unified diff of two documents, for people."""
    lines = (list(_lines(before)), list(_lines(now)))
    return list(difflib.unified_diff(*lines, "at the start", "now", lineterm="", n=1))


def _wider(before: Part, now: Part) -> bool:
    names = before["space"].keys() | now["space"].keys()
    models, others = now.get("models", {}), before.get("models", {})
    return (
        now["episodes"] >= before["episodes"]
        and all(models.get(name) == other for name, other in others.items())
        and all(_covers(_dimension(now["space"][name]), _dimension(before["space"][name])) for name in names)
    )


def _covers(now: Dimension, before: Dimension) -> bool:
    whole = isinstance(before, Choices) or isinstance(now, Range)
    return whole and all(end in now for end in before.ends)


def _model(model: ModelChoice) -> dict[str, str]:
    return {"name": model.name, "endpoint": model.shown}


def _space(space: Space) -> dict[str, Any]:
    """Every setting's dimension; a fixed one has a single value."""
    free = {name: asdict(dimension) for name, dimension in space.free.items()}
    return {**{name: {"values": [value]} for name, value in space.start.settings.items()}, **free}


def _dimension(table: Mapping[str, Any]) -> Dimension:
    return Choices(tuple(table["values"])) if "values" in table else Range(table["low"], table["high"])


def _lines(document: StudyDocument) -> Iterator[str]:
    parts = asdict(document)
    del parts["source"]
    for part, table in parts.items():
        yield from _part_lines(part, table)


def _part_lines(name: str, value: Any) -> Iterator[str]:  # noqa: ANN401  # of JSON
    """One line per value; a text of several lines has one for each of them."""
    if isinstance(value, Mapping):
        for key, one in sorted(value.items()):
            yield from _part_lines(f"{name}.{key}", one)
    elif isinstance(value, str) and "\n" in value:
        yield f"{name} ="
        yield from (f"    {line}" for line in value.splitlines())
    else:
        yield f"{name.partition('.')[2] or name} = {json.dumps(value, ensure_ascii=False)}"


def _without(table: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The table without keys that do not affect episodes."""
    return {name: value for name, value in table.items() if name not in keys}
