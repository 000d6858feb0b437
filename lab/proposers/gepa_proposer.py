"""The GEPA proposer: the library's reflective proposal, on episodes instead of single answers.

Agrawal et al., "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", arXiv 2507.19457,
section 3. GEPA writes the reflection prompt and reads the answer; the calls go through the lab's own model.
"""

from collections.abc import Sequence

from lab.agent.episode import Episode
from lab.llm.client import Message, Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import LONG, Briefing, clipped
from lab.proposers.writing import Assignment, Write, ask
from lab.stats.format import number

Record = dict[str, str]


def make_write(model: Model, sampling: SamplingParams) -> Write:
    """A function that writes one text with GEPA's instruction proposal."""
    import gepa.strategies.instruction_proposal  # noqa: F401  # in this thread: it takes 0.2 s

    async def write(order: Assignment) -> str:
        last = bool(order.refused)
        return await reflect(model, sampling, order.text, _records(order), order.rules, last=last)

    return write


async def reflect(
    model: Model,
    sampling: SamplingParams,
    text: str,
    records: Sequence[Record],
    kept: str,
    *,
    last: bool = False,
) -> str:
    """A text that the model writes in place of `text`, with GEPA's reflection on `records`.

    Args:
        kept: What the new text must keep, as an instruction.
        last: Whether no other try follows; see `ask`.

    Raises:
        CallError, EndpointError, ProposalRefusedError: As `ask`.
    """
    from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature

    prompt = Signature.prompt_renderer(
        {
            "current_instruction_doc": text,
            "dataset_with_feedback": records,
            "prompt_template": f"{Signature.default_prompt_template}\n\n{kept}",
        }
    )
    completion = await ask(model, [Message("user", str(prompt))], sampling, last=last)
    answer = completion.text.strip()
    closed = f"{answer}\n```" if answer.count("```") % 2 else answer  # it was cut off within the fence
    return Signature.output_extractor(closed)["new_instruction"]


def _records(order: Assignment) -> list[Record]:
    """An assignment's episodes with feedback, as GEPA's reflective dataset."""
    parent, partner = order.parent, order.partner
    troubles = f" Of all answers with this text, {parent.troubles}." if parent.troubles else ""
    shown = [("the best episode", parent.best, ""), ("the worst episode", parent.worst, troubles)]
    if parent.beside is not None:
        shown.append(("another text's episode on the worst one's instance", parent.beside, ""))
    if partner is not None:
        text = clipped(str(getattr(partner.template, order.part)), LONG)
        strengths = f" Its instructions, whose strengths yours should keep too: {text}"
        shown.append(("the best episode of another text", partner.best, strengths))
    return [_record(order.briefing, *one) for one in shown]


def _record(briefing: Briefing, which: str, episode: Episode, note: str) -> Record:
    earned, best = number(briefing.value_of(episode)), briefing.texts[0]
    return {
        "Inputs": briefing.objective,
        "Generated Outputs": briefing.shown(episode),
        "Feedback": f"This is {which}: {earned}. The best text so far: {best.earned}.{note}",
    }
