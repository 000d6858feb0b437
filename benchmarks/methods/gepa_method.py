"""GEPA (arXiv 2507.19457) by `gepa.optimize`: system and turn text evolve by reflection on transcripts.

Set up as in the library's guide to adapters: an adapter that plays episodes and shows the transcripts, with
all defaults (Pareto selection, minibatches of 3, round-robin over the components). The guide asks for the
smallest representative validation set: 10 seeds, which leaves room for a few accepted candidates at 400
calls; the minibatches come from 20 others. Rewards have no known maximum, so no minibatch is skipped as
perfect. Numbers stay the baseline's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gepa.api import optimize
from gepa.core.adapter import EvaluationBatch, ProposalFn

from benchmarks.ground import Ground
from benchmarks.methods.texts import transcript, try_texts, with_texts
from benchmarks.methods.trials import Best
from lab.errors import ConfigError

VALIDATION, TRAINING = 10, 20

Texts = dict[str, str]
Batch = EvaluationBatch[str, str]


def run(ground: Ground) -> None:
    """Evolve until the calls are used up."""
    template = ground.experiment.baseline.template
    optimize(
        seed_candidate={"system": template.system, "turn": template.turn},
        trainset=list(ground.seeds[VALIDATION : VALIDATION + TRAINING]),
        valset=list(ground.seeds[:VALIDATION]),
        adapter=_Adapter(ground),
        reflection_lm=lambda prompt: ground.ask(_text(prompt)),
        # In episodes; reflections cost calls as well, so the ground's limit is reached first.
        max_metric_calls=ground.budget_calls,
        skip_perfect_score=False,
        callbacks=[Picks(Best(ground), "gepa")],  # type: ignore[list-item]  # the protocol's methods are all optional
        logger=Silent(),
        seed=ground.seed,
    )


@dataclass
class Picks:
    """Picks GEPA's best candidate: the highest mean on the validation seeds."""

    best: Best
    name: str

    def on_valset_evaluated(self, event: Mapping[str, Any]) -> None:
        """Update the pick when a candidate was accepted, or is the first one."""
        texts, score = event["candidate"], event["average_score"]
        candidate = try_texts(self.best.ground, self.name, texts["system"], texts["turn"])
        if not isinstance(candidate, str):
            self.best.tell(candidate, score)


class Silent:
    """A logger for GEPA that discards messages."""

    def log(self, message: str) -> None:
        """Discard the message."""


@dataclass
class _Adapter:
    ground: Ground
    propose_new_texts: ProposalFn | None = None  # GEPA's default

    def evaluate(self, batch: list[int], candidate: Texts, capture_traces: bool = False) -> Batch:
        """Play an episode per seed."""
        try:
            playable = with_texts(self.ground, "gepa", candidate["system"], candidate["turn"])
            episodes = self.ground.play(playable, batch)
        except ConfigError as error:
            least = self.ground.experiment.task.min_return
            said, scores = [error.one_line] * len(batch), [least] * len(batch)
        else:
            said = [transcript(episode) for episode in episodes]
            scores = [episode.episode_return for episode in episodes]
        return EvaluationBatch(said, scores, said if capture_traces else None)

    def make_reflective_dataset(
        self,
        candidate: Texts,  # noqa: ARG002  # GEPA's signature
        eval_batch: Batch,
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return the transcripts, the same for each component."""
        opening = self.ground.experiment.about
        records = [
            {
                "Inputs": opening,
                "Generated Outputs": said,
                "Feedback": f"The episode's reward is {score:.1f}.",
            }
            for said, score in zip(eval_batch.trajectories or [], eval_batch.scores, strict=True)
        ]
        return dict.fromkeys(components_to_update, records)


def _text(prompt: str | list[dict[str, Any]]) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(str(message["content"]) for message in prompt)
