"""Carry data to an accelerator and take its results in."""
