"""Environments with their own HTTP applications, in the forms that public submissions have.

`python -m tests.applications --port PORT` serves each at its name. All of them are one game: count up to
three, a point for each right number.
"""
