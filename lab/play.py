"""The command `python -m lab.play`: one episode of any candidate, step by step, with every message.

It owns how an episode is printed; names of candidates, and task and model, are `lab.cli.contenders`'s.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.command import (
    Debug,
    EndpointUrl,
    ExperimentOrNone,
    StudyName,
    Version,
    command_line,
    manners,
    who,
)
from lab.errors import plain
from lab.search.trouble_words import troubles_text
from lab.stats.format import token_notes
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.agent.episode import Episode
    from lab.agent.step import Step
    from lab.agent.task import Task
    from lab.cli.contenders import Stage
    from lab.llm.client import Completion, Message, Model
    from lab.llm.sampling import SamplingParams

app = command_line()


@app.command()
def play(
    candidate: Annotated[str, who("WHO")] = "frozen",
    experiment: ExperimentOrNone = None,
    study: StudyName = "",
    seed: Annotated[int, typer.Option(min=0, help="The environment's seed.")] = 0,
    endpoint: EndpointUrl = "",
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Play one episode, step by step: each message, the action, the reward, tokens, seconds.

    WHO is frozen, baseline, the number or name of a trial of the experiment's last study (or of --study),
    or the path of a frozen file.
    Model and environment are chosen as in lab.tune; a trial is played on those of its study. Environment
    variables override both.

    Examples:

        python -m lab.play

        python -m lab.play baseline --seed 7

        python -m lab.play trial-012 experiments/smoke.toml

        python -m lab.play 12 --study smoke-20261126-003509

        python -m lab.play .lab/smoke.toml
    """
    with manners(debug=debug):
        from lab.cli.contenders import set_stage

        stage = set_stage((candidate,), experiment, study, endpoint, need_experiment=False)
        asyncio.run(_play(stage, seed))


async def _play(stage: "Stage", seed: int) -> None:
    from lab.agent.agent import Agent
    from lab.agent.rollout import play as play_episode

    (contender,) = stage.contenders
    _say(_heading(stage, seed))
    async with stage.opened() as ((endpoint,), environment), environment.session() as session:
        printing = _Printing(endpoint, stage.task)
        agent = Agent(contender.candidate, printing, stage.task)
        episode = await play_episode(agent, session, seed, on_step=printing.step)
    _say(_sum(episode, stage.task))


@dataclass
class _Printing:
    """A model that prints its messages before they are sent, and the steps that follow from its answers."""

    model: "Model"
    task: "Task"
    steps: int = 0
    returned: float = 0.0

    async def complete(
        self, messages: "Sequence[Message]", sampling: "SamplingParams", schema: str = ""
    ) -> "Completion":
        """Ask the model once; see `Endpoint.complete`."""
        _say(f"\n== Step {self.steps + 1} of at most {self.task.max_steps}")
        for message in messages:
            _say(f"[{message.role}]\n{message.content}")
        return await self.model.complete(messages, sampling, schema)

    def step(self, step: "Step") -> None:
        """Print an action and its result."""
        self.steps, self.returned = step.number, self.returned + step.reward
        if step.completion and step.completion.thinking:
            _say(f"[thinking]\n{step.completion.thinking}")
        _say(f"[action]\n{step.action}")
        if step.observation != step.action:
            _say(f"[observation]\n{step.observation}")
        _say(f"-- reward {step.reward:.2f}, so far {self.returned:.2f}{_cost(step.completion)}")
        if step.error:
            _say(f"-- {step.error}")


def _cost(completion: "Completion | None") -> str:
    if completion is None:
        return ""
    notes = token_notes(1, completion.thinking_tokens, completion.estimated)
    tokens = f"{completion.prompt_tokens:,} tokens in, {completion.completion_tokens:,} out{notes}"
    tries = f" in {completion.attempts} attempts" if completion.attempts > 1 else ""
    return f"; {tokens}; {completion.latency_s:.2f} s{tries}; finish_reason={completion.finish_reason}"


def _heading(stage: "Stage", seed: int) -> str:
    from lab.display.diff import settings_of

    (contender,) = stage.contenders
    settings = " ".join(f"{name}={value}" for name, value in settings_of(contender.candidate).items())
    model = contender.model.choice
    where = f"{model.name} at {model.shown}"
    task = stage.task.setup(seed)[0].name
    return f"Playing {contender.name} on {where}, task {task}, seed {seed}:\n  {settings}"


def _sum(episode: "Episode", task: "Task") -> str:
    score = task.score_of(episode.rewards, episode.own_score)
    thought = sum(completion.thinking_tokens for completion in episode.completions)
    troubles, notes = troubles_text(episode.troubles), token_notes(episode.calls, thought, episode.estimated)
    return (
        f"\nReturn {episode.episode_return:.2f} in {len(episode.steps)} steps, score {score:.3f};"
        f" {episode.prompt_tokens:,} tokens in, {episode.completion_tokens:,} out{notes};"
        f" {episode.calls_s:.1f} s of calls."
        f"{f' {troubles}.' if troubles else ''}"
    )


def _say(text: str) -> None:
    """Print text of a model or an environment, with terminal escapes made visible."""
    print_result(plain(text))


if __name__ == "__main__":
    app()
