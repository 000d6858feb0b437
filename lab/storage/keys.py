"""Keys: what an episode, and a call, is known by in a study's record.

An episode's key is its candidate and its seed. The search, confirmation and holdout never share a seed.
"""

from dataclasses import dataclass

PROPOSALS = "proposals"
"""Scope of the calls that propose texts; every other scope is an episode's."""

CONFIRMATION, HOLDOUT, COMPARISON = 500_000, 1_000_000, 1_500_000
"""Offsets of the seeds of confirmation, holdout and `lab.compare` from the search's, which end before."""

EpisodeKey = tuple[str, int]
"""An episode's key: its candidate's digest and its seed."""


def scope_of(digest: str, seed: int) -> str:
    """The scope of a candidate's episode."""
    return f"{digest} {seed}"


def episode_key(scope: str) -> EpisodeKey:
    """The episode of a scope; see `scope_of`."""
    digest, _, seed = scope.rpartition(" ")
    return digest, int(seed)


@dataclass(frozen=True)
class CallKey:
    """A call's key in a study: its scope, the request's digest, and its occurrence index."""

    scope: str
    key: str
    occurrence: int
