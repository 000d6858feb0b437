"""Recorded: a model whose calls are stored, and looked up instead of repeated."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from lab.environments.environment import Session
from lab.errors import LabError
from lab.llm.client import Completion, Message, Model
from lab.llm.sampling import SamplingParams
from lab.storage.keys import CallKey
from lab.storage.record import Record


class Recorded:
    """The model with the recorded calls of one scope: an episode, or the proposer.

    A request that is repeated within a scope has an answer for each occurrence. Two scopes never share an
    answer.

    Args:
        name: Name of the model in the space, if it is not the baseline's.
        on_answer: Called at each answer, recorded or new.
    """

    def __init__(
        self,
        model: Model,
        record: Record,
        scope: str,
        name: str = "",
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self._model, self._record, self._scope, self._name = model, record, scope, name
        self._on_answer = on_answer
        self._kept = record.calls_of(scope)
        self._asked = Counter[str]()

    async def complete(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str = ""
    ) -> Completion:
        """The recorded answer, or the model's, stored before it is returned; see `Endpoint.complete`.

        Raises:
            LabError: The call failed, or its answer cannot be stored.
        """
        request = _request(messages, sampling, schema)
        digest = hashlib.sha256(request.encode()).hexdigest()
        key = CallKey(self._scope, digest, self._asked[digest])
        self._asked[digest] += 1
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._on_answer()
            return kept
        completion = await self._model.complete(messages, sampling, schema)
        self._on_answer()
        if await self._record.keep_call(key, request, completion, self._name):
            return completion
        self._kept = self._record.calls_of(self._scope)  # another worker plays the same episode
        return self._kept.pop(key, completion)


@dataclass(frozen=True)
class Nothing:
    """Stands for a model and an environment that must not be used: every use raises the error."""

    error: Callable[[], LabError]

    async def complete(self, *_: object, **__: object) -> Completion:
        """Refuse the call."""
        raise self.error()

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Refuse to open a session."""
        raise self.error()


def _request(messages: Sequence[Message], sampling: SamplingParams, schema: str) -> str:
    asked = {"messages": [vars(message) for message in messages], "sampling": sampling.as_table()}
    asked |= {"schema": schema} if schema else {}
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))
