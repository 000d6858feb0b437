"""The experiment: the TOML file that defines what is tuned, and its meaning.

It owns the file's keys and errors, the search space, the objective, and the budget with its prices.
It leaves their use to others: it makes no calls and plays no episodes.
"""
