"""Transformer-XL (Dai et al. 2019): segment recurrence and relative positions."""
