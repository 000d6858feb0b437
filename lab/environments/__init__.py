"""Environments: one OpenEnv environment, in this process, at a URL, in a container or a Space.

It owns how one is declared and opened, its observations as text, and reading actions; `echo` is shipped.
It leaves to others who chooses the action (`lab.agent`), and never imports OpenEnv before one is opened.
"""
