"""Errors, paths and command-line code that every package may use."""
