"""The prompt-optimisation lab."""
