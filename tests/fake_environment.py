"""A scripted OpenEnv server on loopback, for behaviour that our environments do not have."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

Say = Callable[[dict[str, Any], ServerConnection], str | None]
"""The frame that answers a request; None for no answer."""


MESSAGE = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
"""The schema of the echo environment's action."""


def observation(text: object = "ready", reward: object = 0.0, done: object = False) -> str:
    """A frame in the format of OpenEnv's server."""
    data = {"observation": {"echoed_message": text}, "reward": reward, "done": done}
    return json.dumps({"type": "observation", "data": data})


@contextmanager
def fake_environment(say: Say, action: object = MESSAGE) -> Iterator[str]:
    """Serve `say`, and `action` as the schema of actions, on a free loopback port; yields the base URL."""

    def answer(connection: ServerConnection) -> None:
        for frame in connection:
            reply = say(json.loads(frame), connection)
            if reply is not None:
                connection.send(reply)

    def schema(connection: ServerConnection, request: Request) -> Response | None:
        if request.path != "/schema":
            return None
        response = connection.respond(200, json.dumps({"action": action}))
        response.headers["Content-Type"] = "application/json"
        return response

    with serve(answer, "127.0.0.1", 0, process_request=schema) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
