"""A function's traced program, looked at and evaluated by other rules."""
