"""A scripted OpenAI-compatible endpoint on loopback, for faults and timing on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Reply:
    """An answer of the endpoint: a completion of `text`, or an error with `status`.

    Attributes:
        message, code: Message and code of the error.
        body: Bytes sent instead of either.
        times: Number of times that `body` is repeated.
        delay_s: Seconds before the answer.
        sent: Share of the body that is sent before the connection is closed; below 0, not even a status.
    """

    text: str | None = "a fine answer"
    status: int = 200
    prompt_tokens: int = 10
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    code: str | None = None
    body: bytes | None = None
    times: int = 1
    sent: float = 1.0
    delay_s: float = 0.0


MODELS = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in ("big", "small")]
"""Models that the endpoint lists at `/models`."""

Script = Callable[[Body], Reply]


@dataclass
class FakeEndpoint:
    """A running endpoint: its URL, its requests, and its maximum of concurrent requests.

    Attributes:
        models: The answer to `/models`.
        paths: The path of each request, with its query.
        heads: The headers of each request, with names in lower case.
    """

    url: str
    script: Script
    models: Reply
    paths: list[str] = field(default_factory=list)
    requests: list[Body] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    most_at_once: int = 0
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        """URL of the endpoint."""
        return int(self.url.split(":")[2].split("/")[0])

    def answer(self, data: bytes) -> tuple[Body, Reply]:
        """Record a request, and run the script on it."""
        body: Body = json.loads(data)
        with self._lock:
            self.raw.append(data)
            self.requests.append(body)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        try:
            return body, self.script(body)
        finally:
            with self._lock:
                self._open -= 1


@contextmanager
def fake_endpoint(
    script: Script = lambda _: Reply(),
    port: int = 0,
    models: Reply | None = None,
    route: Callable[[str], Reply | None] = lambda _: None,
) -> Iterator[FakeEndpoint]:
    """Serve `script` on a loopback port, by default a free one, during the block.

    Args:
        route: Gives the answer to a request for a path; None leaves it to the script.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are sent apart: the body would wait 40 ms

        def do_POST(self) -> None:
            endpoint.heads.append({name.lower(): value for name, value in self.headers.items()})
            data = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.paths.append(self.path)
            refused = route(self.path)
            body, reply = (json.loads(data), refused) if refused else endpoint.answer(data)
            self._send(
                reply, json.dumps(_payload(body, reply)).encode() if reply.body is None else reply.body
            )

        def do_GET(self) -> None:
            listed = json.dumps({"object": "list", "data": MODELS}).encode()
            answer = route(self.path) or endpoint.models
            self._send(answer, answer.body or listed)

        def _send(self, reply: Reply, data: bytes) -> None:
            time.sleep(reply.delay_s)
            self.close_connection = reply.sent < 1
            if reply.sent < 0:
                return
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(data) * reply.times)}
            headers |= reply.headers
            for header in headers.items():
                self.send_header(*header)
            self.end_headers()
            for _ in range(reply.times):
                self.wfile.write(data[: round(len(data) * reply.sent)])

        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (OSError, ValueError):  # the client gave up in the middle, as some tests make it
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    endpoint = FakeEndpoint(f"http://127.0.0.1:{server.server_port}/v1", script, models or Reply())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def _payload(body: Body, reply: Reply) -> Body:
    if reply.status != 200:
        told = reply.message or f"scripted {reply.status}"
        return {"error": {"message": told, "type": "scripted", "code": reply.code}}
    message = {"role": "assistant", "content": reply.text}
    return {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", ""),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": 5,
            "total_tokens": reply.prompt_tokens + 5,
        },
    }
