"""The display: studies and candidates in a terminal.

It owns the live screen, the progress lines, and the differences between two candidates as text.
It leaves the figures to others, and computes none that affect decisions.
"""
