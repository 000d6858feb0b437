"""Proposers: new texts and demonstrations for the search space, from the episodes played so far.

It owns when a round is due, what the proposing model reads, and what a text must keep; DSPy or GEPA write it.
It leaves calls to `lab.llm`, and the trials that use the texts to `lab.search`.
"""
