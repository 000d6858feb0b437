"""The library: what `import lab` offers to a Python program, as the commands offer it to a shell.

It owns the public functions, the Study that they return, and the Agent of one's own program. It leaves the
work to the other rooms, whose classes it passes on; `lab/__init__.py` lists the public names.
"""
