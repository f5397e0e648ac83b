"""Sweep trials that train as one compiled program."""
