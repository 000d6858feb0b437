"""The search: which candidate plays which seed next, and which are dropped, within the budget.

It owns the race, the surrogate, the headroom test, and the loop that plays what they choose.
It leaves the last word to `lab.verdict`: the search's own returns are biased towards lucky candidates.
"""
