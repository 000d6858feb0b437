"""The embedded model: SmolLM2-135M-Instruct, or a GGUF file, behind an OpenAI-compatible API on loopback.

It owns the server, and in `child` its process; `python -m lab.local_model` runs it by hand.
It leaves calls to `lab.llm`, which treats it like any other endpoint.
"""
