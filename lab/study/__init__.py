"""The study: the whole job from an experiment to a verdict, and reading a past one.

It owns the order of its parts, the seeds, the plan before it, and how an interrupted one resumes.
It leaves the work of each part to that part's room, and the command line to `lab.cli` and the commands.
"""
