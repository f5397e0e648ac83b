"""Experiments: a config is built, validated, trained, and restored from its run.

The only package that knows models, data, tasks and training. From train.py:
train.py (this package) -> build.py, validate.py, setup.py -> training/loop.py.
"""
