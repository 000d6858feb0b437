"""Storage: what was paid for, kept once: every model call and every episode.

It owns the database, a study's record in it, recorded calls, and the copy of its trials in Optuna's storage.
It leaves to others what an entry means: the search and the study decide what happens next.
"""
