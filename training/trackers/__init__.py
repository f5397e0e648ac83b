"""Experiment trackers: services that collect the logs and results of runs."""
