"""The verdict: the comparison of finalists and baseline on unseen seeds.

It owns the rule, its interval and test, all sentences about it, and the outcome as frozen prompt and JSON.
It leaves playing those episodes to `lab.study`, and displaying the outcome to the packages above.
"""
