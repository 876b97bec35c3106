"""Answer one question each about the quality of bounds; the docstring of each has its command."""
