"""The GEPA proposer: the library's reflective proposal, on episodes instead of single answers.

Agrawal et al., "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", arXiv 2507.19457,
section 3. GEPA writes the reflection prompt and reads the answer; the calls go through the lab's own model.
"""

from collections.abc import Mapping, Sequence

from lab.agent.episode import Episode
from lab.llm.client import Message, Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Briefing, Rated
from lab.proposers.proposal import rules
from lab.proposers.writing import PARENTS, Texts, Write, ask
from lab.stats.format import number

Part = str
"""`system` or `turn`: a component, in GEPA's terms."""

Record = dict[str, str]


def make_write(model: Model, sampling: SamplingParams) -> Write:
    """A function that writes one text with GEPA's instruction proposal."""
    import gepa.strategies.instruction_proposal  # noqa: F401  # in this thread: it takes 0.2 s

    async def write(briefing: Briefing, parent: Rated, place: int) -> Texts:
        part = ("system", "turn")[place // PARENTS % 2]  # GEPA's round-robin, after one pass over the parents
        text = str(getattr(parent.template, part))
        dataset = EpisodeAdapter(briefing).make_reflective_dataset({part: text}, parent, [part])
        found = await reflect(model, sampling, text, dataset[part], rules(text))
        if part == "system":
            return found, parent.template.turn
        return parent.template.system, found

    return write


async def reflect(
    model: Model, sampling: SamplingParams, text: str, records: Sequence[Record], kept: str
) -> str:
    """A text that the model writes in place of `text`, with GEPA's reflection on `records`.

    Args:
        kept: What the new text must keep, as an instruction.

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
    completion = await ask(model, [Message("user", str(prompt))], sampling)
    return Signature.output_extractor(completion.text.strip())["new_instruction"]


class EpisodeAdapter:
    """The part of `gepa.core.adapter.GEPAAdapter` that a proposal needs: episodes as reflective data."""

    def __init__(self, briefing: Briefing) -> None:
        self._briefing = briefing

    def make_reflective_dataset(
        self, candidate: Mapping[Part, str], played: Rated, components_to_update: Sequence[Part]
    ) -> Mapping[Part, Sequence[Record]]:
        """The best and the worst episode of a text, each with its value as feedback."""
        records = [
            self._record("the best episode", played.best),
            self._record("the worst episode", played.worst),
        ]
        return {part: records for part in components_to_update if part in candidate}

    def _record(self, which: str, episode: Episode) -> Record:
        briefing, best = self._briefing, self._briefing.texts[0]
        earned = number(briefing.value_of(episode))
        return {
            "Inputs": briefing.objective,
            "Generated Outputs": briefing.shown(episode),
            "Feedback": f"This is {which}: {earned}. The best text so far: {best.earned}.",
        }
