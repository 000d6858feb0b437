"""The DSPy proposer: a signature that asks for a better text, given the best and the worst episode.

DSPy writes the prompt and reads the answer; the calls go through the lab's own model, which counts them.
"""

from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.llm.client import Message, Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Rated
from lab.proposers.proposal import ProposalRefusedError
from lab.proposers.writing import AGAIN, Assignment, Write, ask

if TYPE_CHECKING:
    from dspy import lm15

SHOWN_TEXTS = 2


def make_write(model: Model, sampling: SamplingParams) -> Write:
    """A function that writes one text with DSPy; importing it takes about 2 s."""
    import dspy

    class Rewrite(dspy.Signature):  # type: ignore[misc]
        """Write a better text for an agent, in the place of the one to be improved, so that it earns more."""

        objective: str = dspy.InputField()
        texts_so_far: str = dspy.InputField(desc="with what they earned, best first")
        best_episode: str = dspy.InputField(desc="what the agent did when it earned most")
        worst_episode: str = dspy.InputField(desc="what it did when it earned least, and a better one beside")
        rules: str = dspy.InputField()
        text: str = dspy.OutputField(desc="the new text, whole, ready to be used")

    lm = dspy.LM("lab", engine=_NoEngine(), async_engine=_Engine(model, sampling), cache=False, num_retries=0)
    predict = dspy.Predict(Rewrite)

    async def write(order: Assignment) -> str:
        parent, shown = order.parent, order.briefing.shown
        beside = f"\nanother text here:\n{shown(parent.beside)}" if parent.beside else ""
        troubles = f"\nof all answers, {parent.troubles}" if parent.troubles else ""
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
            try:
                answer = await predict.acall(
                    objective=order.briefing.objective,
                    texts_so_far=_texts(order),
                    best_episode=shown(parent.best),
                    worst_episode=shown(parent.worst) + beside + troubles,
                    rules=f"{order.rules} Write the text itself, without a comment.",
                )
            except Exception as error:  # DSPy wraps its engine's exceptions
                raise _own(error) from error
        return str(answer.text or "")

    return write


def _texts(order: Assignment) -> str:
    def shown(rated: Rated) -> str:
        return str(getattr(rated.template, order.part)).strip()

    parent, partner = order.parent, order.partner
    others = [rated for rated in order.briefing.texts[:SHOWN_TEXTS] if rated not in (parent, partner)]
    parts = [f"[to be improved: {parent.earned}]\n{shown(parent)}"]
    if partner is not None:
        parts.append(f"[to be merged with it: {partner.earned}]\n{shown(partner)}")
    return "\n\n".join([*parts, *(f"[{rated.earned}]\n{shown(rated)}" for rated in others)])


def _own(error: BaseException) -> LabError:
    """The LabError that DSPy's exception wraps, or a refusal if DSPy could not read the answer."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LabError):
            return cause
        cause = cause.__cause__ or cause.__context__
    why = f"{type(error).__name__}: {error}"[:300]
    return ProposalRefusedError("A proposal could not be read.", where="dspy", why=why)


class _Engine:
    """DSPy's interface to the lab's model."""

    def __init__(self, model: Model, sampling: SamplingParams) -> None:
        self._model, self._sampling = model, sampling

    async def complete(self, request: "lm15.Request") -> "lm15.Response":
        from dspy import lm15

        messages = _messages(request)
        last = AGAIN in messages[-1].content
        completion = await ask(self._model, messages, self._sampling, last=last)
        usage = lm15.Usage(input_tokens=completion.prompt_tokens, output_tokens=completion.completion_tokens)
        message = lm15.Message.assistant(completion.text or " ")
        return lm15.Response(None, request.model, message, "stop", usage)


class _NoEngine:
    """The synchronous engine that DSPy requires; it is never used."""

    def complete(self, request: "lm15.Request") -> "lm15.Response":
        raise NotImplementedError(f"{request.model} is asked asynchronously")


def _messages(request: "lm15.Request") -> list[Message]:
    system = [Message("system", _text(request.system))] if request.system else []
    roles: dict[str, Any] = {"user": "user", "assistant": "assistant", "developer": "system"}
    return [*system, *(Message(roles[message.role], _text(message.parts)) for message in request.messages)]


def _text(parts: Any) -> str:  # noqa: ANN401
    return parts if isinstance(parts, str) else "".join(getattr(part, "text", "") for part in parts)
