"""The peers: one module per method, each with `run(ground)`, set up as its authors recommend."""
