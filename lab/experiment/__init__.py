"""The experiment: the TOML file that says what is tuned, and what it means.

It owns the file's keys and errors, the search space, the objective, and the budget with its prices.
It leaves to others what is done with them: it asks no model and plays nothing.
"""
