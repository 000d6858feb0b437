"""Errors of an environment's server, each with its own remedy."""

from lab.errors import EnvError


class UnpublishedError(EnvError):
    """The server does not publish its actions: a `parse` hook is needed."""


class RefusedError(EnvError):
    """The server requires a token, or a different one."""


def failure(error: Exception, where: str) -> EnvError:
    """Translate an exception of OpenEnv or its transport into an EnvError."""
    text = str(error) or f"no answer ({type(error).__name__})"
    if isinstance(error, TimeoutError):
        do = "check the server's log: it is up, but busy"
        return EnvError("The environment did not answer in time.", where=where, why=text, do=do)
    if isinstance(error, OSError):
        do = "check ENV_BASE_URL, and that the server is up"
        return EnvError("The environment cannot be reached.", where=where, why=text, do=do)
    return failed(text, where)


def failed(why: str, where: str) -> EnvError:
    """The error of a reset or a step that failed, in the server's own words."""
    if "coroutine" in why:  # Python's words for a coroutine that is used as its result
        what = "The environment's reset or step is async, and its server calls it as a plain function."
        do = "rename it to reset_async or step_async, which OpenEnv's server awaits"
        return EnvError(what, where=where, why=why, do=do)
    return EnvError("The environment failed.", where=where, why=why)


def wants_token(text: str, where: str, space: str) -> RefusedError:
    """The error of a server that requires a token; `space` is `owner/name`, if it is a Space's."""
    do = 'set [environment] headers, such as { Authorization = "env:MY_TOKEN" }'
    if space:
        do = f"set HF_TOKEN to a token that may read {space}, and check the Space's name"
    return RefusedError("The environment's server requires a token.", where=where, why=text, do=do)


def refused_by(status: int, text: str, where: str, space: str = "") -> EnvError | None:
    """The error of a server that answers, but does not serve the request; None if it does.

    Args:
        text: Status and answer, in the server's own words.
        space: `owner/name`, if it is the server of a Space.
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
    """The error of a server that answers, but is not an environment."""
    what = "The server answers, but it is not an OpenEnv environment."
    return EnvError(what, where=where, why=why, do="use the server's root URL, without /web or /docs")


def older_protocol(where: str) -> UnpublishedError:
    """The error of a server that does not publish its actions, as OpenEnv 0.1.0 did not."""
    what = "The server speaks an older protocol of OpenEnv, which does not publish its actions."
    do = "rebuild it with openenv 0.2 or later, or add a parse hook"
    return UnpublishedError(what, where=where, why="there is no /schema", do=do)


def no_schema(why: str, where: str) -> UnpublishedError:
    """The error of a server whose action schema cannot be used."""
    do = "check that it is an OpenEnv server, or add a parse hook, which needs no schema"
    return UnpublishedError("The server publishes no usable action schema.", where=where, why=why, do=do)


def no_grader(why: str, where: str) -> EnvError:
    """The error of a task whose score is the grader's, where the environment has no grader."""
    do = "set task.score to another place of the score, or to an aggregate of the rewards"
    return EnvError("The environment's grader cannot be called.", where=where, why=why, do=do)


def no_episodes(why: str, where: str) -> EnvError:
    """The error of an OpenEnv server whose WebSocket is refused: its HTTP has no episodes."""
    what, do = "The environment's WebSocket cannot be reached.", "let /ws through to the server"
    return EnvError(what, where=f"{where}/ws", why=f"{why}; OpenEnv has no episodes over HTTP", do=do)
