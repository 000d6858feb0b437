"""Given environments: classes and functions that a program passes as Python objects, by import path.

It owns their names, which change with their source, so that a study notices; an experiment and a frozen file
name them as `lab.environments.given:NAME`. Only the program that gave an object can play it.
"""

import hashlib
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from lab.errors import ConfigError

Reward = Callable[[Any, Any], float]
"""A step's reward, from the action and the observation that followed, as the environment has them."""

_objects: dict[str, object] = {}


def give(make: Callable[[], object] | None, reward: Reward | None = None) -> str:
    """Keep an environment for this process, and return its import path.

    Args:
        make: An OpenEnv Environment class, or a function that returns an instance.
        reward: Replaces the reward of each step of the class.

    Raises:
        ConfigError: There is a reward, but `make` is no class.
    """
    if reward is not None and not inspect.isclass(make):
        what = "A reward needs the environment's class."
        raise ConfigError(what, where="environment", do="pass the class, not a function or an instance")
    sources = [_source(one) for one in (make, reward) if one is not None]
    word = "".join(char for char in getattr(make, "__name__", "") if char.isalnum() or char == "_")
    name = f"{word or 'environment'}_{hashlib.sha256(repr(sources).encode()).hexdigest()[:8]}"
    _objects[name] = make if reward is None else _rewarded(make, reward)
    return f"{__name__}:{name}"


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    if name not in _objects:
        raise LookupError("only the program that passed this environment as a Python object can play it")
    return _objects[name]


def _source(one: object) -> str:
    """The source of a class or a function; its name if the source cannot be read."""
    try:
        return inspect.getsource(one)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return str(getattr(one, "__qualname__", ""))


def _rewarded(cls: Any, reward: Reward) -> object:  # noqa: ANN401  # an Environment class
    """The class with another reward; its step may be a coroutine, as OpenEnv's server allows."""

    def paid(action: object, seen: Any) -> Any:  # noqa: ANN401  # an Observation
        return seen.model_copy(update={"reward": float(reward(action, seen))})

    async def later(action: object, seen: Any) -> Any:  # noqa: ANN401
        return paid(action, await seen)

    def replaced(own: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(own)
        def step(self: object, action: object, *args: object, **kwargs: object) -> Any:  # noqa: ANN401
            seen = own(self, action, *args, **kwargs)
            return later(action, seen) if inspect.isawaitable(seen) else paid(action, seen)

        return step

    names = ["step", "step_async"] if _steps_async(cls) else ["step"]
    return type(cls.__name__, (cls,), {name: replaced(getattr(cls, name)) for name in names})


def _steps_async(cls: type) -> bool:
    """Whether the class has a `step_async` itself, and not OpenEnv's, which calls `step`."""
    owner = next((one for one in cls.__mro__ if "step_async" in vars(one)), None)
    return owner is not None and not owner.__module__.startswith("openenv.core.")
