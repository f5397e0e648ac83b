"""Pairs of texts: summaries, responses, equations and a user's own columns."""
