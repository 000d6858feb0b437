"""The verdict: what episodes on unseen seeds say about the finalists and the baseline.

It owns the rule, the interval and the test behind it, its wording, and the outcome as frozen prompt and JSON.
It leaves playing those episodes to `lab.study`, and showing the outcome to the rooms above.
"""
