"""Declared code: an environment's class, and the hooks `render`, `parse` and `score`.

It owns the import of a project's files, which must be inside the project's root, and what counts as an
environment: a declaration can name any installed code, and code that is not an environment may end the
process or delete files.
"""

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any, get_type_hints

from lab.environments.action import Parse
from lab.environments.config import EnvironmentConfig, within
from lab.environments.foreign import ForeignError, foreign, raised
from lab.environments.observation import View
from lab.errors import ConfigError, EnvError

METHODS = ("reset", "step", "close")
"""Methods of every environment."""

_importing = RLock()
"""Two threads that import the same file must not see a partial module."""


def load_hooks(config: EnvironmentConfig, root: Path) -> tuple[View, Parse | None]:
    """How a declaration's observations are shown and scored, and the hook that parses answers, if any.

    Raises:
        ConfigError: The file is missing or outside the project, fails, or defines no hook.
    """
    module = _run(within(root, config.hooks), "environment.hooks") if config.hooks else None
    render, parse, score = (getattr(module, name, None) for name in ("render", "parse", "score"))
    if module and not any(map(callable, (render, parse, score))):
        do = "define render(observation), parse(text, schema) or score(observations, rewards)"
        raise ConfigError("The hooks define none of render, parse, score.", where=config.hooks, do=do)
    return View(config.text, config.longest, render, config.error, score), parse


def load_named(config: EnvironmentConfig, root: Path) -> Any:  # noqa: ANN401  # a class or a function
    """The object named by a declaration's `python`.

    Raises:
        ConfigError: It does not exist, or its module fails.
    """
    where, _, name = config.python.rpartition(":")
    if config.python_file:
        module = _run(within(root, where), "environment.python")
    else:
        module = _module(where, config.python)
    try:
        return getattr(module, name)
    except AttributeError:
        known = ", ".join(known for known, value in vars(module).items() if isinstance(value, type))
        what = f"{where} has no {name!r}."
        raise ConfigError(what, where="environment.python", do=f"use one of its classes: {known}") from None
    except BaseException as error:  # of a module that imports on demand
        raise _failed(config.python, "environment.python", error) from error


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
    do = "name an OpenEnv Environment class, or a function without arguments that returns an instance"
    return ConfigError("environment.python does not name an environment.", where=python, why=why, do=do)


def _module(name: str, declared: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        do = f"install the package that provides it (missing: {error.name})"
        what = f"The environment {declared!r} is not installed."
        raise ConfigError(what, where="environment.python", why=str(error), do=do) from error
    except BaseException as error:  # of foreign code, which may call sys.exit
        raise _failed(declared, "environment.python", error) from error


def _run(path: Path, where: str) -> ModuleType:
    """The module of a file, registered so that its annotations can be resolved; run once per process."""
    name = f"declared_{path.stem}_{abs(hash(path))}"
    with _importing:
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            do = "name a file that ends in .py"
            raise ConfigError("This is not a Python file.", where=str(path), do=do)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:  # of the project's own code, which may call sys.exit
            del sys.modules[name]
            raise _failed(str(path), where, error) from error
        return module


def _failed(what: str, where: str, error: BaseException) -> ConfigError:
    return ConfigError(f"{what} cannot be imported.", where=where, why=raised(error))
