"""The wire format: the supported part of OpenAI's chat completions API.

It owns the form of requests, answers and errors; it leaves HTTP to `server`, sampling to `engine`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

_HARMLESS: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "stream": (False,),
    "stream_options": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}
"""Unsupported parameters of the API, each with the values that have no effect."""


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


StopString = Annotated[str, Field(min_length=1)]


class ApiError(Exception):
    """A request that gets an error response.

    Args:
        status: HTTP status.
        message: Message for people.
        param: Name of the invalid parameter.
        code: Code for programs.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class ChatMessage(BaseModel):
    """One message of a request: text only."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str
    name: str | None = None


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`; a parameter that is null counts as absent."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    """The newer name of `max_tokens`; it takes precedence."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[StopString], BeforeValidator(_as_list), Field(max_length=4)] = []
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    user: str | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_done(cls, body: object) -> object:
        if not isinstance(body, dict):
            return body
        given = {name: value for name, value in body.items() if value is not None}
        for name in given.keys() & _HARMLESS.keys():
            if given.pop(name) not in _HARMLESS[name]:
                message = f"This server does not support `{name}`: it returns one plain text."
                raise ApiError(400, message, param=name, code="unsupported_parameter")
        return given


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer, and its tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length"]


def read_request(body: bytes, served: str) -> ChatRequest:
    """Parse a request body, for the model of the name `served`.

    Raises:
        ApiError: 400 for a malformed body or an unsupported parameter, 404 for another model.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _api_error(error) from error
    if request.model != served:
        raise no_such_model(request.model, served)
    return request


def no_such_model(name: str, served: str) -> ApiError:
    """The error for an unknown model."""
    message = f"The model `{name}` does not exist here. This server has one: {served}."
    return ApiError(404, message, param="model", code="model_not_found")


def model_entry(name: str) -> dict[str, Any]:
    """An entry of `GET /v1/models`."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "local"}


def response(completion: Completion, *, model: str, request_id: str, created_s: int) -> dict[str, Any]:
    """The body that answers a chat request; `created_s` in seconds since 1970."""
    message = {"role": "assistant", "content": completion.text, "refusal": None}
    prompt, answered = completion.prompt_tokens, completion.completion_tokens
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": created_s,
        "model": model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answered, "total_tokens": prompt + answered},
    }


def _api_error(error: ValidationError) -> ApiError:
    """The first error in a body, for people, and the parameter's name, such as `messages[0].content`."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    param = path.lstrip(".") or None
    match first["type"]:
        case "json_invalid":
            return ApiError(400, f"The body is not valid JSON: {first['ctx']['error']}.", code="invalid_json")
        case "extra_forbidden":
            message = f"Unrecognized request argument supplied: {param}."
            return ApiError(400, message, param=param, code="unknown_parameter")
        case _:
            message = f"{param or 'The body'}: {first['msg']}."
            return ApiError(400, message, param=param, code="invalid_value")
