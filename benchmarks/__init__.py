"""Benchmarks of speed and memory, run by choice: see README.md in this folder."""
