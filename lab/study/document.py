"""A StudyDocument: what a study depends on, kept with it, and which of it may change before the study ends.

An episode depends on the environment, the task, the model and the candidate: these never change. The space
may be widened while the search runs, confirmation and holdout may change while they have not begun, and the
rest (budget, prices, patience, tracking) is free. It owns the comparison; what follows from it is
`lab.study.resume`'s.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lab.agent.template import PromptTemplate
from lab.experiment.experiment import Experiment
from lab.experiment.space import Choices, Dimension, Range, Space
from lab.llm.settings import ModelChoice

FORMAT = 3
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
    """

    format: int
    episodes: Part
    templates: Part
    search: Part
    confirmation: Part
    verdict: Part
    effort: Part

    def as_json(self) -> str:
        """For the store."""
        return json.dumps(asdict(self), sort_keys=True)


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
    own = experiment.baseline.template
    baseline = experiment.baseline.as_table()
    del baseline["template"]
    proposals = experiment.proposals.model_dump() if experiment.proposals else {}
    return StudyDocument(
        format=FORMAT,
        episodes=_plain(
            {
                "model": f"{model.name} at {model.shown}",
                "environment": _without(experiment.environment.as_table(), "step_timeout_s"),
                "code": dict(experiment.code),
                "task": asdict(experiment.task),
                "baseline": {"template": own.name, **baseline},
                "seed": experiment.seed,
                "objective": _without(asdict(experiment.objective), "prices"),
            }
        ),
        templates={
            name: _text(template) for name, template in {own.name: own, **experiment.space.templates}.items()
        },
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
    )


def read_document(text: str) -> StudyDocument | None:
    """The inverse of `StudyDocument.as_json`; None for a document of another format."""
    try:
        table = json.loads(text)
        known = [one.name for one in fields(StudyDocument)]
        return StudyDocument(**table) if table["format"] == FORMAT and set(table) == set(known) else None
    except (ValueError, KeyError, TypeError):
        return None


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


def difference(before: str, now: StudyDocument) -> list[str]:
    """The lines in which two documents differ, for people."""
    known = read_document(before)
    first = list(_lines(known)) if known else before.splitlines()
    return list(difflib.unified_diff(first, list(_lines(now)), "when it began", "now", lineterm="", n=1))


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


def _text(template: PromptTemplate) -> str:
    return f"system:\n{template.system}\nturn:\n{template.turn}"


def _lines(document: StudyDocument) -> Iterator[str]:
    for part, table in asdict(document).items():
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
