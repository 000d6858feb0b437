"""A separate process for one program that nobody has reviewed: `humaneval.py` runs this file.

It reads a job (JSON) from its input, and writes the job's token and the result (JSON) to its output. It owns
the limits: CPU, memory, no files, no network, no further process, nothing but the standard library. They stop
accidents and thoughtless harm. They are no sandbox: a program that sets out to break them will.
"""

import ast
import json
import os
import resource
import sys
import sysconfig
from collections.abc import Callable
from types import CodeType
from typing import Any

CPU_S = 2
MEMORY = 512 * 1024 * 1024
WHY = 200
"""Characters of a reason."""

LIBRARY = os.path.realpath(sysconfig.get_path("stdlib"))
REFUSED = ("ctypes.", "fcntl.", "os.", "pty.", "shutil.", "signal.", "socket.", "subprocess.", "syslog.")
ALLOWED = ("os.listdir", "os.scandir")
"""Python's own import system asks for these."""


class Asserted:
    """The assertions of a test: how many there were, how many held, and why the first other did not."""

    def __init__(self) -> None:
        self.asserted, self.held, self.why = 0, 0, ""

    def __call__(self, holds: Callable[[], Any], source: str) -> None:
        """Try one; it must not end the test."""
        try:
            if holds():
                self.asserted += 1
                self.held += 1
            else:
                self.fail(f"This does not hold: {source}")
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}, in {source}")

    def fail(self, why: str) -> None:
        """Count one that did not hold."""
        self.asserted += 1
        self.why = self.why or why[:WHY]


class Counted(ast.NodeTransformer):
    """Makes every `assert` of a test a call of `_asserted`; one of a constant says nothing and is dropped."""

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        """Replace one."""
        if isinstance(node.test, ast.Constant):
            return ast.copy_location(ast.Pass(), node)
        call = ast.parse("_asserted(lambda: None, '')", mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.args[0], ast.Lambda)
        call.args[0].body = node.test
        call.args[1] = ast.Constant(ast.unparse(node.test))
        return ast.copy_location(ast.Expr(call), node)


def limit() -> None:
    """Take from this process what a function on numbers and words does not need."""
    limits = {resource.RLIMIT_CPU: CPU_S, resource.RLIMIT_AS: MEMORY, resource.RLIMIT_FSIZE: 0}
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(refuse)


def refuse(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: raise where a program reaches out of its process."""
    if event == "open" and not readable(args):
        raise PermissionError("files are out of reach here")
    if event.startswith(REFUSED) and event not in ALLOWED:
        raise PermissionError(f"{event} is out of reach here")


def readable(args: tuple[Any, ...]) -> bool:
    """Whether an opened file is one of Python's own, and only read."""
    path, _, flags = args
    written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    return isinstance(path, str) and not written and os.path.realpath(path).startswith(LIBRARY)


def main() -> None:
    """Run the job."""
    job = json.load(sys.stdin)
    out, nowhere, asserted = os.dup(1), os.open(os.devnull, os.O_WRONLY), Asserted()
    os.dup2(nowhere, 1)  # what a program prints is nobody's business, however much it is
    tests = ast.fix_missing_locations(Counted().visit(ast.parse(job["test"])))
    names: dict[str, Any] = {"__name__": "program", "_asserted": asserted}
    limit()
    try:
        exec(program(job["readings"]), names)
        exec(compile(tests, "test", "exec"), names)
        names["check"](names[job["name"]])
    except BaseException as error:  # SystemExit and KeyboardInterrupt are no ways out either
        asserted.fail(f"{type(error).__name__}: {error}")
    said = {"held": asserted.held, "asserted": asserted.asserted, "why": asserted.why or "Solved."}
    os.write(out, f"{job['token']}{json.dumps(said)}".encode())


def program(readings: list[str]) -> CodeType:
    """The first reading that is Python."""
    for reading in readings:
        try:
            return compile(reading, "program", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            found = error
    raise found


if __name__ == "__main__":
    main()
