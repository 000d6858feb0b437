"""The submission: the frozen prompt, and the lines printed when it is played.

It owns the frozen prompt's file, the START, STEP and END lines, stdout, and the check of such output.
It leaves playing to `lab.agent` and `inference.py`, and the evidence in the file to `lab.verdict`.
"""
