"""The DSPy proposer: a signature that asks for a better text, given the best and the worst episode.

DSPy writes the prompt and reads the answer; the calls go through the lab's own model, which counts them.
"""

from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.llm.client import Message, Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Briefing, Rated
from lab.proposers.proposal import ProposalRefusedError, rules
from lab.proposers.writing import Texts, Write, ask

if TYPE_CHECKING:
    from dspy import lm15

SHOWN_TEXTS = 2


def make_write(model: Model, sampling: SamplingParams) -> Write:
    """A function that writes one text with DSPy; importing it takes about 2 s."""
    import dspy

    class Rewrite(dspy.Signature):  # type: ignore[misc]
        """Write a better system text for an agent, so that its episodes earn more."""

        objective: str = dspy.InputField()
        texts_so_far: str = dspy.InputField(desc="with what they earned, best first")
        best_episode: str = dspy.InputField(desc="what the agent did when it earned most")
        worst_episode: str = dspy.InputField(desc="what it did when it earned least")
        rules: str = dspy.InputField()
        system: str = dspy.OutputField(desc="the new system text, whole, ready to be used")

    lm = dspy.LM("lab", engine=_NoEngine(), async_engine=_Engine(model, sampling), cache=False, num_retries=0)
    predict = dspy.Predict(Rewrite)

    async def write(briefing: Briefing, parent: Rated, _: int) -> Texts:
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
            try:
                answer = await predict.acall(
                    objective=briefing.objective,
                    texts_so_far=_texts(briefing, parent),
                    best_episode=briefing.shown(parent.best),
                    worst_episode=briefing.shown(parent.worst),
                    rules=f"{rules(parent.template.system)} Write the text itself, without a comment.",
                )
            except Exception as error:  # DSPy wraps its engine's exceptions
                raise _own(error) from error
        return str(answer.system or ""), parent.template.turn

    return write


def _texts(briefing: Briefing, parent: Rated) -> str:
    others = [rated for rated in briefing.texts[:SHOWN_TEXTS] if rated is not parent]
    parts = [f"[{rated.earned}]\n{rated.template.system.strip()}" for rated in others]
    return "\n\n".join([f"[to be improved: {parent.earned}]\n{parent.template.system.strip()}", *parts])


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

        completion = await ask(self._model, _messages(request), self._sampling)
        usage = lm15.Usage(input_tokens=completion.prompt_tokens, output_tokens=completion.completion_tokens)
        message = lm15.Message.assistant(completion.text or " ")
        return lm15.Response(None, request.model, message, "stop", usage)


class _NoEngine:
    """The synchronous engine that DSPy requires; it is never used."""

    def complete(self, request: "lm15.Request") -> "lm15.Response":
        raise NotImplementedError(f"{request.model} is asked asynchronously")


def _messages(request: "lm15.Request") -> list[Message]:
    system = [Message("system", _text(request.system))] if request.system else []
    roles: dict[str, Any] = {
        "user": "user",
        "assistant": "assistant",
        "system": "system",
        "developer": "system",
    }
    return [*system, *(Message(roles[message.role], _text(message.parts)) for message in request.messages)]


def _text(parts: Any) -> str:  # noqa: ANN401
    return parts if isinstance(parts, str) else "".join(getattr(part, "text", "") for part in parts)
