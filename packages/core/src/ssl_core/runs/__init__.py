"""Runs: from a recipe to a finished folder, and what is done with it afterwards."""
