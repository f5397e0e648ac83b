"""Configs of experiments: a file for each corpus, with several models."""
