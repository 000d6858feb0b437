"""The display: what a terminal shows of a study and of candidates.

It owns the live screen, the progress lines, and the differences between two candidates as text.
It leaves the figures to others, and computes none that decides anything.
"""
