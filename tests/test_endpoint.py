"""The endpoint's client: failures of calls are distinguished, and retried if that can help."""

import asyncio
import base64
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import (
    BusyError,
    CallError,
    ConfigError,
    EndpointError,
    LabError,
    NoKeyError,
    RequestError,
    SlowError,
    UnreachableError,
)
from lab.llm.client import Completion, Endpoint, EndpointConfig, Message
from lab.llm.failures import retry_after_s
from lab.llm.response import MOST_BYTES, Answer, read_answer
from lab.llm.sampling import SamplingParams
from lab.llm.settings import ModelChoice, hosted_endpoint
from lab.llm.throttle import APART_S, Patience, Throttle
from tests.fake_endpoint import Body, Reply, fake_endpoint

KEY = "canary-key-0123456789"
ONCE = Patience(timeout_s=30.0, attempts=1)


def ask(url: str, patience: Patience = ONCE, times: int = 1) -> list[Completion | LabError]:
    """The outcomes of sequential calls of one client."""

    async def main() -> list[Completion | LabError]:
        outcomes = list[Completion | LabError]()
        async with Endpoint(EndpointConfig(url, "tuned", KEY, patience)) as endpoint:
            for _ in range(times):
                try:
                    outcomes.append(await endpoint.complete([Message("user", "hello")], SamplingParams()))
                except LabError as error:
                    outcomes.append(error)
        return outcomes

    return asyncio.run(main())


def ask_at_once(url: str, times: int) -> None:
    """Concurrent calls of one client."""

    async def main() -> None:
        async with Endpoint(EndpointConfig(url, "tuned", KEY)) as endpoint:
            calls = (endpoint.complete([Message("user", "hello")], SamplingParams()) for _ in range(times))
            await asyncio.gather(*calls)

    asyncio.run(main())


def failure(url: str, patience: Patience = ONCE) -> LabError:
    (outcome,) = ask(url, patience)
    assert isinstance(outcome, LabError)
    return outcome


def body(**message: object) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


TOO_LONG = Reply(status=400, code="context_length_exceeded", message="maximum context length is 8 tokens")
FILTERED = Reply(status=400, code="content_filter", message="the response was filtered")
WITHHELD = json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}).encode()
TOLD = {
    "wrong key": (Reply(status=401), EndpointError, "The endpoint refused the key."),
    "no permission": (Reply(status=403), EndpointError, "The endpoint refused the key."),
    "unknown model": (Reply(status=404), EndpointError, "The endpoint does not have 'tuned'."),
    "model is none of theirs": (
        Reply(status=400, code="model_not_supported", message="The requested model is not supported"),
        EndpointError,
        "The endpoint does not have 'tuned'.",
    ),
    "gateway timeout": (Reply(status=504), EndpointError, "did not answer in time"),
    "no money": (Reply(status=429, code="insufficient_quota"), EndpointError, "quota is used up"),
    "context": (TOO_LONG, RequestError, "do not fit into the model's context"),
    "filter": (FILTERED, RequestError, "content filter refused"),
    "withheld": (Reply(body=WITHHELD), RequestError, "content filter withheld"),
    "bad request": (Reply(status=400), RequestError, "The endpoint refused the request."),
    "busy": (Reply(status=429), EndpointError, "The endpoint is busy."),
    "down": (Reply(status=503), EndpointError, "The endpoint is busy."),
    "broken": (Reply(status=500), EndpointError, "The endpoint failed."),
    "no choices": (Reply(body=b'{"choices": []}'), CallError, "has no choices"),
    "no message": (Reply(body=b'{"choices": [{"finish_reason": "stop"}]}'), CallError, "has no text"),
    "content null of an error": (
        Reply(body=b'{"choices": [{"finish_reason": "error", "message": {"content": null}}]}'),
        CallError,
        "is an error",
    ),
    "no JSON": (Reply(body=b'{"choices": ['), CallError, "is not JSON"),
    "a page": (Reply(body=b"<html>busy</html>"), CallError, "is not JSON"),
    "cut short": (Reply(sent=0.5), EndpointError, "connection to the endpoint was lost"),
    "error cut short": (Reply(status=502, sent=0.5), EndpointError, "connection to the endpoint was lost"),
    "dropped": (Reply(sent=-1), EndpointError, "connection to the endpoint was lost"),
    "10 MB": (Reply("x" * 10_000_000), CallError, "too long"),
}


@pytest.mark.parametrize(("reply", "kind", "told"), TOLD.values(), ids=TOLD)
def test_failures_are_distinguished(reply: Reply, kind: type[LabError], told: str) -> None:
    with fake_endpoint(lambda _: reply) as endpoint:
        error = failure(endpoint.url, Patience(attempts=1, whole_s=0.1))
    assert isinstance(error, kind)
    assert told in error.what
    assert len(str(error).splitlines()) <= 4


def test_the_message_for_an_unknown_model_lists_the_known_ones() -> None:
    with fake_endpoint(lambda _: Reply(status=404)) as endpoint:
        assert "set MODEL_NAME to one of: big, small" in str(failure(endpoint.url))


@pytest.mark.parametrize("status", [401, 400, 500])
def test_an_endpoint_that_repeats_the_key_does_not_make_it_known(status: int) -> None:
    with fake_endpoint(lambda _: Reply(status=status, message=f"wrong: {KEY}")) as endpoint:
        error = failure(endpoint.url)
    assert "wrong: [key]" in str(error)
    assert KEY not in f"{error!r} {error} {error.__cause__!r}"


@contextmanager
def listener(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server: `behave` handles each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    behave(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        server.shutdown(socket.SHUT_RDWR)


def hang(connection: socket.socket) -> None:
    connection.settimeout(5)
    while connection.recv(65536):
        pass


def drip(connection: socket.socket) -> None:
    """An answer that never ends, one byte at a time, so that no single read times out."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    try:
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.05)
    except OSError:
        pass


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """A self-signed server certificate for this host name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / f"{name}.pem"
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize(("name", "trusted"), [("localhost", False), ("elsewhere", True)])
def test_a_certificate_that_is_not_trusted_or_another_hosts_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    context = certificate(tmp_path, name)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / f"{name}.pem"))

    def behave(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(65536)

    with listener(behave) as url:
        error = failure(url.replace("http://127.0.0.1", "https://localhost"), Patience(attempts=10))
    assert isinstance(error, EndpointError)
    assert "certificate is not trusted" in error.what
    assert "SSL_CERT_FILE" in error.do


@pytest.mark.parametrize("behave", [hang, drip])
def test_a_hang_ends_after_the_time_of_an_attempt(behave: Callable[[socket.socket], None]) -> None:
    with listener(behave) as url:
        error = failure(url, Patience(timeout_s=0.3, attempts=1))
    assert "did not answer in time" in error.what
    assert "no answer within 0.3 s; [model] timeout_s = 0.3 can be raised" in error.why


def reset(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def speak_another_tongue(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"220 mail.example.com ESMTP\r\n")


def answer_in_latin_1(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 500 D\xe9j\xe0 vu\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("behave", [reset, speak_another_tongue, answer_in_latin_1])
def test_a_server_that_answers_with_no_http_broke_off(behave: Callable[[socket.socket], None]) -> None:
    with listener(behave) as url:
        assert "connection to the endpoint was lost" in failure(url, Patience(attempts=1, whole_s=0.1)).what


def answered(connection: socket.socket, heads: list[bytes]) -> None:
    """One call, on a connection that the server then closes without notice."""
    head, _, rest = connection.recv(65536).partition(b"\r\n\r\n")
    heads.append(head)
    if not rest:
        connection.recv(65536)
    text = body(content="fine")
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


def test_a_connection_that_was_closed_while_idle_costs_no_attempt() -> None:
    async def main(url: str) -> list[int]:
        async with Endpoint(EndpointConfig(url, "tuned", KEY, ONCE)) as endpoint:
            attempts = []
            for _ in range(3):
                done = await endpoint.complete([Message("user", "hello")], SamplingParams())
                attempts.append(done.attempts)
                await asyncio.sleep(0.1)
        return attempts

    with listener(lambda connection: answered(connection, [])) as url:
        assert asyncio.run(main(url)) == [1, 1, 1]


def test_a_user_and_a_password_in_the_address_go_in_place_of_the_key() -> None:
    heads = list[bytes]()
    with listener(lambda connection: answered(connection, heads)) as url:
        ask(url.replace("http://", "http://me:p%40ss@"), ONCE)
        ask(url, ONCE)
    assert b"\r\nauthorization: Basic " + base64.b64encode(b"me:p@ss") in heads[0]
    assert KEY.encode() not in heads[0]
    assert f"\r\nauthorization: Bearer {KEY}".encode() in heads[1]


def test_an_invalid_address_is_a_separate_error_at_once() -> None:
    patience = Patience(attempts=10)
    error = failure("http://no-such-host.invalid/v1", patience)
    assert isinstance(error, UnreachableError)
    assert "cannot be resolved" in error.what
    assert "cannot be resolved" in failure("http://api..example.invalid/v1", patience).what
    assert "no server is listening" in failure("http://127.0.0.1:9/v1", patience).what
    with listener(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        assert "does not speak TLS" in failure(url.replace("http:", "https:"), patience).what
    with listener(reset) as url:
        assert "cannot be reached" in failure(url.replace("http:", "https:"), patience).what


def test_a_socks_proxy_is_refused_if_it_would_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ConfigError, match="SOCKS"):
        ask("https://api.example.invalid/v1", ONCE)
    with fake_endpoint() as endpoint:
        assert isinstance(ask(endpoint.url, ONCE)[0], Completion)


def test_a_key_is_stripped_of_its_line_end_and_refused_with_invalid_characters() -> None:
    model = ModelChoice("https://api.example.invalid/v1", "big")
    here = {"API_BASE_URL": model.endpoint}
    assert hosted_endpoint(model, {**here, "HF_TOKEN": " hf_key\r\n"}).api_key == "hf_key"
    assert hosted_endpoint(model, {**here, "HF_TOKEN": "", "API_KEY": "sk-key"}).api_key == "sk-key"
    for bad in ("hf\x00key", "hf key\r\nHost: elsewhere", "schl\u00fcssel"):
        with pytest.raises(NoKeyError, match="invalid characters") as told:
            hosted_endpoint(model, {**here, "HF_TOKEN": bad})
        assert bad not in str(told.value)


def test_a_failed_attempt_is_made_again_and_counted() -> None:
    replies = iter([Reply(status=500), Reply(sent=0.5), Reply("at last")])
    with fake_endpoint(lambda _: next(replies)) as endpoint:
        (outcome,) = ask(endpoint.url, Patience())
    assert isinstance(outcome, Completion)
    assert (outcome.text, outcome.attempts) == ("at last", 3)


@pytest.mark.parametrize("status", [401, 404, 413])
def test_an_error_that_no_retry_can_solve_is_requested_once(status: int) -> None:
    with fake_endpoint(lambda _: Reply(status=status)) as endpoint:
        failure(endpoint.url, Patience(attempts=5))
    assert len(endpoint.requests) == 1


def test_after_a_refusal_without_a_reason_plainer_requests_are_tried_but_not_for_each_call() -> None:
    with fake_endpoint(lambda _: Reply(status=400)) as endpoint:
        outcomes = ask(endpoint.url, Patience(attempts=5), times=5)
    assert all(isinstance(outcome, RequestError) for outcome in outcomes)
    assert ["temperature" in body for body in endpoint.requests[:2]] == [True, False]
    assert len(endpoint.requests) == 5 + 2


def test_attempts_are_limited_but_not_by_an_endpoint_that_is_busy() -> None:
    with fake_endpoint(lambda _: Reply(status=500)) as endpoint:
        assert "did not answer any of 2 attempts" in failure(endpoint.url, Patience(attempts=2)).what
    assert len(endpoint.requests) == 2
    busy = [Reply(status=429)] * 3
    with fake_endpoint(lambda _: busy.pop() if busy else Reply()) as endpoint:
        (outcome,) = ask(endpoint.url, Patience(attempts=1))
    assert isinstance(outcome, Completion)
    assert outcome.attempts == 4


def test_concurrent_calls_start_apart() -> None:
    asked = list[float]()

    def script(_: Body) -> Reply:
        asked.append(time.monotonic())
        return Reply()

    with fake_endpoint(script) as endpoint:
        ask_at_once(endpoint.url, 100)
    assert max(asked) - min(asked) > 99 * APART_S / 2  # half of it, because the server adds delays


def test_calls_that_waited_for_the_first_with_their_parameters_go_on_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the first call of an endpoint is alone; 7 others wait for it, and then for each other."""
    monkeypatch.setattr("lab.llm.learning.ALONE_S", 600.0)
    numbers, others = itertools.count(), threading.Barrier(7, timeout=60)

    def script(_: Body) -> Reply:
        if next(numbers):
            others.wait()
        else:
            time.sleep(0.2)
        return Reply()

    with fake_endpoint(script) as endpoint:
        ask_at_once(endpoint.url, 8)
        assert len(endpoint.requests) == 8


def test_retry_after_is_obeyed_by_all_calls() -> None:
    asked, lock = list[float](), threading.Lock()

    def script(_: Body) -> Reply:
        with lock:
            asked.append(time.monotonic())
            return Reply(status=429, headers={"Retry-After": "2"}) if len(asked) == 1 else Reply()

    async def main(url: str) -> None:
        async with Endpoint(EndpointConfig(url, "tuned", KEY)) as endpoint:
            failed = asyncio.Event()
            endpoint.throttle.on_failure = lambda _: failed.set()
            first = asyncio.create_task(endpoint.complete([Message("user", "1")], SamplingParams()))
            await failed.wait()
            await endpoint.complete([Message("user", "2")], SamplingParams())
            await first

    with fake_endpoint(script) as endpoint:
        asyncio.run(main(endpoint.url))
    assert len(asked) == 3
    assert min(asked[1:]) - asked[0] >= 1.9


def test_a_server_that_comes_back_is_waited_for_once_it_has_answered() -> None:
    """A refused connection ends a study at its start, and is waited for later."""

    async def main() -> tuple[Completion, Completion]:
        with fake_endpoint(lambda _: Reply(headers={"Connection": "close"})) as endpoint:
            client = Endpoint(EndpointConfig(endpoint.url, "tuned", KEY))
            before = await client.complete([Message("user", "1")], SamplingParams())
        failed = asyncio.Event()
        client.throttle.on_failure = lambda _: failed.set()
        after = asyncio.create_task(client.complete([Message("user", "2")], SamplingParams()))
        await failed.wait()
        async with client:
            with fake_endpoint(port=endpoint.port):
                return before, await after

    before, after = asyncio.run(main())
    assert before.attempts == 1
    assert after.attempts > 1


@pytest.mark.parametrize("pushed_back", [BusyError("It is busy."), SlowError("It is slow.")])
def test_calls_at_once_fall_when_the_endpoint_pushes_back_and_grow_again(
    monkeypatch: pytest.MonkeyPatch, pushed_back: CallError
) -> None:
    """24 concurrent callers; the endpoint accepts 4 at once, and any number from the 400th call on."""
    monkeypatch.setattr("lab.llm.throttle.FIRST_WAIT_S", 0.1)
    monkeypatch.setattr("lab.llm.throttle.FALLS_APART_S", 0.2)
    held, now, all_there = list[int](), 0, asyncio.Event()

    async def attempt(_: float) -> int:
        nonlocal now
        now += 1
        held.append(now)
        over = now > 4 and len(held) < 400
        if len(held) == 24:
            all_there.set()
        await all_there.wait()
        await asyncio.sleep(0.05)
        now -= 1
        if over:
            raise pushed_back
        return 1

    async def worker(throttle: Throttle) -> None:
        while len(held) < 1200:
            await throttle.make(attempt, lambda tokens: tokens)

    async def main() -> None:
        throttle = Throttle(Patience(attempts=1000))
        await asyncio.gather(*(worker(throttle) for _ in range(24)))

    asyncio.run(main())
    assert max(held[:24]) == 24
    assert max(held[300:400]) <= 12
    assert max(held[1100:]) >= 20


@pytest.mark.parametrize(
    ("needs_s", "expected_s"),
    [
        ([0.25, 0.25, 0.25], [[0.1, 0.2, 0.4], [0.4], [0.4]]),
        ([9.0, 0.02], [[0.1, 0.2, 0.4, 0.8], [0.1]]),
    ],
)
def test_a_retry_after_a_timeout_has_longer_and_so_have_later_calls_of_a_model_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, needs_s: list[float], expected_s: list[list[float]]
) -> None:
    """Calls one after the other; of a call that is answered by no attempt, nothing is learnt."""
    monkeypatch.setattr("lab.llm.throttle.FIRST_WAIT_S", 0.0)
    throttle, allowed_s = Throttle(Patience(timeout_s=0.1, attempts=4)), list[list[float]]()

    async def call(need_s: float) -> None:
        allowed_s.append([])

        async def attempt(timeout_s: float) -> int:
            allowed_s[-1].append(timeout_s)
            await asyncio.sleep(min(need_s, timeout_s))
            if need_s > timeout_s:
                raise SlowError("It is slow.")
            return 1

        with suppress(EndpointError):
            await throttle.make(attempt, lambda tokens: tokens)

    async def main() -> None:
        for need_s in needs_s:
            await call(need_s)

    asyncio.run(main())
    assert allowed_s == expected_s


@pytest.mark.parametrize(
    ("patience", "least_s"),
    [
        (Patience(requests_per_minute=600), 1.9),
        (Patience(tokens_per_minute=60_000), 1.5),
    ],
)
def test_a_minute_has_no_more_requests_or_tokens_than_allowed(patience: Patience, least_s: float) -> None:
    """20 calls of 100 tokens at 10 requests or 1,000 tokens per second."""

    async def answer(_: float) -> int:
        return 100

    async def main() -> float:
        throttle = Throttle(patience)
        began_s = time.monotonic()
        await asyncio.gather(*(throttle.make(answer, lambda tokens: tokens) for _ in range(20)))
        return time.monotonic() - began_s

    assert asyncio.run(main()) >= least_s


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("7", 7.0), ("0.5", 0.5), ("", 0.0), ("soon", 0.0), ("-3", 0.0), ("nan", 0.0), ("inf", 0.0)],
)
def test_retry_after_in_seconds(header: str, wait_s: float) -> None:
    assert retry_after_s({"retry-after": header}, 0.0) == wait_s


def test_retry_after_as_a_date() -> None:
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 20.0) == 40.0


@given(st.text())
def test_any_retry_after_is_a_wait(header: str) -> None:
    assert retry_after_s({"retry-after": header}, 0.0) >= 0


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "usage", "text", "finish_reason", "prompt_tokens"]
            ),
            inner,
        )
    ),
)


@given(st.binary() | PARTS.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_an_answer_or_says_why_not(data: bytes) -> None:
    try:
        answer = read_answer(data, "here")
    except CallError:
        pass
    else:
        answer.text.encode()
        assert answer.prompt_tokens >= 0


@given(st.text(alphabet=st.characters(codec=None, categories=["L", "Cs", "Cc", "So"])), st.integers(0, 10**6))
def test_a_text_arrives_unchanged_except_for_unencodable_characters(text: str, tokens: int) -> None:
    table = {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": tokens}}
    clean = text.encode("utf-8", "replace").decode()
    assert read_answer(json.dumps(table).encode(), "here") == Answer(clean, "", tokens, 0)


def test_the_parts_of_a_content_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "image"}, {"type": "text", "text": "two"}]
    assert read_answer(body(content=parts), "here").text == "one two"


def test_the_longest_answer_is_far_longer_than_any_task_asks_for() -> None:
    with fake_endpoint(lambda _: Reply("x" * (MOST_BYTES // 2))) as endpoint:
        (outcome,) = ask(endpoint.url, Patience(timeout_s=30, attempts=1))
    assert isinstance(outcome, Completion)
    assert len(outcome.text) == MOST_BYTES // 2
