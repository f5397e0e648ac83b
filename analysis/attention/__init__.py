"""Attention weights of a trained model as pages and pictures."""
