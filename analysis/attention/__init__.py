"""Attention weights of a trained model as a page and as PNG files."""
