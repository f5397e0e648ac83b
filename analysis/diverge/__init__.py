"""Comparison of two training runs: the step at which they part, and the reason."""
