"""A Relay: an endpoint on loopback that hands requests on to the real one, as an evaluator's proxy does.

It has a separate key and records how it was called. The real endpoint gets the real key, whatever the
caller sent.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from lab.llm.client import EndpointConfig

if TYPE_CHECKING:
    from email.message import Message

    import httpx

TIMEOUT_S = 600.0
"""Maximum seconds that the real endpoint may take for an answer; the caller may have given up before."""

_RETURNED = ("content-type", "retry-after")


@dataclass
class Relay:
    """A running relay, and its calls so far.

    Attributes:
        url: Its base URL, ending in `/v1`.
        key: The key that it expects.
        calls: Number of requests with a body.
        answered: Number of calls that the real endpoint answered with status 200.
        other_keys: Number of calls with another key, or none.
        other_clients: User agents of calls that the OpenAI client did not make.
    """

    url: str = ""
    key: str = field(default_factory=lambda: f"injected-{secrets.token_hex(16)}", repr=False)
    calls: int = 0
    answered: int = 0
    other_keys: int = 0
    other_clients: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, headers: "Message", *, answered: bool) -> None:
        """Count a call with these headers."""
        client = headers.get("User-Agent", "no user agent")
        with self._lock:
            self.calls += 1
            self.answered += answered
            self.other_keys += headers.get("Authorization") != f"Bearer {self.key}"
            if "openai" not in client.lower() and "X-Stainless-Lang" not in headers:
                self.other_clients.add(client)


@contextmanager
def relaying(target: EndpointConfig) -> Iterator[Relay]:
    """Relay requests to `target` on a free port of this machine while the context is open."""
    import httpx

    relay = Relay()
    with httpx.Client(timeout=TIMEOUT_S, headers={"Authorization": f"Bearer {target.api_key}"}) as client:
        handler = partial(_Handler, relay, client, target.base_url)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        relay.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, name="relay", daemon=True).start()
        try:
            yield relay
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are sent apart: the body would wait 40 ms

    def __init__(self, relay: Relay, client: "httpx.Client", base_url: str, *request: Any) -> None:  # noqa: ANN401  # the server's
        self._relay, self._client, self._base_url = relay, client, base_url
        super().__init__(*request)  # handles the requests of a connection

    def do_GET(self) -> None:
        self._send("GET", b"")

    def do_POST(self) -> None:
        self._send("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _send(self, method: str, body: bytes) -> None:
        import httpx

        kind = {"Content-Type": self.headers.get("Content-Type", "application/json")}
        try:
            answer = self._client.request(method, _at(self._base_url, self.path), content=body, headers=kind)
            status, data, headers = answer.status_code, answer.content, answer.headers
        except httpx.HTTPError as error:
            status, data, headers = 502, f"{type(error).__name__}: {error}".encode(), httpx.Headers()
        if method == "POST":
            self._relay.note(self.headers, answered=status == 200)
        self.send_response(status)
        for name in _RETURNED:
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one_request(self) -> None:
        """As inherited; a caller that has gone away is no error."""
        try:
            super().handle_one_request()
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _at(base_url: str, path: str) -> str:
    """The real address of a path below `/v1`; the base URL may have a separate query."""
    base, asked = urlsplit(base_url), urlsplit(path)
    below = base.path.rstrip("/") + asked.path.removeprefix("/v1")
    return urlunsplit((base.scheme, base.netloc, below, asked.query or base.query, ""))
