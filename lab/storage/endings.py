"""How an episode ended, as the texts of a row in the store, and back."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode, Tally
from lab.errors import CallError


@dataclass(frozen=True)
class _Failure:
    """The texts of the error of a failed episode."""

    what: str
    where: str
    why: str
    do: str


_TALLY, _CUT = TypeAdapter(Tally), TypeAdapter(CutEpisode)
_FAILURE, _EPISODE = TypeAdapter(_Failure), TypeAdapter(Episode)


def columns_of(played: Episode | CutEpisode | FailedEpisode) -> dict[str, str]:
    """Return the columns `kind`, `ending`, and `episode`, which only a completed one fills."""
    match played:
        case Episode(tally=tally):
            kind, ending = "ended", _TALLY.dump_json(tally)
        case CutEpisode():
            kind, ending = "cut", _CUT.dump_json(played)
        case FailedEpisode(error=error):
            kind = "failed"
            ending = _FAILURE.dump_json(_Failure(error.what, error.where, error.why, error.do))
    whole = _EPISODE.dump_json(played) if isinstance(played, Episode) else b""
    return {"kind": kind, "ending": ending.decode(), "episode": whole.decode()}


def ending_of(seed: int, kind: str, ending: str) -> Ending:
    """Return the ending of an episode from its columns.

    Raises:
        ValidationError: The text is damaged.
    """
    match kind:
        case "ended":
            return _TALLY.validate_json(ending)
        case "cut":
            return _CUT.validate_json(ending)
        case _:
            texts = _FAILURE.validate_json(ending)
            return FailedEpisode(seed, CallError(texts.what, where=texts.where, why=texts.why, do=texts.do))


def episode_of(episode: str) -> Episode:
    """Return a completed episode from its column `episode`.

    Raises:
        ValidationError: The text is damaged.
    """
    return _EPISODE.validate_json(episode)
