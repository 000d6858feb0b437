"""Environments: one OpenEnv environment, in this process, at a URL, in a container or a Space.

It owns how one is declared and opened, observations as text, and parsing actions; `echo` is included.
It leaves choosing actions to `lab.agent`, and imports OpenEnv only when an environment is opened.
"""
