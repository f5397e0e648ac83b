"""Tagging of the words of sentences."""
