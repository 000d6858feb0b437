"""The LLM: one model behind an OpenAI-compatible API, hosted or embedded.

It owns the request, its sampling parameters and the endpoint's dialect, the response, retries and limits, and
which model is chosen.
It leaves to others what is asked (`lab.agent`), and what calls cost and where they are recorded.
"""
