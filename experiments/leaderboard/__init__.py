"""Rank defenses under one protocol: nothing is here yet."""
