"""Architectures, the contract that they share, and their common parts."""
