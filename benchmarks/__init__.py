"""Benchmarks: the lab and its peers at equal budgets of model calls; live, recorded, simulated."""
