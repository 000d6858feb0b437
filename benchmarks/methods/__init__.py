"""The peers: one module a method, each with `run(ground)`, set up as its own authors would."""
