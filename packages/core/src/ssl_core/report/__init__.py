"""The report of a run: one HTML file that needs nothing else."""

from ssl_core.report.page import render, write_report

__all__ = ["render", "write_report"]
