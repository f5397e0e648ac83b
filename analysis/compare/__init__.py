"""Comparison of architectures at equal budgets of training."""
