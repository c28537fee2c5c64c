"""Evaluation: what a representation is worth, measured on records training never saw."""
