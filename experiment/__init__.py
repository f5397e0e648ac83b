"""Experiments: a config is built, validated, trained, and restored from its run.

The only package that knows models, data, tasks and training. From train.py:
train.py (here) -> build.py, validate.py, setup.py -> training/loop.py. From eval.py and
predict.py: inference.py -> restore.py.
"""
