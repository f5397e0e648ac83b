"""Metrics of texts against references; `registry.py` has the list."""
