"""Statistics: intervals, tests, and number formats.

It owns how an uncertainty is computed and how a number is written, for every room.
The other rooms decide what is compared, and act on it.
"""
