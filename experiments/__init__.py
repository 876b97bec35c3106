"""Scripted experiments: configurations, result rows, tables and pages. Run ``python -m experiments --help``."""
