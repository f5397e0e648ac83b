"""Observers of training, which change none of its results."""
