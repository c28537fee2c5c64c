"""Experiments over several domains: a grid of runs and a page of results."""
