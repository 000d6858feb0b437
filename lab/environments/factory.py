"""A factory of instances of the declared environment, checked before the first call.

It owns what counts as an environment: a declaration can name any installed code, and code that is not an
environment may end the process or delete files.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_type_hints

from lab.environments.foreign import ForeignError, foreign
from lab.errors import ConfigError, EnvError

METHODS = ("reset", "step", "close")
"""Methods of every environment."""

_DO = "name an OpenEnv Environment class, or a function without arguments that returns an instance"


def factory(make: object, python: str) -> Callable[[], Any]:
    """A function that creates instances of the environment, or raises EnvError or ConfigError.

    Args:
        make: The environment's class, or a function that returns an instance.
        python: The declaration's import path.

    Raises:
        ConfigError: It does not create an environment; it was not called.
    """
    why = _mistake(make)
    if why or not callable(make):
        raise _no_environment(python, why)

    def new() -> Any:  # noqa: ANN401  # an OpenEnv Environment
        try:
            with foreign():
                made = make()
        except ForeignError as error:
            what = "The environment could not be created."
            raise EnvError(what, where=python, why=str(error)) from error
        if not _is_environment(made):
            raise _no_environment(python, f"it returned {type(made).__name__}")
        return made

    return new


def _mistake(make: object) -> str:
    """Return why `make` cannot create an environment; empty if no reason shows before it is called."""
    if not callable(make):
        return f"it is {type(make).__name__}"
    if inspect.isclass(make):
        lacking = [name for name in METHODS if not callable(getattr(make, name, None))]
        return f"the class has no {lacking[0]}" if lacking else ""
    while isinstance(make, functools.partial):
        make = make.func
    make = inspect.unwrap(make)
    owner = getattr(make, "__module__", None) or type(make).__module__
    if inspect.isbuiltin(make) or str(owner).partition(".")[0] in {"builtins", *sys.stdlib_module_names}:
        return "it is part of Python itself"
    with suppress(Exception):  # an annotation may name something that does not exist at run time
        returned = get_type_hints(make).get("return")
        if inspect.isclass(returned) and returned is not object and not _is_environment(returned):
            return f"it returns {returned.__name__}"
    return ""


def _is_environment(one: object) -> bool:
    return all(callable(getattr(one, name, None)) for name in METHODS)


def _no_environment(python: str, why: str) -> ConfigError:
    return ConfigError("environment.python does not name an environment.", where=python, why=why, do=_DO)
