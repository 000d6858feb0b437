"""The GEPA proposer: the library's reflective proposal, on episodes instead of single answers.

Agrawal et al., "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", arXiv 2507.19457,
section 3. GEPA writes the reflection prompt and reads the answer; the calls go through the lab's own model.
"""

from collections.abc import Mapping, Sequence

from lab.agent.episode import Episode
from lab.llm.client import Message, Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import LONG, Briefing, Part, Rated, clipped
from lab.proposers.writing import Assignment, Write, ask
from lab.stats.format import number

Record = dict[str, str]


def make_write(model: Model, sampling: SamplingParams) -> Write:
    """A function that writes one text with GEPA's instruction proposal."""
    import gepa.strategies.instruction_proposal  # noqa: F401  # in this thread: it takes 0.2 s

    async def write(order: Assignment) -> str:
        part = order.part
        adapter = EpisodeAdapter(order.briefing)
        records = [*adapter.make_reflective_dataset({part: order.text}, order.parent, [part])[part]]
        if order.partner is not None:
            records += adapter.records_of_partner(order.partner, part)
        return await reflect(model, sampling, order.text, records, order.rules, last=bool(order.refused))

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


class EpisodeAdapter:
    """The part of `gepa.core.adapter.GEPAAdapter` that a proposal needs: episodes as reflective data."""

    def __init__(self, briefing: Briefing) -> None:
        self._briefing = briefing

    def make_reflective_dataset(
        self, candidate: Mapping[Part, str], played: Rated, components_to_update: Sequence[Part]
    ) -> Mapping[Part, Sequence[Record]]:
        """The best and the worst episode of a text, and a better one beside the worst, with feedback."""
        records = [
            self._record("the best episode", played.best),
            self._record("the worst episode", played.worst, played.troubles),
        ]
        if played.beside is not None:
            records.append(self._record("another text's episode on the worst one's instance", played.beside))
        return {part: records for part in components_to_update if part in candidate}

    def records_of_partner(self, partner: Rated, part: Part) -> list[Record]:
        """The text to merge with, and its best episode."""
        record = self._record("the best episode of another text", partner.best)
        text = str(getattr(partner.template, part))
        record["Feedback"] += (
            f" Its instructions, whose strengths yours should keep too: {clipped(text, LONG)}"
        )
        return [record]

    def _record(self, which: str, episode: Episode, troubles: str = "") -> Record:
        briefing, best = self._briefing, self._briefing.texts[0]
        earned = number(briefing.value_of(episode))
        words = f" Of all answers with this text, {troubles}." if troubles else ""
        return {
            "Inputs": briefing.objective,
            "Generated Outputs": briefing.shown(episode),
            "Feedback": f"This is {which}: {earned}. The best text so far: {best.earned}.{words}",
        }
