"""Builders of text pairs that are no translations."""
