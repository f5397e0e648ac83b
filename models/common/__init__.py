"""Layers, dtypes and output distributions shared by all architectures."""
