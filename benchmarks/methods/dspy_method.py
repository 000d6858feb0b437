"""DSPy by `dspy.GEPA`: a `dspy.Module` whose two instructions are the system and the turn text.

GEPA, because DSPy's docs recommend it for agents with textual feedback: its metric takes the transcript as
feedback. `mipro_method` is the other. Set up as in DSPy's GEPA tutorials: `reflection_minibatch_size=3`,
merging on, the default proposer, disjoint validation and training seeds (as many as `gepa_method`), the cache
off. The module plays through the lab's agent, so that the scored candidate is the one that would be frozen.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from benchmarks.ground import Ground
from benchmarks.methods.gepa_method import TRAINING, VALIDATION, Picks
from benchmarks.methods.texts import transcript, with_texts
from benchmarks.methods.trials import Best
from lab.agent.candidate import Candidate, Demonstration
from lab.errors import ConfigError
from lab.proposers.rounds import demonstration

THREADS = 8

Played = Callable[[Candidate, int, float], None]


def run(ground: Ground) -> None:
    """Evolve until the calls are used up."""
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    lm = dspy.LM("ground", cache=False, num_retries=0, engine=Asked(ground))
    optimizer = dspy.GEPA(
        metric=metric,
        # In episodes; reflections cost calls as well, so the ground's limit is reached first.
        max_metric_calls=ground.budget_calls,
        reflection_minibatch_size=3,
        reflection_lm=lm,
        skip_perfect_score=False,
        num_threads=THREADS,
        warn_on_score_mismatch=False,
        seed=ground.seed,
        gepa_kwargs={"callbacks": [Picks(Best(ground), "dspy")]},
    )
    examples = [dspy.Example(seed=seed).with_inputs("seed") for seed in ground.seeds[: VALIDATION + TRAINING]]
    with dspy.context(lm=lm):
        optimizer.compile(playing(ground), trainset=examples[VALIDATION:], valset=examples[:VALIDATION])


def metric(
    gold: dspy.Example,
    pred: dspy.Prediction,
    trace: object = None,
    pred_name: object = None,
    pred_trace: object = None,
) -> dspy.Prediction:  # five arguments by DSPy's contract
    """The return, and the transcript as feedback."""
    del gold, trace, pred_name, pred_trace
    return dspy.Prediction(score=pred.episode_return, feedback=pred.transcript)


def playing(ground: Ground, played: Played = lambda *_: None, *, shots: bool = False) -> dspy.Module:
    """The module; a closure, because DSPy copies a module's attributes, and a ground must not be copied.

    Args:
        played: Is told of each episode: the candidate, the seed and the return.
        shots: Whether each step that earned something is a call of the turn's predictor, of which DSPy can
            make a demonstration.
    """
    about, template = ground.experiment.about, ground.experiment.baseline.template
    found = dict[tuple[str, str], Demonstration]()

    def play(
        system: str, turn: str, demos: Sequence[dspy.Example], seed: int
    ) -> tuple[float, str, list[Demonstration]]:
        shown = tuple(found[one.step, one.message] for one in demos)
        try:
            candidate = replace(with_texts(ground, "dspy", system, turn), demonstrations=shown)
            (episode,) = ground.play(candidate, [seed])
        except ConfigError as error:
            return ground.experiment.task.min_return, error.one_line, []
        played(candidate, seed, episode.episode_return)
        earned = [step for step in episode.steps if step.reward > 0 and step.error is None]
        steps = [demonstration(episode, step, template.fields) for step in earned if shots]
        found.update(((one.observation, one.action), one) for one in steps)
        return episode.episode_return, transcript(episode), steps

    class Playing(dspy.Module):  # type: ignore[misc]  # DSPy is untyped
        """Plays one episode with the lab's agent; its two texts are the instructions of two predictors."""

        def __init__(self) -> None:
            super().__init__()
            self.system = dspy.Predict(dspy.Signature("task -> messages", template.system))
            self.turn = dspy.Predict(dspy.Signature("step -> message", template.turn))

        def forward(self, seed: int) -> dspy.Prediction:
            system, turn = self.system.signature.instructions, self.turn.signature.instructions
            value, transcript, steps = play(system, turn, self.turn.demos, seed)
            # The trace that a predictor's own call would leave, on which GEPA reflects.
            if (trace := dspy.settings.trace) is not None:
                trace.append((self.system, {"task": about}, dspy.Prediction(messages=transcript)))
                said = [(one.observation, one.action) for one in steps] if shots else [(about, transcript)]
                trace += [(self.turn, {"step": one}, dspy.Prediction(message=text)) for one, text in said]
            return dspy.Prediction(episode_return=value, transcript=transcript)

    return Playing()


class Asked:
    """The proposing model, as a DSPy engine."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def complete(self, request: Request) -> Response:
        """Make one call."""
        system = request.system or ""
        if not isinstance(system, str):
            system = "".join(getattr(part, "text", "") for part in system)
        prompt = "\n\n".join([system, *(message.text or "" for message in request.messages)]).strip()
        return Response(
            id=None,
            model="ground",
            message=Message.assistant([TextPart(self._ground.ask(prompt))]),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0),
        )
