"""A result: observation, reward and done, in any of the forms in which environments give them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

_REWARD = ("value", "reward", "total", "score")
"""Names of the number in a reward that is an object."""


class Result(NamedTuple):
    """The answer to a reset or a step, not validated: see `View.observed`."""

    observation: object
    reward: object
    done: object


def result_of(body: object) -> Result:
    """The result in a server's JSON.

    OpenEnv's form is an object with observation, reward and done. Others add `info`, which becomes the
    observation's metadata, give the observation's fields beside reward and done, or a list as Gym does.
    """
    if isinstance(body, list) and len(body) in (4, 5):
        observation, reward, done, *rest = body
        body = {"observation": observation, "reward": reward, "info": rest[-1]}
        body["done"] = done or rest[0] is True
    if not isinstance(body, dict):
        return Result(body, None, False)
    shown = body.get("observation", {name: one for name, one in body.items() if name != "info"})
    if not isinstance(shown, dict):
        shown = {"observation": shown}
    metadata = body.get("metadata") or body.get("info")
    if metadata and not shown.get("metadata"):
        shown = {**shown, "metadata": metadata}
    return Result(shown, _number(_either("reward", body, shown)), _either("done", body, shown) or False)


def _either(name: str, body: Mapping[str, Any], shown: Mapping[str, Any]) -> object:
    found = body.get(name)
    return shown.get(name) if found is None else found


def _number(reward: object) -> object:
    if not isinstance(reward, dict):
        return reward
    return next((reward[name] for name in _REWARD if name in reward), reward)
