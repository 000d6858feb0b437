"""The study: from an experiment to a verdict, and reading past studies.

It owns the order of the phases, their seeds, the plan, and resuming.
It leaves each phase's work to that phase's room, and the command line to `lab.cli` and the commands.
"""
