"""Traces: episodes in MLflow, each step with its model call and the environment's answer.

It owns their ids and their form; `lab.tracking.child_runs` chooses them. Durations were measured; a step
starts at the end of the one before, so gaps between them are not shown.

They use the client of MLflow's own exporter, not `start_span` and `end_span`, which write each span from
separate threads, ignore failures, and create new ids each time.
"""

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.agent.episode import Episode, FailedEpisode
from lab.agent.evaluation import Evaluation
from lab.agent.messages import chat
from lab.agent.step import Step
from lab.errors import plain
from lab.experiment.budget import Prices
from lab.llm.client import Completion
from lab.stats.format import number
from lab.tracking.holdout import row
from lab.tracking.metrics import cut

if TYPE_CHECKING:
    from mlflow.entities import Feedback, Span, TraceInfo

NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Traced:
    """The MLflow run that the episodes belong to, and the model that played them."""

    experiment_id: str
    run_id: str
    run_name: str
    model: str
    prices: Prices
    evaluation: Evaluation


def log_traces(traced: Traced, episodes: list[Episode], failed: list[FailedEpisode]) -> None:
    """Write the traces. A repeated trace replaces the earlier one, because its id depends on run and seed."""
    from mlflow.tracing.client import TracingClient

    client, spans = TracingClient(), list["Span"]()
    for episode in episodes:
        began_s = time.time() if episode.began is None else episode.began
        written = _Writer(traced, episode.seed, round(began_s * NS_PER_S))
        spans += written.episode(episode)
        summary = f"return {number(episode.episode_return)} in {len(episode.steps)} steps"
        client.start_trace(written.info(summary, episode))
    for broken in failed:
        written = _Writer(traced, broken.seed, time.time_ns())
        spans.append(written.failed(broken))
        client.start_trace(written.info(_shown(broken.error.one_line), None))
    if spans:
        client.log_spans(traced.experiment_id, spans)


class _Writer:
    """One trace: its spans, and the clock that they advance."""

    def __init__(self, traced: Traced, seed: int, began_ns: int) -> None:
        self._traced, self._seed = traced, seed
        self._began_ns = self._clock_ns = began_ns
        self._id = hashlib.sha256(f"{traced.run_id} {seed}".encode()).digest()[:16]
        self.trace_id = f"tr-{self._id.hex()}"
        self._usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}

    def episode(self, episode: Episode) -> "Iterator[Span]":
        """The spans of an episode, parents first."""
        steps = [span for index in range(len(episode.steps)) for span in self._step(episode, index)]
        yield self._span(
            "episode",
            "AGENT",
            self._began_ns,
            inputs={"seed": episode.seed, "opening": _shown(episode.opening)},
            outputs={"return": round(episode.episode_return, 6), "steps": len(episode.steps)},
        )
        yield from steps

    def failed(self, broken: FailedEpisode) -> "Span":
        """The span of a failed episode, with its error."""
        error = _shown(broken.error.one_line)
        return self._span("episode", "AGENT", self._began_ns, {"seed": broken.seed}, None, error=error)

    def info(self, response: str, episode: Episode | None) -> "TraceInfo":
        """The row in MLflow's table; equal requests are compared, so they hold only what candidates share.

        Args:
            episode: None if it failed.
        """
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        traced = self._traced
        return TraceInfo(
            trace_id=self.trace_id,
            trace_location=TraceLocation.from_experiment_id(traced.experiment_id),
            request_time=self._began_ns // 1_000_000,
            execution_duration=(self._clock_ns - self._began_ns) // 1_000_000,
            state=TraceState.OK if episode else TraceState.ERROR,
            request_preview=json.dumps(row(traced.evaluation.task, self._seed), ensure_ascii=False),
            response_preview=response,
            trace_metadata={
                "mlflow.sourceRun": traced.run_id,
                "mlflow.trace_schema.version": "3",
                "mlflow.trace.tokenUsage": json.dumps(self._usage),
            },
            tags={
                "mlflow.traceName": f"{traced.run_name}, seed {self._seed}",
                "run": traced.run_name,
                "seed": str(self._seed),
                "digest": traced.evaluation.candidate.digest,
                "model": traced.model,
            },
            assessments=[*self._assessments(episode)] if episode else [],
        )

    def _assessments(self, episode: Episode) -> "Iterator[Feedback]":
        """Return, score and success; their ids depend on the trace's, so that a repeated one is replaced."""
        from mlflow.entities import AssessmentSource, Feedback

        task, at = self._traced.evaluation.task, self._clock_ns // 1_000_000
        score = task.score_of(episode.rewards, episode.own_score)
        judged: dict[str, float | bool] = {"return": round(episode.episode_return, 6)}
        judged |= {"score": round(score, 6), "success": score >= task.success_score}
        source = AssessmentSource(source_type="CODE", source_id="environment")
        for place, (name, value) in enumerate(judged.items()):
            feedback = Feedback(name, value, None, source, self.trace_id, None, None, at, at)
            feedback.assessment_id = f"a-{self._id.hex()}" + (f"-{place}" if place else "")
            yield feedback

    def _step(self, episode: Episode, index: int) -> "Iterator[Span]":
        step, began_ns = episode.steps[index], self._clock_ns
        before = episode.steps[index - 1].observation if index else episode.opening
        name = f"step {step.number}"
        inside = [*self._call(episode, step, name), self._environment(step, name)]
        yield self._span(
            name,
            "CHAIN",
            began_ns,
            inputs={"observation": _shown(before)},
            outputs={"action": _shown(step.action), "reward": step.reward, "done": step.done},
            parent="episode",
            error=_shown(step.error) if step.error else None,
        )
        yield from inside

    def _call(self, episode: Episode, step: Step, parent: str) -> "Iterator[Span]":
        completion = step.completion
        if completion is None:
            return
        began_ns = self._clock_ns
        self._clock_ns += round(completion.latency_s * NS_PER_S)
        yield self._span(
            "model",
            "CHAT_MODEL",
            began_ns,
            inputs=_request(self._traced.evaluation, episode, step),
            outputs=_response(completion),
            parent=parent,
            more=self._used(completion),
        )

    def _environment(self, step: Step, parent: str) -> "Span":
        began_ns = self._clock_ns
        self._clock_ns += round((step.environment_s or 0.0) * NS_PER_S)
        inputs = {"action": _shown(step.action)}
        outputs = {"observation": _shown(step.observation), "reward": step.reward, "done": step.done}
        return self._span("environment", "TOOL", began_ns, inputs, outputs, parent=parent)

    def _used(self, completion: Completion) -> dict[str, object]:
        """The model call's attributes, by MLflow's names."""
        tokens_in, tokens_out = completion.prompt_tokens, completion.completion_tokens
        usage = {"input_tokens": tokens_in, "output_tokens": tokens_out}
        usage["total_tokens"] = tokens_in + tokens_out
        self._usage = {key: self._usage[key] + value for key, value in usage.items()}
        return {
            "mlflow.chat.tokenUsage": usage,
            "mlflow.message.format": "openai",
            "attempts": completion.attempts,
            **({"thinking_tokens": completion.thinking_tokens} if completion.thinking_tokens else {}),
            **({"tokens_estimated": True} if completion.estimated else {}),
            **self._costs(tokens_in, tokens_out),
        }

    def _costs(self, tokens_in: int, tokens_out: int) -> dict[str, object]:
        """The call's cost, and the model by which MLflow sums costs.

        Empty without known prices: MLflow would show an empty cost as 0, and download a price list for a
        model without a cost.
        """
        prices = self._traced.prices
        if not prices.known:
            return {}
        costs = {"input_cost": prices.dollars(tokens_in, 0), "output_cost": prices.dollars(0, tokens_out)}
        return {
            "mlflow.llm.model": self._traced.model,
            "mlflow.llm.cost": {**costs, "total_cost": sum(costs.values())},
        }

    def _span(
        self,
        name: str,
        kind: str,
        began_ns: int,
        inputs: object,
        outputs: object,
        *,
        parent: str | None = None,
        error: str | None = None,
        more: dict[str, object] | None = None,
    ) -> "Span":
        """A span from `began_ns` to the clock; its id depends on its place in the trace."""
        from mlflow.entities import Span

        attributes = {"mlflow.traceRequestId": self.trace_id, "mlflow.spanType": kind, **(more or {})}
        attributes |= {"mlflow.spanInputs": inputs, "mlflow.spanOutputs": outputs}
        own = f"{parent}/{name}" if kind in ("CHAT_MODEL", "TOOL") else name
        return Span.from_dict(
            {
                "name": name,
                "trace_id": _base64(self._id),
                "span_id": self._span_id(own),
                "parent_span_id": self._span_id(parent) if parent else None,
                "start_time_unix_nano": began_ns,
                "end_time_unix_nano": self._clock_ns,
                "status": {"code": f"STATUS_CODE_{'ERROR' if error else 'OK'}", "message": error or ""},
                "attributes": {
                    key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()
                },
            }
        )

    def _span_id(self, place: str) -> str:
        return _base64(hashlib.sha256(self._id + place.encode()).digest()[:8])


def _request(evaluation: Evaluation, episode: Episode, step: Step) -> dict[str, object]:
    """The request as sent, in the API's form, without the model."""
    candidate, earlier = evaluation.candidate, episode.steps[: step.number - 1]
    messages = chat(candidate, evaluation.task, episode.start, earlier)
    shown = [{"role": message.role, "content": _shown(message.content)} for message in messages]
    return {"messages": shown, **candidate.sampling.as_table()}


def _response(completion: Completion) -> dict[str, object]:
    message = {"role": "assistant", "content": _shown(completion.text)}
    if completion.thinking:
        message["reasoning_content"] = _shown(completion.thinking)
    return {"choices": [{"index": 0, "message": message, "finish_reason": completion.finish_reason}]}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _shown(text: str) -> str:
    """`text` safe to show: of bounded length, and without images.

    MLflow shows messages as Markdown, and would load an image that a model names.
    """
    return plain(cut(text)).replace("![", "!\\[")
