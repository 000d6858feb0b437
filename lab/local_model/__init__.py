"""The embedded model: SmolLM2-135M-Instruct behind an OpenAI-compatible endpoint on loopback.

`child` starts and stops it for the lab; `python -m lab.local_model` runs it by hand. The other modules
belong to the server's process.
"""
