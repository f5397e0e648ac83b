"""Errors, paths, locks and command-line code that every package may use."""
