"""Storage: every model call and every episode, stored once.

It owns the database, a study's record in it, recorded calls, and a study's trials in Optuna's storage.
It leaves deciding by them to the search and the study.
"""
