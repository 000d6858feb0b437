"""Recorded: a model whose calls are kept, and looked up where they were made before."""

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
from lab.storage.record import CallKey, Record


class Recorded:
    """The model as one asker sees it: an episode, or the proposer.

    The same request may be asked more than once, for several answers: the first time here is the first time
    there. Two askers never share an answer.
    """

    def __init__(self, model: Model, record: Record, scope: str) -> None:
        self._model, self._record, self._scope = model, record, scope
        self._kept = record.calls_of(scope)
        self._asked = Counter[str]()

    async def complete(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str = ""
    ) -> Completion:
        """The recorded answer, or the model's, kept before it is given; see `Endpoint.complete`.

        Raises:
            LabError: also where the answer cannot be kept.
        """
        request = _request(messages, sampling, schema)
        digest = hashlib.sha256(request.encode()).hexdigest()
        key = CallKey(self._scope, digest, self._asked[digest])
        self._asked[digest] += 1
        kept = self._kept.pop(key, None)
        if kept is not None:
            return kept
        completion = await self._model.complete(messages, sampling, schema)
        await self._record.keep_call(key, request, completion)
        return completion


@dataclass(frozen=True)
class Nothing:
    """A model and an environment that are not there: nothing can be asked or played.

    Attributes:
        error: makes the reason, which is raised.
    """

    error: Callable[[], LabError]

    async def complete(
        self,
        messages: Sequence[Message],  # noqa: ARG002
        sampling: SamplingParams,  # noqa: ARG002
        schema: str = "",  # noqa: ARG002
    ) -> Completion:
        """Never an answer.

        Raises:
            LabError: always.
        """
        raise self.error()

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Never a session.

        Raises:
            LabError: always.
        """
        raise self.error()


def _request(messages: Sequence[Message], sampling: SamplingParams, schema: str) -> str:
    asked: dict[str, object] = {
        "messages": [vars(message) for message in messages],
        "sampling": sampling.as_table(),
    }
    if schema:
        asked["schema"] = schema
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))
