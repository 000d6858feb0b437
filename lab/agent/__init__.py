"""The agent: a candidate (template, sampling, context, demonstrations) that plays episodes of a task.

It owns prompts and messages, the rollout, and the resulting episodes, returns and scores.
It leaves calls to `lab.llm`, actions to `lab.environments`, and choosing candidates to `lab.search`.
"""
