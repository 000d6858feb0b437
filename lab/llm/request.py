"""The Request: what is asked of a model, and its body in an endpoint's dialect.

It owns the body's exact form. Which dialect an endpoint has is `lab.llm.learning`'s.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

from lab.llm.dialect import ROLES, SYSTEM, Dialect
from lab.llm.sampling import SamplingParams

ACTION = "action"
"""Name of the schema, or of the tool whose arguments have it."""

BYTES_A_TOKEN = 4
"""Bytes of text per token, for estimates if an endpoint does not report tokens."""


@dataclass(frozen=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """One call's messages, sampling parameters, and the JSON Schema of its answer; empty for none."""

    messages: Sequence[Message]
    sampling: SamplingParams
    schema: str = ""

    def body(self, dialect: Dialect) -> dict[str, object]:
        """The body, without the model and neutral settings: not all endpoints know them."""
        body: dict[str, object] = {"messages": [vars(one) for one in _shaped(self.messages, dialect)]}
        for name, value in self.sampling.sent.items():
            if name not in dialect.omit:
                key = dialect.token_limit if name == "max_tokens" else name.removeprefix("extra.")
                body[key] = value
        return body | self._form(dialect)

    def _form(self, dialect: Dialect) -> dict[str, object]:
        if not self.schema or dialect.schema == "none":
            return {}
        schema: Any = json.loads(self.schema)
        if dialect.schema == "response_format":
            json_schema = {"name": ACTION, "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": json_schema}}
        function = {"name": ACTION, "parameters": schema}
        choice = {"type": "function", "function": {"name": ACTION}}
        return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}

    def features(self, dialect: Dialect) -> frozenset[str]:
        """What an endpoint might refuse of the request: see `lab.llm.dialect.SYSTEM`."""
        sent = {name for name in self.sampling.sent if name not in dialect.omit}
        if "max_tokens" in sent:
            sent = sent - {"max_tokens"} | {dialect.token_limit}
        roles = [message.role for message in _shaped(self.messages, dialect)]
        if SYSTEM in roles:
            sent.add(SYSTEM)
        if any(one == other for one, other in pairwise(roles)):
            sent.add(ROLES)
        if self.schema and dialect.schema != "none":
            sent.add(dialect.schema)
        return frozenset(sent)

    @property
    def estimated_tokens(self) -> int:
        """The prompt's tokens, estimated from its length."""
        return sum(estimate(message.content) for message in self.messages)


def estimate(text: str) -> int:
    """The tokens of `text`, estimated from its length."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN)


def _shaped(messages: Sequence[Message], dialect: Dialect) -> Iterator[Message]:
    """The messages, with system text where the dialect has it, and alternating roles if it requires them."""
    if dialect.system == "user":
        head = "\n\n".join(message.content for message in messages if message.role == "system")
        messages = [message for message in messages if message.role != "system"]
        if head and messages and messages[0].role == "user":
            messages = [Message("user", f"{head}\n\n{messages[0].content}"), *messages[1:]]
        elif head:
            messages = [Message("user", head), *messages]
    if not dialect.alternate:
        yield from messages
        return
    for role, together in groupby(messages, key=lambda message: message.role):
        yield Message(role, "\n\n".join(message.content for message in together))
