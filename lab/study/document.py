"""A StudyDocument: what a study depends on, kept with it, and which of it may change before the study ends.

An episode depends on the environment, the task, the model and the candidate: these never change. The space
may be widened while the search runs, confirmation and holdout may change while they have not begun, and the
rest (budget, prices, patience, tracking) is free. With it is the experiment's own file, so that a study can
be read without the disk. It owns the comparison; what follows from it is `lab.study.resume`'s.
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
"""Of documents and journals; a study in another format cannot resume."""

Part = Mapping[str, Any]


@dataclass(frozen=True)
class StudyDocument:
    """What a study depends on, as plain JSON values.

    Attributes:
        episodes: what the result of an episode follows from, and how it is valued.
        templates: the texts of the space and of the baseline, by name.
        search: the space, and what decides in it.
        confirmation, verdict: those tables.
        effort: what may be spent, and the proposals.
        source: the experiment's file: `file` and `text` of its `Source`. Two documents with other files are
            equal where the other parts are.
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
        """For the store."""
        return json.dumps(asdict(self), sort_keys=True)


_READ = TypeAdapter(StudyDocument)


@dataclass(frozen=True)
class Kept:
    """What a study was run with, as its document has it.

    Attributes:
        model: its endpoint is as it may be shown.
        proposer: see `document`.
    """

    experiment: Experiment
    model: ModelChoice
    proposer: str


@dataclass(frozen=True)
class Reached:
    """How far a study is: which of its phases can no longer change."""

    searched: bool = False
    confirming: bool = False
    holdout: bool = False


def document(experiment: Experiment, model: ModelChoice, proposer: str) -> StudyDocument:
    """The document of a study of `experiment` on `model`.

    Args:
        proposer: the model that proposes texts, if it is not the one that plays; else empty.
    """
    source = experiment.source
    baseline = experiment.baseline.as_table()
    del baseline["template"]
    proposals = experiment.proposals.model_dump() if experiment.proposals else {}
    return StudyDocument(
        format=FORMAT,
        episodes=_plain(
            {
                "model": {"name": model.name, "endpoint": model.shown},
                "environment": _without(experiment.environment.as_table(), "step_timeout_s"),
                "code": dict(experiment.code),
                "task": asdict(experiment.task),
                "baseline": {"template": experiment.baseline.template.name, **baseline},
                "seed": experiment.seed,
                "objective": _without(asdict(experiment.objective), "prices"),
            }
        ),
        templates={name: {"system": one.system, "turn": one.turn} for name, one in source.templates.items()},
        search=_plain(
            {
                "space": _space(experiment.space),
                "episodes": experiment.search.episodes,
                "error_rate": experiment.search.error_rate,
            }
        ),
        confirmation=experiment.confirmation.model_dump(),
        verdict=experiment.verdict.model_dump(),
        effort=_plain(
            {
                "budget": asdict(experiment.budget),
                "headroom": experiment.search.headroom,
                "proposals": {**proposals, "model": proposer},
            }
        ),
        source={"file": source.file, "text": source.text},
    )


def read_document(text: str) -> StudyDocument | None:
    """The inverse of `StudyDocument.as_json`; None for a document of another format, or a damaged one."""
    try:
        found = _READ.validate_json(text)
        compares = found.format == FORMAT and _wider(found.search, found.search)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return found if compares else None


def kept(text: str, where: str, root: Path) -> Kept:
    """What the study with this document was run with; no file is read, and none of its code is imported.

    Args:
        where: the study's name, for people.
        root: the project's folder, where the study may be played on.

    Raises:
        ConfigError: the document is damaged, or of another format.
    """
    found, why = read_document(text), ""
    try:
        if found is not None:
            return _kept(found, root)
    except LabError as error:
        why = error.one_line
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
    raise unreadable(where, why)


def unreadable(where: str, why: str = "") -> ConfigError:
    """The error for a document that cannot be read, of the study `where`."""
    what = "What the study depends on cannot be read: it is damaged, or another version of the lab wrote it."
    return ConfigError(
        what, where=where, why=why, do="begin a new study with --fresh; this one's record is kept"
    )


def _kept(document: StudyDocument, root: Path) -> Kept:
    templates = {name: PromptTemplate(name, **texts) for name, texts in document.templates.items()}
    source = Source(**document.source, templates=templates, code=document.episodes["code"])
    experiment = read_experiment(source, root)
    model, proposer = document.episodes["model"], document.effort["proposals"]["model"]
    environ = {"API_BASE_URL": str(model["endpoint"]), "MODEL_NAME": str(model["name"])}
    return Kept(experiment, choose_model(experiment.model, environ), str(proposer))


def may_become(before: StudyDocument, now: StudyDocument, reached: Reached) -> bool:
    """Whether a study that began with `before` may continue with `now`."""
    shared = before.templates.keys() & now.templates.keys()
    return (
        before.episodes == now.episodes
        and all(before.templates[name] == now.templates[name] for name in shared)
        and (before.search == now.search or (not reached.searched and _wider(before.search, now.search)))
        and (before.confirmation == now.confirmation or not reached.confirming)
        and (before.verdict == now.verdict or not reached.holdout)
    )


def difference(before: StudyDocument, now: StudyDocument) -> list[str]:
    """The lines in which two documents differ, for people."""
    lines = (list(_lines(before)), list(_lines(now)))
    return list(difflib.unified_diff(*lines, "when it began", "now", lineterm="", n=1))


def _wider(before: Part, now: Part) -> bool:
    names = before["space"].keys() | now["space"].keys()
    return now["episodes"] >= before["episodes"] and all(
        _covers(_dimension(now["space"][name]), _dimension(before["space"][name])) for name in names
    )


def _covers(now: Dimension, before: Dimension) -> bool:
    whole = isinstance(before, Choices) or isinstance(now, Range)
    return whole and all(end in now for end in before.ends)


def _space(space: Space) -> dict[str, Any]:
    """Every setting's dimension; one that is fixed has one value."""
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
    """One line a value; a longer text has a line for each of its own."""
    if isinstance(value, Mapping):
        for key, one in sorted(value.items()):
            yield from _part_lines(f"{name}.{key}", one)
    elif isinstance(value, str) and "\n" in value:
        yield f"{name} ="
        yield from (f"    {line}" for line in value.splitlines())
    else:
        yield f"{name.partition('.')[2] or name} = {json.dumps(value, ensure_ascii=False)}"


def _without(table: dict[str, Any], key: str) -> dict[str, Any]:
    """The same but for a key that an episode's result does not depend on."""
    return {name: value for name, value in table.items() if name != key}


def _plain(table: dict[str, Any]) -> Part:
    """As it is after a way through JSON, so that both sides of a comparison are."""
    plain: Part = json.loads(json.dumps(table))
    return plain
