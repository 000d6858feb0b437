"""The command line: what the commands share.

It owns arguments, exit codes, printing errors, and the names of candidates.
The commands themselves are modules of `lab/`.
"""
