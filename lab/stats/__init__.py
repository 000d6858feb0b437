"""Statistics: intervals and tests, and figures in words.

It owns how an uncertainty is computed and how a number is written, for every room.
It does not know what the numbers are: what is compared, and what follows from it, is decided above.
"""
