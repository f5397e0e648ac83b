"""Heads of encoders: what a task adds to the hidden states of a text."""
