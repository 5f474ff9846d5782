"""Submitting jobs and reading their outcomes, from Python."""
