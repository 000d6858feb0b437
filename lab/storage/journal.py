"""The journal's entries: what happened in a study, in the order in which it did.

They are facts and no computations: whoever takes them in, one by one, stands where the study stood. The
search, the player and the study write them; the record keeps them, and reads an episode's end as `Over`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from lab.agent.candidate import Candidate, Demonstration
from lab.agent.episode import CutEpisode, Episode
from lab.agent.template import PromptTemplate


@dataclass(frozen=True)
class Opened:
    """A worker began to work on the study; `alone` where no other was at it."""

    alone: bool = True
    kind: Literal["opened"] = "opened"


@dataclass(frozen=True)
class Entered:
    """The candidates that open the search, the baseline first: a space that is widened later draws others."""

    candidates: tuple[Candidate, ...]
    kind: Literal["entered"] = "entered"


@dataclass(frozen=True)
class Begun:
    """The search gave a candidate seeds to play, `first` up to but not `last`; its worker plays them."""

    candidate: Candidate
    first: int
    last: int
    kind: Literal["begun"] = "begun"


@dataclass(frozen=True)
class Taken:
    """A worker is to play this episode, which nobody at work was playing."""

    digest: str
    seed: int
    kind: Literal["taken"] = "taken"


@dataclass(frozen=True)
class Ended:
    """An episode of the candidate with this digest has ended, in whichever part of the study."""

    digest: str
    played: Episode | CutEpisode
    kind: Literal["ended"] = "ended"


@dataclass(frozen=True)
class Failed:
    """The candidate with this digest cannot be played: `LabError`'s four texts say why."""

    digest: str
    seed: int
    what: str
    where: str
    why: str
    do: str
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True)
class Over:
    """What `Ended` and `Failed` come to for who reads the journal: `Record.ended` has how it was."""

    digest: str
    seed: int


@dataclass(frozen=True)
class Renewing:
    """A worker began a round of renewal, or one that a dead worker had begun."""

    worker: str
    kind: Literal["renewing"] = "renewing"


@dataclass(frozen=True)
class Renewed:
    """A round of renewal has ended: its texts join the race, with the settings of the incumbent then."""

    texts: tuple[PromptTemplate, ...]
    demonstrations: tuple[Demonstration, ...]
    incumbent: Candidate
    kind: Literal["renewed"] = "renewed"


@dataclass(frozen=True)
class Searched:
    """The search is over."""

    kind: Literal["searched"] = "searched"


@dataclass(frozen=True)
class Judged:
    """The verdict was given.

    Attributes:
        minutes: of work on the study, until then.
        created: the moment, ISO 8601, UTC.
        limit: of the budget, where it ended the verdict before all planned episodes were played; else empty.
    """

    minutes: float
    created: str
    limit: str = ""
    kind: Literal["judged"] = "judged"


@dataclass(frozen=True)
class Kept:
    """The worker that leads has written the trials to Optuna's storage, and has the verdict for MLflow."""

    kind: Literal["kept"] = "kept"


@dataclass(frozen=True)
class Stopped:
    """The study ended with an error that the same study gives again: `LabError`'s four texts say why.

    Attributes:
        refused: whether the environment refused the actions; else the model's answers were at fault.
    """

    what: str
    where: str
    why: str
    do: str
    refused: bool
    kind: Literal["stopped"] = "stopped"


_Same = Opened | Entered | Begun | Taken | Renewing | Renewed | Searched | Judged | Kept | Stopped
Event = _Same | Ended | Failed
"""An entry as it is written."""

Seen = _Same | Over
"""An entry as the study sees it, without an episode's texts: these are most of a journal."""

_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def event_json(event: Event) -> str:
    """One line of JSON."""
    return _EVENTS.dump_json(event).decode()


def read_event(line: str) -> Event:
    """The inverse of `event_json`.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _EVENTS.validate_json(line)
