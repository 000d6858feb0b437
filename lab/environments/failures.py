"""Failures of an environment's server, told apart: what a person does about each is different."""

from lab.errors import EnvError

_REACHABLE = "check ENV_BASE_URL, and that the server is up"


class UnpublishedError(EnvError):
    """A server that does not say what its actions are: a `parse` hook has to know."""


class RefusedError(EnvError):
    """A server that does not know us: it wants a token, or another one."""


def failure(error: Exception, where: str) -> EnvError:
    """Translate an exception of OpenEnv or its transport into an EnvError."""
    text = str(error) or f"no answer ({type(error).__name__})"
    if isinstance(error, TimeoutError):
        do = "check the server's log: it is up, but busy"
        return EnvError("The environment did not answer in time.", where=where, why=text, do=do)
    if isinstance(error, ConnectionError | OSError):
        return EnvError("The environment cannot be reached.", where=where, why=text, do=_REACHABLE)
    return failed(text, where)


def failed(why: str, where: str) -> EnvError:
    """The error of a reset or a step that failed, in the server's words."""
    if "coroutine" in why:  # Python's words for a coroutine that is used as its result
        what = "The environment's reset or step is async, and its server calls it as a plain function."
        do = "rename it to reset_async or step_async, which OpenEnv's server awaits"
        return EnvError(what, where=where, why=why, do=do)
    return EnvError("The environment failed.", where=where, why=why)


def wants_token(text: str, where: str, space: str) -> RefusedError:
    """The error of a server that does not know us; `space` is `owner/name`, if it is a Space's."""
    do = 'set [environment] headers, such as { Authorization = "env:MY_TOKEN" }'
    if space:
        do = f"set HF_TOKEN to a token that may read {space}, and check the Space's name"
    return RefusedError("The environment's server wants a token.", where=where, why=text, do=do)


def refused_by(status: int, text: str, where: str, space: str = "") -> EnvError | None:
    """The error of a server that answers, but not for us; None if it does.

    Args:
        text: Status and answer, in the server's words.
        space: `owner/name`, if it is a Space's server.
    """
    if status in (401, 403):
        return wants_token(text, where, space)
    if status in (502, 503, 504):
        wake = (
            f"open https://huggingface.co/spaces/{space}, which wakes it," if space else "start it, or wait"
        )
        what, do = "The environment's server is asleep, or still starting.", f"{wake} until it answers"
        return EnvError(what, where=where, why=text, do=do)
    return failed(text, where) if status >= 500 else None


def no_environment(where: str, why: str) -> EnvError:
    """The error of a server that answers, and is something else."""
    what = "The server answers, but it is not an OpenEnv environment."
    return EnvError(what, where=where, why=why, do="use the server's root URL, without /web or /docs")


def older_protocol(where: str) -> UnpublishedError:
    """The error of a server that does not publish its actions, as OpenEnv 0.1.0 did not."""
    what = "The server speaks an older protocol of OpenEnv, which does not publish its actions."
    do = "rebuild it with openenv 0.2 or later, or add a parse hook, which knows them"
    return UnpublishedError(what, where=where, why="there is no /schema", do=do)


def no_schema(why: str, where: str) -> UnpublishedError:
    """The error of a server whose action schema cannot be used."""
    do = "check that it is an OpenEnv server, or add a parse hook, which needs no schema"
    return UnpublishedError("The server publishes no usable action schema.", where=where, why=why, do=do)


def no_episodes(why: str, where: str) -> EnvError:
    """The error of an OpenEnv server whose WebSocket is refused: its HTTP has an environment a request."""
    what, do = "The environment's WebSocket cannot be reached.", "let /ws through to the server"
    return EnvError(what, where=f"{where}/ws", why=f"{why}; OpenEnv's own HTTP has no episodes", do=do)
