"""Tracking: a study in MLflow, as runs, metrics, traces and a registered prompt.

It owns the names and forms that MLflow shows, and the thread that writes them.
It decides nothing: a study runs the same if MLflow fails.
"""
