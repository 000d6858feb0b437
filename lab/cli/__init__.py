"""The command line: what the commands share.

It owns arguments, exit codes, how an error is printed, and the names by which people call a candidate.
It leaves to each command, a module of `lab/`, what that command does.
"""
