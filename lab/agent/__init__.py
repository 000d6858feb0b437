"""The agent: a candidate (template, sampling, context, demonstrations) that plays episodes of a task.

It owns prompts and messages, the rollout, and the episodes, returns and scores that result.
It leaves calls to `lab.llm`, actions to `lab.environments`, and the choice of candidates to `lab.search`.
"""
