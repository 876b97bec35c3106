"""Trace a function's program, inspect it, and evaluate it by other rules."""
