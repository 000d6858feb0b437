"""Turns: the tasks that one run of a submission plays, in order, and each one's share of the deadline.

Everything here is a function of its arguments; playing is `lab.submission.appearance`'s.
"""

from dataclasses import dataclass

from lab.agent.task import Task

CLOSING_S = 8.0
"""Time limit for closing environment and model, in seconds."""

PRINTING_S = 2.0
"""Seconds for the reader to accept the last lines."""


@dataclass(frozen=True)
class Turn:
    """One task, played once.

    Attributes:
        name: The `task=` of its START line.
        seed: The seed that plays it, see `Task.setup`.
    """

    name: str
    seed: int = 0


@dataclass(frozen=True)
class Share:
    """A turn's part of the deadline; both are times, by `time.monotonic`.

    Attributes:
        play_until_s: When the episode is ended, which leaves time to close and to print END.
        stop_s: When its process is killed, if it has not ended by then.
    """

    play_until_s: float
    stop_s: float


def turns_of(task: Task | None, wanted: str) -> tuple[list[Turn], list[str]]:
    """The turns of a run, and the names in `wanted` that are no task.

    Args:
        task: The frozen file's; None if it cannot be read.
        wanted: Names separated by commas; empty for every task, which is also played if no name is known. A
            single task is played under any name.
    """
    names = list(dict.fromkeys(filter(None, (name.strip() for name in wanted.split(",")))))
    if task is None:
        return [Turn(name) for name in names or ["unknown"]], []
    if not task.tasks:
        return [Turn(wanted or task.name)], []
    seeds = {name: seed for seed, name in enumerate(task.names)}
    known = [name for name in names if name in seeds]
    unknown = [name for name in names if name not in seeds]
    return [Turn(name, seeds[name]) for name in known or seeds], unknown


def opening_share(now_s: float, last_s: float, turns: int) -> Share:
    """The share of opening environment and model, before the next of `turns` turns: half the time of several.

    They are opened once for all turns, so the next one's own share begins only then.

    Args:
        last_s: The deadline of them all, by `time.monotonic`.
    """
    return share_of(now_s, last_s, min(turns, 2))


def share_of(now_s: float, last_s: float, turns: int) -> Share:
    """The share of the next of `turns` turns that are still to come, which begins now.

    What a turn does not use goes to the later ones.

    Args:
        last_s: The deadline of them all, by the same clock.
    """
    length_s = max(last_s - now_s, 0.0) / turns
    end_s = now_s + length_s
    closing_s, printing_s = min(CLOSING_S + PRINTING_S, length_s / 4), min(PRINTING_S / 2, length_s / 20)
    return Share(end_s - closing_s, end_s - printing_s)
