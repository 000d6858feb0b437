"""The batching engine: owns the model, and steps it for as long as any request is unfinished.

Requests join the running batch as they arrive. It leaves HTTP to `server`, the form of requests to `wire`.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import openvino_genai as genai
from openvino import Tensor

from lab.local_model.weights import CACHE_GB
from lab.local_model.wire import ApiError, ChatMessage, ChatRequest, Completion

_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")
"""Tokens that end an answer beside the one that the file names: a base model's end of text, for instance."""

_DEFAULT_MAX_TOKENS = 512
# Measured with 32 chats in flight: 512 or 1024 against 256 made about 5 % more tokens/s, 1024 with
# longer steps; half floats against the 8-bit default 9 % more, for twice the memory; prefix caching 12 %.
_MAX_BATCHED_TOKENS = 512
_PROPERTIES = {"KV_CACHE_PRECISION": "f16"}
_GREEDY_BELOW = 1e-3  # a smaller divisor of the logits is greedy decoding, with overflows
_SEED_RANGE = 2**64
# `step()` holds the GIL, so a separate thread would starve the server: the engine shares the event loop, and
# lets it run often enough between two steps to take a request from socket to batch. A load
# of 160 steps took 180 with 1 turn, 164 with 8, 164 with 30.
_LOOP_TURNS_PER_STEP = 8


class _Handle(Protocol):
    """A `GenerationHandle`, which `openvino_genai` does not export."""

    def get_status(self) -> Any: ...  # noqa: ANN401
    def can_read(self) -> bool: ...
    def read(self) -> dict[int, Any]: ...
    def stop(self) -> None: ...
    def cancel(self) -> None: ...


class _Request:
    """A request in the batch: reads the tokens of each step, and handles its stop strings.

    The pipeline's own stop strings drop or keep whole tokens, so that text before the stop string may be
    lost, or text after it stay.
    """

    def __init__(
        self, handle: _Handle, prompt_tokens: int, decode: Callable[[list[int]], str], stop: Sequence[str]
    ) -> None:
        self.answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._handle, self._prompt_tokens, self._decode, self._stop = handle, prompt_tokens, decode, stop
        self._token_ids: list[int] = []
        # A token is at least one byte; one more on each side for a token that straddles the string's end.
        self._stop_tokens = max((len(string.encode()) for string in stop), default=0) + 2

    def advance(self) -> bool:
        """Read the last step's tokens; returns whether the request is complete."""
        if self.answer.done():
            return True
        at_limit, stopped = False, False
        while self._handle.can_read() and not stopped:
            for output in self._handle.read().values():
                self._token_ids += output.generated_ids
                at_limit = output.finish_reason == genai.GenerationFinishReason.LENGTH
            stopped = self._has_stopped()
        status = self._handle.get_status()
        if status == genai.GenerationStatus.RUNNING and not stopped:
            return False
        if stopped or status == genai.GenerationStatus.FINISHED:
            self._finish("length" if at_limit and not stopped else "stop")
        else:
            self.leave(f"the request ended as {status.name}")
        return True

    def leave(self, why: str) -> None:
        """Leave the batch; a call that still waits gets the error."""
        self._handle.cancel()
        if not self.answer.done():
            self.answer.set_exception(ApiError(500, f"The embedded model failed: {why}."))

    def _has_stopped(self) -> bool:
        tail = self._decode(self._token_ids[-self._stop_tokens :]) if self._stop else ""
        return any(string in tail for string in self._stop)

    def _finish(self, reason: Literal["stop", "length"]) -> None:
        text = self._decode(self._token_ids)
        end = min((at for string in self._stop if (at := text.find(string)) >= 0), default=None)
        self._handle.stop()
        self.answer.set_result(Completion(text[:end], self._prompt_tokens, len(self._token_ids), reason))


class Engine:
    """The model on this machine's CPU, with batching of concurrent requests.

    All calls belong to one event loop. Loading takes about 5 s and may run in another thread.

    Args:
        context_tokens: Maximum length of prompt and answer together.
    """

    def __init__(self, weights: Path, context_tokens: int) -> None:
        self._pipeline = genai.ContinuousBatchingPipeline(str(weights), _scheduler(), "CPU", _PROPERTIES)
        self._tokenizer = self._pipeline.get_tokenizer()
        self._context_tokens = context_tokens
        self._end_ids = self._ends()
        self._ids = itertools.count()
        self._running: list[_Request] = []
        self._stepping: asyncio.Task[None] | None = None

    async def complete(self, chat: ChatRequest) -> Completion:
        """Answer a chat. Cancelling the call drops the request from the batch.

        Raises:
            ApiError: Messages and answer do not fit, or the model failed.
        """
        prompt = self._encode(chat.messages)
        prompt_tokens = int(prompt.shape[1])
        max_tokens = self._fitting(prompt_tokens, chat.max_completion_tokens or chat.max_tokens)
        handle = self._pipeline.add_request(next(self._ids), prompt, self._generation(chat, max_tokens))
        request = _Request(handle, prompt_tokens, self._decode, chat.stop)
        self._running.append(request)
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._step_while_busy())
        try:
            return await request.answer
        except asyncio.CancelledError:
            request.leave("no call is waiting")
            raise

    def _encode(self, messages: Sequence[ChatMessage]) -> Tensor:
        history = [{"role": message.role, "content": message.content} for message in messages]
        prompt = self._tokenizer.apply_chat_template(history, add_generation_prompt=True)
        # The template wrote the special tokens already.
        return self._tokenizer.encode(prompt, add_special_tokens=False).input_ids

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))

    def _ends(self) -> set[int]:
        texts = [self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0] for text in _ENDS]
        return {self._tokenizer.get_eos_token_id(), *(int(ids[0]) for ids in texts if len(ids) == 1)}

    def _fitting(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """The answer's limit in tokens; the default is what the context leaves, up to a cap."""
        room = self._context_tokens - prompt_tokens
        wanted = max(1, min(_DEFAULT_MAX_TOKENS, room)) if max_tokens is None else max_tokens
        if wanted > room:
            message = (
                f"This model's maximum context length is {self._context_tokens} tokens. However, you "
                f"requested {prompt_tokens + wanted} tokens ({prompt_tokens} in the messages, {wanted} in "
                "the completion). Please reduce the length of the messages or completion."
            )
            raise ApiError(400, message, param="messages", code="context_length_exceeded")
        return wanted

    def _generation(self, chat: ChatRequest, max_tokens: int) -> genai.GenerationConfig:
        config = genai.GenerationConfig()
        config.max_new_tokens = max_tokens
        config.set_eos_token_id(self._tokenizer.get_eos_token_id())
        config.stop_token_ids = self._end_ids
        config.presence_penalty = chat.presence_penalty
        config.frequency_penalty = chat.frequency_penalty
        if chat.temperature >= _GREEDY_BELOW and chat.top_p > 0:
            config.do_sample = True
            config.temperature = chat.temperature
            config.top_p = chat.top_p
            # The pipeline's default seed is constant, which would make replicates identical.
            config.rng_seed = secrets.randbits(64) if chat.seed is None else chat.seed % _SEED_RANGE
        return config

    async def _step_while_busy(self) -> None:
        try:
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
                self._running = [request for request in self._running if not request.advance()]
                for _ in range(_LOOP_TURNS_PER_STEP):
                    await asyncio.sleep(0)
        except Exception as error:  # every waiting call must get the error
            requests, self._running = self._running, []
            for request in requests:
                request.leave(str(error))


def _scheduler() -> genai.SchedulerConfig:
    config = genai.SchedulerConfig()
    config.cache_size = CACHE_GB
    config.enable_prefix_caching = True
    config.max_num_batched_tokens = _MAX_BATCHED_TOKENS
    return config
